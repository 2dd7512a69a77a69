"""Data sets as tables: folders, and ids of the Hub, by the package ``datasets``; of each only what is asked for.

A folder's own files are read by :mod:`personas.tables` where it can, so that a cell of text is text there, too. A name
is a name: brackets and stars in it are no patterns.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import TableError
from personas.tables import Row, Table, is_table, read_table

# What marks a folder that `Dataset.save_to_disk` wrote.
_SAVED = ("dataset_dict.json", "state.json")
# A split's name, without the arithmetic that `datasets` allows.
_SPLIT = re.compile(r"\w+(\.\w+)*")
# What `datasets` takes for a pattern.
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class DataSet:
    """Which rows are wanted.

    Attributes:
        place: a folder, or an id of the Hub.
        split: its name.
        config: name of the configuration (a data set's subset); ``None``: the default one.
        data_files: the files to read, by their names in the data set; empty: those of the split.
        revision: of a Hub id: branch, tag or commit.
        streaming: of a Hub id: whether rows come as they are read, or the whole data set is first downloaded and kept;
            ``None``: they come where few are wanted.
    """

    place: str
    split: str = "train"
    config: str | None = None
    data_files: tuple[str, ...] = ()
    revision: str | None = None
    streaming: bool | None = None

    @property
    def label(self) -> str:
        """Its name, without the path of any machine."""
        return Path(self.place).absolute().name if Path(self.place).is_dir() else self.place


def open_data_set(data: DataSet, *, few: bool = False) -> Table:
    """The rows of a data set's split, which are read as they are asked for.

    Args:
        few: whether only some of its rows will be wanted.

    Raises:
        TableError: it can't be opened, or has no such file, configuration or split.
    """
    if not _SPLIT.fullmatch(data.split):
        raise TableError(
            data.place, f"split {data.split!r} is no split's name; parts of one are named by skip and limit"
        )
    folder = Path(data.place)
    if not folder.is_dir():
        return _of_hub(data, few)
    if data.data_files:
        if data.split != "train":
            raise TableError(data.place, f"has no split {data.split!r}; its data_files are the split 'train'")
        return _of_files(data.place, folder, [folder / name for name in data.data_files])
    if any((folder / name).is_file() for name in _SAVED):
        return _saved(data)
    return _of_folder(data, folder)


def _of_files(source: str, folder: Path, paths: Sequence[Path]) -> Table:
    """Some files of a folder, one after the other; a file is opened when its first row is asked for."""
    for path in paths:
        if not path.is_file():
            raise TableError(source, f"data file {str(path.relative_to(folder))!r}: no such file")
    first = _open(source, folder, paths[0])

    def rows() -> Iterator[Row]:
        for number, path in enumerate(paths):
            name = f"{path.relative_to(folder)}, " if len(paths) > 1 else ""
            for row in (first if number == 0 else _open(source, folder, path)).rows:
                yield Row(f"{name}{row.place}", row.values, row.problem, row.text)

    return Table(source, first.columns, rows(), all_text=first.all_text)


def _open(source: str, folder: Path, path: Path) -> Table:
    try:
        return read_table(path)
    except TableError as error:
        raise TableError(source, f"data file {str(path.relative_to(folder))!r}: {error.problem}") from error


def _of_folder(data: DataSet, folder: Path) -> Table:
    """A folder of files: `datasets` says which of them belong to the split."""
    from datasets import load_dataset, load_dataset_builder

    stack = ExitStack()
    base = folder.resolve()
    try:
        if _MAGIC.search(str(base)):
            base = _linked(base, stack)
        builder = load_dataset_builder(str(base), name=data.config)
        files: Mapping[str, Sequence[str]] = builder.config.data_files or {}
        _check_split(data, [str(name) for name in files])
        paths = [folder / Path(name).relative_to(base) for name in files[data.split]]
        commas = getattr(builder.config, "sep", ",") == "," and getattr(builder.config, "delimiter", None) in (
            None,
            ",",
        )
        if all(map(is_table, paths)) and commas:
            stack.close()
            return _of_files(data.place, folder, paths)
        rows = load_dataset(str(base), name=data.config, split=data.split, streaming=True)
    except TableError:
        stack.close()
        raise
    except Exception as error:  # whatever a README, a script or a file format comes up with
        stack.close()
        raise _unopened(data, error, shown={str(base): data.place}) from error
    return _table(data, rows, stack)


def _linked(folder: Path, stack: ExitStack) -> Path:
    """The folder under a plain name, its files as links, since `datasets` takes stars and brackets for a pattern."""
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mpg-"))).resolve() / "data"
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        here = place / Path(parent).relative_to(folder)
        here.mkdir()
        for name in files:
            (here / name).symlink_to(Path(parent) / name)
    return place


def _saved(data: DataSet) -> Table:
    """A folder that `Dataset.save_to_disk` wrote; it is mapped into memory, not read."""
    from datasets import DatasetDict, load_from_disk

    try:
        found = load_from_disk(data.place)
    except Exception as error:  # whatever a damaged folder comes up with
        raise _unopened(data, error) from error
    splits: Mapping[Any, Any] = found if isinstance(found, DatasetDict) else {"train": found}
    _check_split(data, [str(name) for name in splits])
    return _table(data, splits[data.split], ExitStack())


def _of_hub(data: DataSet, few: bool) -> Table:
    from datasets import load_dataset

    streaming = few if data.streaming is None else data.streaming
    files = [_MAGIC.sub(r"[\g<0>]", name) for name in data.data_files] or None
    try:
        rows = load_dataset(
            data.place,
            name=data.config,
            data_files=files,
            revision=data.revision,
            split=data.split,
            streaming=streaming,
        )
    except Exception as error:  # whatever the Hub, the network or a file format comes up with
        raise _unopened(data, error) from error
    return _table(data, rows, ExitStack())


def _table(data: DataSet, rows: Any, stack: ExitStack) -> Table:
    """Rows of `datasets` as a table, without columns that are no text or numbers (images, sounds)."""
    features: Mapping[str, Any] = rows.features or {}
    others = [name for name, feature in features.items() if not _is_plain(feature)]
    if others:
        rows = rows.remove_columns(others)

    def read() -> Iterator[Row]:
        number = 0
        with stack:
            try:
                for number, values in enumerate(rows, start=1):
                    yield Row(f"row {number}", values)
            except Exception as error:  # as above
                raise _unopened(data, error, what=f"split {data.split!r} can't be read after row {number}") from error

    return Table(data.place, tuple(rows.column_names) if features else None, read())


def _is_plain(feature: Any) -> bool:
    from datasets import ClassLabel, LargeList, List, Value

    if isinstance(feature, Mapping):
        return all(map(_is_plain, feature.values()))
    if isinstance(feature, list):
        return all(map(_is_plain, feature))
    if isinstance(feature, List | LargeList):
        return _is_plain(feature.feature)
    return isinstance(feature, Value | ClassLabel)


def _check_split(data: DataSet, splits: Sequence[str]) -> None:
    if data.split not in splits:
        raise TableError(data.place, f"has no split {data.split!r}; choose from {', '.join(splits)}")


def _unopened(
    data: DataSet, error: Exception, *, what: str = "can't be opened", shown: Mapping[str, str] | None = None
) -> TableError:
    """An error of `datasets` in a line."""
    reason = " ".join(str(error).split())
    for name, place in (shown or {}).items():
        reason = reason.replace(name, place)
    splits = re.search(r"split.*(?:Available splits|Should be one of):? \[(.*?)\]", reason, re.IGNORECASE)
    if splits:
        return TableError(data.place, f"has no split {data.split!r}; choose from {splits[1].replace(chr(39), '')}")
    return TableError(data.place, f"{what} ({type(error).__name__}: {reason})")
