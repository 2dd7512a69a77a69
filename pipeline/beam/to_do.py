"""What a run has left to do, as files in its work folder that workers read: the graph does not grow with it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.beam.work import JudgeTask, Places, ToDo
from pipeline.plan.cells import PlannedCell
from pipeline.store.files import make_folder, read_bytes, remove_tree, write_bytes
from pipeline.store.places import expanded
from pipeline.store.schema import list_of

FOLDER = "to-do"  # in the work folder
_GROUP = 4096  # shards, or tasks, that are held at once
_SHARDS = pa.schema([("runs", list_of(list_of(pa.int64()))), ("first_id", pa.string()), ("of_range", pa.string())])
_TASKS = pa.schema([("path", pa.string()), ("row_ids", list_of(pa.string()))])


def forget(work: Path) -> None:
    """Remove what an earlier run had left to do, as far as that goes."""
    remove_tree(work / FOLDER)


def keep_shards(work: Path, shards: Sequence[Sequence[PlannedCell]]) -> ToDo | None:
    """Note which cells are to be decoded together; ``None``: there are none. Raises OSError."""
    return keep_places(work, (places_of(shard) for shard in shards))


def keep_places(work: Path, shards: Iterable[Places]) -> ToDo | None:
    """The same of places. Raises OSError."""
    rows = (({"runs": each.runs, "first_id": each.first_id, "of_range": each.of_range}, each.n) for each in shards)
    return _kept(work, rows, _SHARDS)


def places_of(shard: Sequence[PlannedCell], of_range: str = "") -> Places:
    """Where some cells, which ascend, are found again."""
    return Places(tuple(runs_of(cell.place for cell in shard)), shard[0].row_id, of_range)


def shards_in(path: str) -> Iterator[Places]:
    """What :func:`keep_shards` has noted. Raises OSError."""
    for row in _rows(path):
        yield Places(tuple((first, last) for first, last in row["runs"]), row["first_id"], row["of_range"])


def keep_tasks(work: Path, tasks: Iterable[tuple[JudgeTask, int]]) -> ToDo | None:
    """Note which texts of earlier runs a judge has to look at; ``None``: there are none. Raises OSError.

    Args:
        tasks: each with its number of texts.
    """
    return _kept(work, (({"path": task.path, "row_ids": task.row_ids}, n) for task, n in tasks), _TASKS)


def tasks_in(path: str) -> Iterator[JudgeTask]:
    """What :func:`keep_tasks` has noted. Raises OSError."""
    for row in _rows(path):
        yield JudgeTask(row["path"], None if row["row_ids"] is None else tuple(row["row_ids"]))


def runs_of(places: Iterable[int]) -> list[tuple[int, int]]:
    """Places that ascend, as runs of neighbours: first and last of each."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and place == runs[-1][1] + 1:
            runs[-1] = runs[-1][0], place
        else:
            runs.append((place, place))
    return runs


def _kept(work: Path, rows: Iterator[tuple[Mapping[str, Any], int]], schema: pa.Schema) -> ToDo | None:
    path, sink, n = work / FOLDER / f"{uuid.uuid4().hex}.parquet", pa.BufferOutputStream(), 0
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        while group := list(islice(rows, _GROUP)):
            writer.write_table(pa.Table.from_pylist([row for row, _ in group], schema=schema))
            n += sum(of_row for _, of_row in group)
    if not n:
        return None
    make_folder(path.parent)
    write_bytes(sink.getvalue(), path)
    return ToDo(str(path), n)


def _rows(path: str) -> Iterator[dict[str, Any]]:
    file = pq.ParquetFile(pa.BufferReader(read_bytes(expanded(path))))
    for group in range(file.num_row_groups):
        yield from file.read_row_group(group).to_pylist()
