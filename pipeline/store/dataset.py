"""The output folder: the data set in it, and the work folder that it is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import pyarrow as pa

from pipeline.store.errors import OutputError, is_writable, unwritable
from pipeline.store.files import (
    copy,
    exists,
    here,
    is_file,
    is_filled,
    is_folder,
    listing,
    make_folder,
    move,
    read_text,
    remove_tree,
    write_bytes,
)
from pipeline.store.layout import Sizes, TableWriter, among, files_in
from pipeline.store.manifest import DATASET_MANIFEST, files_of, write_manifest
from pipeline.store.places import expanded, is_local
from pipeline.store.shards import append_entry, free_name, read_shards, shard_name, shard_tables, write_rows

WORK_FOLDER = ".work"
RUN_FILE = "run.json"
JOB_FILE = "job.json"
CARD_FILE = "README.md"
FIGURES = "figures"  # folder of the card's pictures, beside it
PLAN_FILE = "plan.json"  # in the work folder
PARTIAL = "partial"  # what a run that did not end well has so far, as a data set of its own
_JOB_FOLDER = "job-folder"
_TAKEN_UP = "taken-up"  # in a folder of shards in a store: what was in the data set is in it
# Table -> its folder in the data set.
FOLDERS = {"generations": "data", "judgments": "judgments", "rejected": "rejected"}
# Forms to train on (`mpg export`), each a folder of the data set.
FORMS = ("messages", "prompt-completion", "preference")
# Dead letters whose next try may go well, on another machine: the row itself is not at fault.
TRANSIENT = ("out_of_memory",)


def prepare(output: Path) -> Path:
    """The work folder in an output folder, made if need be.

    Raises:
        OutputError: a file in its place, a folder that something else has filled, or one that can't be written.
    """
    work = output / WORK_FOLDER
    try:
        if is_file(output):
            raise OutputError(f"output: {output} is a file; give a folder")
        if is_foreign(output):
            raise OutputError(f"output: {output} holds files of something else; give an empty or new folder")
        for name in FOLDERS:
            shards_folder(output, name)
    except OSError as error:
        raise OutputError(f"output: {unwritable(output, error)}") from error
    if not is_writable(work):
        raise OutputError(f"output: {unwritable(output)}")
    return work


def is_foreign(output: Path) -> bool:
    """Whether something else has filled the folder. Raises OSError."""
    ours = is_folder(output / WORK_FOLDER) or any(is_file(place / DATASET_MANIFEST) for place in _data_sets(output))
    return not ours and is_filled(output)


def shards_folder(output: Path, name: str) -> Path:
    """The work folder of a table's shards, made if need be.

    Where there is none (a published data set, a work folder that was deleted) the data set's own files, and those of
    what a later run had so far, are its first shards: what they hold is kept, whoever adds to it, as long as they are
    what their manifest says. Raises OSError.
    """
    folder = output / WORK_FOLDER / name
    if not is_local(folder):
        if not exists(folder / _TAKEN_UP):
            _take_up(output, name, folder)
            write_bytes(b"", folder / _TAKEN_UP)  # killed before it, the next command copies the same files again
    elif not folder.is_dir():
        scratch = folder.with_name(f".{name}.tmp")  # renamed when it is whole: a killed copy counts for nothing
        remove_tree(scratch)
        scratch.mkdir(parents=True)
        _take_up(output, name, scratch)
        scratch.rename(folder)
    return folder


def _take_up(output: Path, name: str, folder: Path) -> None:
    for i, place in enumerate(_data_sets(output)):
        known = files_of(place)
        for file in files_in(place / FOLDERS[name]):
            target = folder / f"{i}-{file.name}"
            copy(file, target)
            entry = known.get(f"{FOLDERS[name]}/{file.name}")
            if entry is not None:  # else it is taken up if it is sound, as any shard without a line
                append_entry(folder, entry | {"file": target.name})


def _data_sets(output: Path) -> tuple[Path, Path]:
    return output, output / PARTIAL


def copied(output: Path) -> Path:
    """A data set's folder itself; of one in a store a copy here, as it is now, without its work folder.

    Raises:
        OSError
    """
    return here(output, without=(WORK_FOLDER, PARTIAL))


def is_complete(output: Path) -> bool:
    """Whether a data set is there: its record is written with the rest of it, and only if it is whole.

    Raises:
        OSError: nobody can tell.
    """
    return is_file(output / RUN_FILE) and is_file(output / DATASET_MANIFEST)


def n_shards(work: Path) -> int:
    """How many shards there are, of all tables."""
    return sum(len(listing(work / name, ".parquet")) for name in FOLDERS)


def set_aside_judgments(work: Path, row_ids: AbstractSet[str]) -> None:
    """Of rows that are about to be written anew, as another text needs other ones; they are kept as ``*.stale``."""
    if not row_ids:
        return
    for path, table in shard_tables(work / "judgments", "judgments"):
        if row_ids.isdisjoint(table.column("row_id").to_pylist()):
            continue
        rows = table.to_pylist()
        rest = [row for row in rows if row["row_id"] not in row_ids]
        if rest:
            write_rows(rest, "judgments", path.with_name(shard_name([path.name, *(row["row_id"] for row in rest)])))
        move(path, free_name(path.with_suffix(".stale")))


def keep_job_folder(work: Path, folder: Path) -> None:
    """Remember what the job's paths are relative to, on this machine: no data set names a place. Raises OSError."""
    make_folder(work)
    write_bytes(str(folder).encode(), work / _JOB_FOLDER)


def job_folder(work: Path) -> Path | None:
    """What the paths of the data set's job are relative to; ``None`` where it was not written on this machine."""
    try:
        return expanded(read_text(work / _JOB_FOLDER))
    except FileNotFoundError:
        return None


def done_ids(work: Path) -> set[str]:
    """Row ids that are written."""
    return set(read_shards(work / "generations", "generations", ["row_id"]).column("row_id").to_pylist())


def ids_without(work: Path, column: str) -> set[str]:
    """Row ids that are written with null in a column."""
    table = read_shards(work / "generations", "generations", ["row_id", column])
    return set(table.filter(table.column(column).is_null()).column("row_id").to_pylist())


def dead_ids(work: Path) -> set[str]:
    """Row ids among the dead letters that are not to be tried again."""
    dead = read_shards(work / "rejected", "rejected", ["row_id", "reason"])
    pairs = zip(dead.column("row_id").to_pylist(), dead.column("reason").to_pylist(), strict=True)
    return {row_id for row_id, reason in pairs if reason not in TRANSIENT and row_id is not None}


def write_pieces(
    folder: Path,
    pieces: Iterable[Mapping[str, pa.Table]],
    test_ids: Callable[[pa.Table], AbstractSet[str]] | None = None,
    sizes: Sizes | None = None,
) -> None:
    """Write a data set's Parquet files and their manifest into an empty folder; none for no rows.

    Args:
        pieces: of its rows, in their order, each with the judgments of its rows; of any table there may be none.
        test_ids: ids of those rows of the table `generations` that are the test split, with their judgments; dead
            letters all stand in train.

    Raises:
        OSError: as of any file.
    """
    writers = {name: TableWriter(folder / place, sizes) for name, place in FOLDERS.items()}
    for piece in pieces:
        ids = frozenset[str]() if test_ids is None else test_ids(piece["generations"])
        for name, table in piece.items():
            writers[name].add(table, None if name == "rejected" else among(ids))
    entries = {FOLDERS[name]: writer.close() for name, writer in writers.items()}
    write_manifest(folder, {place: some for place, some in entries.items() if some})
