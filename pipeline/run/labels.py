"""Rows that are there already, labelled as the job says now.

A row's id follows from all that its text depends on, and from nothing else. The rest (a persona's name, a prompt's id,
a profile that no model reads, the order of the attributes) is what the job says today, whoever wrote the row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from personas.text import storable
from pipeline.plan.cells import PlannedCell
from pipeline.store.dataset import set_aside_judgments
from pipeline.store.files import remove
from pipeline.store.shards import shard_name, shard_tables, write_rows

_LABELS = ("prompt_id", "persona", "profile", "personality")
# What a judge may read of them.
_JUDGED = ("profile", "personality")
_TABLES = ("generations", "rejected")
# Columns in the order of `attributes`.
_PARALLEL = ("attributes", "weights", "strengths", "log_ratios", "adapters", "token_log_ratios")


def relabel(work: Path, cells: Iterable[PlannedCell]) -> int:
    """Write shards anew whose rows bear other labels than the plan's; returns how many rows did.

    Judgments of rows whose judges read something else now are set aside first. Killed in between, the next run finds
    the same to do. Raises OSError.
    """
    planned = {cell.row_id: cell for cell in cells}
    found = {path: ids for name in _TABLES for path, ids in _other(work, name, planned)}
    set_aside_judgments(work, {row_id for ids in found.values() for row_id, judged in ids.items() if judged})
    for name in _TABLES if found else ():
        for path, table in shard_tables(work / name, name):
            if path in found:
                # Rows of the prompts' source that were no cells are made anew at each gathering.
                cells_of = [row for row in table.to_pylist() if row["row_id"] is not None]
                rows = [_labelled(row, planned.get(row["row_id"])) for row in cells_of]
                # Of another name: the shard's own would for a moment be of a content that its manifest does not know.
                write_rows(rows, name, path.with_name(shard_name((row["row_id"] for row in rows), *_words(rows))))
                remove(path)
    return sum(map(len, found.values()))


def _other(work: Path, name: str, planned: Mapping[str, PlannedCell]) -> Iterable[tuple[Path, dict[str, bool]]]:
    """Shards with rows of other labels: row id -> whether judges may read what differs."""
    for path, table in shard_tables(work / name, name, ["row_id", "attributes", *_LABELS]):
        ids = {}
        for row in table.to_pylist():
            cell = planned.get(row["row_id"])
            if cell is not None:
                now = storable(cell.columns())
                other = [label for label in ("attributes", *_LABELS) if row[label] != now[label]]
                if other:
                    ids[row["row_id"]] = any(label in _JUDGED for label in other)
        if ids:
            yield path, ids


def _labelled(row: dict[str, Any], cell: PlannedCell | None) -> dict[str, Any]:
    if cell is None:
        return row
    now = storable(cell.columns())
    order = [row["attributes"].index(name) for name in now["attributes"]]
    moved: dict[str, Any] = {name: [row[name][i] for i in order] for name in _PARALLEL if row.get(name) is not None}
    if "config_hash" in row:
        moved["config_hash"] = cell.config_hash  # it follows the order of the attributes
    return row | {label: now[label] for label in _LABELS} | moved


def _words(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return [repr([row[label] for label in ("attributes", *_LABELS)]) for row in rows]
