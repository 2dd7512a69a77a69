"""From shards to a data set's tables: the plan's rows, once each, in its order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from personas.prompts import PromptTable
from pipeline.judging.table import merged
from pipeline.plan.cells import PlannedCell
from pipeline.publish.of_source import Metadata, broken_rows
from pipeline.store.dataset import FOLDERS
from pipeline.store.schema import TABLES
from pipeline.store.shards import read_shards


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


def of_source(pieces: Iterable[dict[str, pa.Table]], prompts: PromptTable) -> Iterator[dict[str, pa.Table]]:
    """Pieces of a data set with what its prompts' source says now: their metadata, and its rows that are no prompts."""
    metadata = Metadata(prompts.prompts)
    for piece in pieces:
        yield piece | {"generations": metadata.beside(piece["generations"])}
    nothing = {name: schema.empty_table() for name, schema in TABLES.items()}
    yield nothing | {"rejected": broken_rows(prompts.broken)}
