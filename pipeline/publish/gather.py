"""From shards to a data set's tables: the plan's rows, once each, in its order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from personas.prompts import PromptTable
from pipeline.judging.table import merged
from pipeline.plan.cells import PlannedCell
from pipeline.publish.of_source import Metadata, broken_rows, metadata_of
from pipeline.store.dataset import FOLDERS
from pipeline.store.layout import Entry
from pipeline.store.schema import TABLES
from pipeline.store.shards import read_shards, sound_table


def gather_rows(
    work: Path,
    cells: Sequence[PlannedCell],
    tried: Sequence[PlannedCell] | None = None,
) -> dict[str, pa.Table]:
    """The plan's rows of every table, once each, in the plan's order, whatever shards they stand in.

    A row that was written is no dead letter, even if an earlier try of it was one.

    Args:
        cells: whose rows the data set holds.
        tried: those whose dead letters it holds; ``None``: the same.
    """
    orders = {name: {cell.row_id: i for i, cell in enumerate(cells)} for name in FOLDERS}
    if tried is not None:
        orders["rejected"] = {cell.row_id: i for i, cell in enumerate(tried)}
    return arranged({name: read_shards(work / name, name) for name in FOLDERS}, orders)


def arranged(tables: Mapping[str, pa.Table], orders: Mapping[str, Mapping[str, int]]) -> dict[str, pa.Table]:
    """Tables with some rows, once each and in order: of several of one id the last, of judgments a scored one.

    Args:
        orders: table -> row id -> its place. Dead letters of rows that are written are left out.
    """
    found: dict[str, pa.Table] = {}
    for name in FOLDERS:
        table, order = tables[name], orders[name]
        if name == "judgments":
            table = merged(table)
        ids = table.column("row_id").to_pylist()
        extra = [table.column(key).to_pylist() for key in (("judge", "attribute") if name == "judgments" else ())]
        written = set(found["generations"].column("row_id").to_pylist()) if name == "rejected" else set()
        rows: dict[tuple[Any, ...], int] = {}
        for i, key in enumerate(zip(ids, *extra, strict=True)):
            if key[0] in order and key[0] not in written:
                rows[key] = i
        sequence = sorted(rows, key=lambda key: (order[key[0]], *key[1:]))
        found[name] = table.take(pa.array([rows[key] for key in sequence], type=pa.int64()))
    return found


@dataclass(frozen=True)
class RangeOfRows:
    """The shards of one range of a plan (:mod:`pipeline.store.ranges`).

    Attributes:
        n: cells that are settled in its files, by their names; whole: the same if these are all, else 0.
        files: table -> names of its files. new: of those of rows, which this run has written.
        known: table -> file -> what its folder's manifest says, where it says something.
    """

    index: int
    n: int
    whole: int
    files: Mapping[str, Sequence[str]]
    new: Collection[str] = ()
    known: Mapping[str, Mapping[str, Entry]] = field(default_factory=dict)


@dataclass(frozen=True)
class ReadRange:
    """A range's rows, as its files have them.

    Attributes:
        lost: files that are gone, or were set aside, as they are not as they were written.
        is_damaged: whether there is less than the files' names say.
        n_new, new_tokens: rows in its new files.
    """

    of: RangeOfRows
    tables: dict[str, pa.Table]
    lost: tuple[str, ...]
    is_damaged: bool
    n_new: int
    new_tokens: int

    def arranged(self, places: Callable[[], Mapping[str, int]]) -> dict[str, pa.Table]:
        """Once each, in the plan's order.

        Args:
            places: of the range's cells, by row id: asked for only if its rows are in several files. Those of one are
                in that order.
        """
        if max(len(self.of.files[name]) for name in ("generations", "rejected")) > 1:
            return arranged(self.tables, dict.fromkeys(FOLDERS, places()))
        rows, dead = (_ids_in(self.tables[name]) for name in ("generations", "rejected"))
        written, letters = ({row_id: i for i, row_id in enumerate(ids)} for ids in (rows, dead))
        return arranged(self.tables, {"generations": written, "judgments": written, "rejected": letters})


def read_range(work: Path, of: RangeOfRows, wanted: Collection[str] = tuple(FOLDERS)) -> ReadRange:
    """Read a range.

    Args:
        wanted: tables; the others are empty then.

    Raises:
        OSError, TooNew: as :func:`pipeline.store.shards.sound_table`.
    """
    named = {name: files if name in wanted else () for name, files in of.files.items()}
    read = {
        name: [_there(work / name / file, name, of.known.get(name, {}).get(file)) for file in files]
        for name, files in named.items()
    }
    tables = {
        name: pa.concat_tables([TABLES[name].empty_table(), *(each for each in some if each is not None)])
        for name, some in read.items()
    }
    new = [table for file, table in zip(named["generations"], read["generations"], strict=True) if file in of.new]
    pairs = [pair for name, files in named.items() for pair in zip(files, read[name], strict=True)]
    lost = tuple(file for file, table in pairs if table is None)
    return ReadRange(
        of,
        tables,
        lost,
        bool(lost) or ("rejected" in wanted and len(_settled_in(tables)) < of.whole),
        sum(table.num_rows for table in new if table is not None),
        sum(pc.sum(table.column("n_tokens")).as_py() or 0 for table in new if table is not None),
    )


def _there(path: Path, table: str, entry: Entry | None) -> pa.Table | None:
    try:
        return sound_table(path, table, entry)
    except FileNotFoundError:  # since it was listed
        return None


def _settled_in(tables: Mapping[str, pa.Table]) -> set[str]:
    return {*_ids_in(tables["generations"]), *_ids_in(tables["rejected"])}


def _ids_in(table: pa.Table) -> list[str]:
    return list(table.column("row_id").to_pylist())


def of_source(pieces: Iterable[dict[str, pa.Table]], prompts: PromptTable) -> Iterator[dict[str, pa.Table]]:
    """Pieces of a data set with what its prompts' source says now: their metadata, and its rows that are no prompts."""
    metadata = Metadata(metadata_of(prompts.prompts))
    for piece in pieces:
        yield piece | {"generations": metadata.beside(piece["generations"])}
    yield with_broken(broken_rows(prompts.broken))


def with_broken(rows: pa.Table) -> dict[str, pa.Table]:
    """The last piece of a data set: the rows of its prompts' source that are no prompts."""
    return {name: schema.empty_table() for name, schema in TABLES.items()} | {"rejected": rows}
