"""Any corpus as items to judge: a data set of this project, or a table (`personas.tables`) with a column of text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.items import Item
from evaluation.judges.own import OwnJudge
from personas import Attribute
from personas.chats import chat_in_text, last_user_text
from personas.errors import SourceError, TableError
from personas.profiles import profile_text
from personas.tables import FORMATS_SAID, Row, id_text, is_table, no_column, read_table
from personas.text import storable
from personas.words import kind
from pipeline.job.adapters import adapter_folder, attribute_of, judges_beside, resolved
from pipeline.judging.registry import item_of
from pipeline.store.copies import here
from pipeline.store.dataset import JOB_FILE, WORK_FOLDER, copied, job_folder
from pipeline.store.files import exists, is_file, is_folder, nothing_there, read_text
from pipeline.store.layout import files_in
from pipeline.store.manifest import changed_files
from pipeline.store.places import expanded
from pipeline.store.schema import GENERATIONS, NewerSchema, log_prob_bare, refuse_newer, without_tokens

ID_DIGITS = 32


class CorpusError(SourceError):
    """A corpus that can't be judged."""


@dataclass(frozen=True)
class Corpus:
    """Texts, and where their judgments go.

    Attributes:
        items: in the corpus's order; texts that stand in a foreign file twice (with their prompt) once.
        clusters: one each an item: what its interval is clustered by.
        groups: one each an item: the persona it was written for; of a foreign file all the same.
        attributes: that the corpus is known to be about.
        folder: data set folder of the judgments.
        log_probs: one each an item, where rows have them: nats under the reference, and tokens.
        foreign: whether it is somebody's file: its row ids do not name its texts.
        notes: what its author should know, in a line each: rows that can't be judged.
        adapters: attribute -> folder of its adapter, where the corpus's job names one; ``None``: it is not here.
    """

    items: tuple[Item, ...]
    clusters: tuple[str, ...]
    groups: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    folder: Path
    log_probs: tuple[tuple[float, int], ...] = ()
    foreign: bool = False
    notes: tuple[str, ...] = ()
    adapters: Mapping[str, Path | None] = field(default_factory=dict)

    def own_judges(self) -> dict[str, OwnJudge]:
        """Attribute -> the judge beside its adapter. Raises JudgeWeightsError: one is damaged."""
        return judges_beside(self.adapters)


def load_corpus(source: str | Path, *, column: str, output: Path | None) -> Corpus:
    """Read a corpus.

    Args:
        source: folder of a data set (``data/*.parquet``), or a table; on this machine or in a store.
        column: of a file, the text; ``prompt``, ``profile`` and ``personality`` are read if they are there.
        output: folder for the judgments; ``None``: a data set's own, a file's beside it.

    Raises:
        CorpusError: nothing there, no text, a column that is missing, a data set whose files are not those that were
            written, two texts under one row id. OSError: a store does not give it now.
    """
    path = expanded(source)
    if is_folder(path):
        return _data_set(path, output)
    return _file(path, column, output)


def _data_set(path: Path, output: Path | None) -> Corpus:
    import pyarrow.parquet as pq

    copy = copied(path)
    files = files_in(copy / "data")
    if not files:
        raise CorpusError(str(path), "has no data/*.parquet; give the folder of a data set, or a file")
    for name, how in _edited(copy).items():
        remedy = "put it back, or judge a copy of it as a file"
        raise CorpusError(str(path / name), f"is not as the data set's manifest says ({how}); {remedy}")
    rows: list[dict[str, Any]] = []
    for file in files:
        table = pq.read_table(file)
        try:
            refuse_newer(table.schema)
        except NewerSchema as error:
            raise CorpusError(str(file), str(error)) from error
        missing = [name for name in ("row_id", "response", "prompt_id", "persona") if name not in table.column_names]
        if missing:
            raise CorpusError(str(file), f"has no column {missing[0]!r}; is this a data set of mpg run?")
        rows += without_tokens(table).to_pylist()
    attributes, adapters = _attributes_of(path)
    blank = dict.fromkeys(GENERATIONS.names)  # of an older schema, columns are missing
    rows = [blank | row for row in rows]
    return Corpus(
        items=tuple(item_of(row) for row in rows),
        clusters=tuple(row["prompt_id"] for row in rows),
        groups=tuple(row["persona"] for row in rows),
        attributes=attributes,
        adapters=adapters,
        folder=output or path,
        log_probs=()
        if any(row["log_prob_reference"] is None for row in rows)
        else tuple((log_prob_bare(row), row["n_tokens"]) for row in rows),
    )


