"""From shards to a data set's tables: the plan's rows, once each, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from personas.prompts import PromptTable
from pipeline.judging.table import merged
from pipeline.plan.cells import PlannedCell
from pipeline.publish.of_source import with_broken_rows, with_metadata
from pipeline.store.dataset import FOLDERS
from pipeline.store.shards import read_shards


def gather_rows(
    work: Path,
    cells: Sequence[PlannedCell],
    tried: Sequence[PlannedCell] | None = None,
    prompts: PromptTable | None = None,
) -> dict[str, pa.Table]:
    """The plan's rows of every table, once each, in the plan's order, whatever shards they stand in.

    A row that was written is no dead letter, even if an earlier try of it was one.

    Args:
        cells: whose rows the data set holds.
        tried: those whose dead letters it holds; ``None``: the same.
        prompts: of the job, as its source says them now: their metadata become columns, their source's broken rows
            dead letters.
    """
    orders = {name: {cell.row_id: i for i, cell in enumerate(cells)} for name in FOLDERS}
    if tried is not None:
        orders["rejected"] = {cell.row_id: i for i, cell in enumerate(tried)}
    tables: dict[str, pa.Table] = {}
    for name in FOLDERS:
        table, order = read_shards(work / name, name), orders[name]
        if name == "judgments":
            table = merged(table)
        ids = table.column("row_id").to_pylist()
        extra = [table.column(key).to_pylist() for key in (("judge", "attribute") if name == "judgments" else ())]
        written = set(tables["generations"].column("row_id").to_pylist()) if name == "rejected" else set()
        rows: dict[tuple[Any, ...], int] = {}
        for i, key in enumerate(zip(ids, *extra, strict=True)):
            if key[0] in order and key[0] not in written:
                rows[key] = i
        sequence = sorted(rows, key=lambda key: (order[key[0]], *key[1:]))
        tables[name] = table.take(pa.array([rows[key] for key in sequence], type=pa.int64()))
    if cells and pc.count_distinct(tables["generations"].column("row_id")).as_py() != tables["generations"].num_rows:
        raise AssertionError("a row id stands twice in the data set")
    if prompts is not None:
        tables["generations"] = with_metadata(tables["generations"], prompts.prompts)
        tables["rejected"] = with_broken_rows(tables["rejected"], prompts.broken)
    return tables
