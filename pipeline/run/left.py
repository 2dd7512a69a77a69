"""What earlier runs have left of a plan: rows to decode, and texts to judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from evaluation.items import own_attribute
from personas import Prompt
from pipeline.job.adapters import own_judges
from pipeline.job.known import assignments
from pipeline.job.model import Job
from pipeline.judging.registry import COLUMNS
from pipeline.plan.cells import PlannedCell
from pipeline.plan.plan import Plan
from pipeline.run.by_range import ByRange, by_range
from pipeline.store.dataset import dead_ids
from pipeline.store.ranges import index_in
from pipeline.store.shards import read_shards, shard_tables

# Cells that a pilot decodes, or texts that it judges, at most.
MOST_CELLS = 256


@dataclass(frozen=True)
class Left:
    """What is left of a plan.

    Attributes:
        cells: to decode.
        there: rows that are written already; ``tokens``: theirs. rejected: dead letters.
        unjudged: judge, as :attr:`pipeline.job.known.Assignment.called` -> how many of those it has not judged.
        rows: some of those, as judges see them.
    """

    cells: Sequence[PlannedCell]
    there: int = 0
    tokens: int = 0
    rejected: int = 0
    unjudged: Mapping[str, int] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()

    @property
    def nothing(self) -> bool:
        return not self.cells and not any(self.unjudged.values())


def left_of(work: Path, plan: Plan, prompts: Sequence[Prompt], size: int) -> Left:
    """What earlier runs have left.

    Args:
        prompts: of the job. size: cells that are decoded together.

    Raises:
        OutputError: rows that a later version wrote. OSError: a folder that can't be read.
    """
    job, grid = plan.job, plan.job.cells(prompts)
    rows = None if job.accept is not None else by_range(work, plan, plan.distinct(grid), size)
    return _by_id(work, plan.cells(grid), job) if rows is None else _by_range(work, rows, job)


def _by_range(work: Path, rows: ByRange, job: Job) -> Left:
    cells, generations = rows.cells_left(), work / "generations"
    there = tokens = 0
    some: list[dict[str, Any]] = []
    files = shard_tables(generations, "generations", COLUMNS)
    for _, tables in groupby(files, key=lambda each: index_in(each[0].name)):  # names bring a range's files together
        mine = {row["row_id"]: row for _, table in tables for row in table.to_pylist()}
        there, tokens = there + len(mine), tokens + sum(row["n_tokens"] for row in mine.values())
        some += islice(mine.values(), MOST_CELLS - len(some))
    judged = Counter[str]()
    files = shard_tables(work / "judgments", "judgments", ["row_id", "judge"])
    for _, tables in groupby(files, key=lambda each: index_in(each[0].name)):
        pairs = {pair for _, table in tables for pair in zip(*(c.to_pylist() for c in table.columns), strict=True)}
        judged.update(Counter(_called(label) for _, label in pairs))
    judges = [each.called for each in assignments(job.judges, job.attribute_names, own_judges(job))]
    unjudged = {name: max(0, there - judged[name]) for name in judges}
    return Left(cells, there, tokens, rows.n - len(cells) - there, unjudged, some)


def _by_id(work: Path, cells: Sequence[PlannedCell], job: Job) -> Left:
    planned, generations = {cell.row_id for cell in cells}, work / "generations"
    columns = (column.to_pylist() for column in read_shards(generations, "generations", ["row_id", "n_tokens"]).columns)
    tokens = {row_id: n for row_id, n in zip(*columns, strict=True) if row_id in planned}
    done, dead = set(tokens), dead_ids(work)
    first = next(shard_tables(generations, "generations", COLUMNS), None)
    some = [] if first is None else first[1].slice(0, MOST_CELLS).to_pylist()
    judgments = read_shards(work / "judgments", "judgments", ["row_id", "judge"])
    names = map(_called, judgments.column("judge").to_pylist())
    judged = set(zip(names, judgments.column("row_id").to_pylist(), strict=True))
    judges = [each.called for each in assignments(job.judges, job.attribute_names, own_judges(job))]
    return Left(
        cells=[cell for cell in cells if cell.row_id not in done and cell.row_id not in dead],
        there=len(done),
        tokens=sum(tokens.values()),
        rejected=len((dead & planned) - done),
        unjudged={name: sum((name, row_id) not in judged for row_id in done) for name in judges},
        rows=[row for row in some if row["row_id"] in planned],
    )


def _called(label: str) -> str:
    """A judge of a data set as a job's assignment calls it, whatever its version."""
    own = own_attribute(label)
    return label.partition("@")[0] if own is None else f"classifier of {own}"