def _attributes_of(data_set: Path) -> tuple[tuple[Attribute, ...], dict[str, Path | None]]:
    """What a data set's job says of its attributes, or their adapters' cards; and where the adapters are."""
    try:
        entries = json.loads(read_text(data_set / JOB_FILE)).get("attributes", [])
    except FileNotFoundError:
        return (), {}
    here = job_folder(data_set / WORK_FOLDER) or data_set
    found, adapters = [], {}
    for entry in entries:
        place = resolved(here, entry["adapter"]) if entry.get("adapter") else None
        where = entry.get("revision"), entry.get("subfolder")
        known = attribute_of(entry["name"], place, *where)
        adapters[entry["name"]] = None if place is None else adapter_folder(place, *where)
        described = entry.get("description") or known.description
        found.append(Attribute(known.name, described, entry.get("opposite") or known.opposite))
    return tuple(found), adapters


def _edited(path: Path) -> dict[str, str]:
    """What of a data set's texts is not as its manifest says; of one without a manifest nothing is known."""
    try:
        return {name: how for name, how in changed_files(path).items() if name.startswith("data/")}
    except (OSError, ValueError):
        return {}


def _file(path: Path, column: str, output: Path | None) -> Corpus:
    if not is_table(path.name) or not is_file(path):
        what = (
            nothing_there(path, "file or folder") if not exists(path) else f"is no table by its name ({FORMATS_SAID})"
        )
        raise CorpusError(str(path), f"{what}; give one, or the folder of a data set")
    try:
        table = read_table(here(path))
        rows = list(table.rows)
    except TableError as error:
        raise CorpusError(str(path), error.problem) from error
    if not rows:
        raise CorpusError(str(path), "holds no row; give at least one")
    columns = table.columns or tuple(dict.fromkeys(key for row in rows for key in row.values))
    broken = [(row.place, row.problem) for row in rows if row.problem is not None]
    if column not in columns and len(broken) < len(rows):
        raise CorpusError(str(path), no_column(column, columns, "name the text's with --column"))
    items: dict[str, tuple[Item, str]] = {}
    blank: list[str] = []
    for row in rows:
        try:
            if row.problem is None:
                item = _item(row, column, all_text=table.all_text)
                earlier, place = items.setdefault(item.key, (item, row.place))
                if earlier != item:
                    problem = f"{place} and {row.place} have the row_id {item.key!r} and differ; give each its own"
                    raise CorpusError(str(path), problem)
                blank += [row.place] * (row.values.get(column) is None)
        except ValueError as error:
            if isinstance(error, CorpusError):
                raise
            broken.append((row.place, str(error)))
    if not items:
        raise CorpusError(str(path), f"has no text to judge; {broken[0][0]}: {broken[0][1]}")
    notes = []
    if broken:
        first = ": ".join(map(str, broken[0]))
        notes.append(f"{len(broken)} of {len(rows)} rows can't be judged and are left out; the first: {first}")
    if blank:
        notes.append(f"{len(blank)} of {len(rows)} rows have no {column!r} and stay unscored; the first: {blank[0]}")
    found = tuple(item for item, _ in items.values())
    folder = output or path.with_name(f"{_stem(path)}-judgments")
    clusters = tuple(item.prompt or item.key for item in found)
    return Corpus(found, clusters, ("all",) * len(found), (), folder, foreign=True, notes=tuple(notes))


def _stem(path: Path) -> str:
    """A file's name without what says its format: ``texts`` of ``texts.csv.gz``."""
    return path.stem if is_table(path.name) and not is_table(path.stem) else Path(path.stem).stem


def _item(row: Row, column: str, *, all_text: bool) -> Item:
    """A row as it is judged. Raises ValueError: a cell that is not what it should be."""
    text = row.values.get(column)
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{column!r} is {kind(text)}; give text")
    asked = row.values.get("prompt")
    if all_text and isinstance(asked, str):
        asked = chat_in_text(asked)
    try:
        prompt = last_user_text(asked)
    except ValueError as error:
        raise ValueError(f"'prompt': {error}") from error
    person = {name: _described(name, row.values.get(name)) for name in ("profile", "personality")}
    key = id_text(row.values.get("row_id"))
    if key is None:
        seen = {"prompt": prompt, **person}
        identity: list[Any] = [text, seen] if text is not None else [row.place, seen]
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:ID_DIGITS]
    return Item(storable(key), text or "", prompt, person["profile"], person["personality"])


def _described(name: str, value: object) -> str:
    if isinstance(value, Mapping) and name == "profile":
        return profile_text({key: each for key, each in value.items() if each is not None})
    if value is None or isinstance(value, str):
        return value or ""
    raise ValueError(f"{name!r} is {kind(value)}; give text")
