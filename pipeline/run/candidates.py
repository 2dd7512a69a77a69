"""Candidates of `accept` by the ranges of their rounds, looked at block by block.

A *block* is a fixed run of cells, by the plan alone. Of these the ranges of all rounds that hold candidates of theirs
are read, the law of :mod:`pipeline.plan.accept` says which pass and how many more are drawn, and the block is let go
for the next one: scores and texts of one block at a time are held, and of all cells a few numbers.

What is drawn is noted (:mod:`pipeline.plan.rounds`) before it is decoded. Where that note is lost, or was written under
another rule or by other judges, the same draws are made again from what is there, and held against the names of what
was decoded of them. Where they are others, or where two prompts say the same (whose candidates are one another's), the
way by the ids of all rows (:class:`pipeline.run.rows.ById`) tells. It does, too, where judges are behind endpoints: a
candidate that waits for one's answer is none here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from personas import Grid
from pipeline.beam.work import Places
from pipeline.judging.table import merged
from pipeline.plan.accept import Law, n_more, report, widest
from pipeline.plan.plan import Plan
from pipeline.plan.rounds import Rounds
from pipeline.plan.stored import PlannedCells
from pipeline.publish.gather import arranged
from pipeline.run.by_range import ByRange, Files, plan_name, plans_in
from pipeline.run.judges import RunJudges
from pipeline.store.dataset import FOLDERS, TRANSIENT
from pipeline.store.schema import TABLES

Counts = NDArray[np.int32]  # [cells]


@dataclass(frozen=True)
class Seen:
    """A candidate, as its row and its place tell of it."""

    row_id: str
    weights: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Look:
    """What all candidates drawn so far come to.

    Attributes:
        passed: rows that each cell has: [cells]. more: candidates that are drawn next: [cells].
    """

    passed: Counts
    more: Counts


@dataclass(frozen=True)
class _Block:
    """What there is of some neighbours among the cells.

    Attributes:
        tables: of their candidates alone. places: row id -> place, of rows and dead letters.
        passed: cell -> those that pass.
    """

    tables: dict[str, pa.Table]
    places: dict[str, int]
    passed: dict[int, list[Seen]]


# A range's tables, each with the places of its rows: [rows].
_Located = dict[str, tuple[pa.Table, NDArray[np.int64]]]


def candidates(work: Path, plan: Plan, grid: Grid, size: int, judges: RunJudges, law: Law) -> Candidates | None:
    """The candidates of a plan in a work folder; ``None``: they can't be told by their ranges, see the module.

    Args:
        grid: of the job, a candidate a cell. size: cells of a range.

    Raises:
        OSError: nobody can tell.
    """
    if len(plan.distinct(grid)) != len(grid):
        return None
    all_of_them = widest(grid, law.rule)
    cells = PlannedCells(plan.rule, all_of_them, plan.tokenizer)
    name = plan_name(plan.rule, all_of_them, cells, size)
    rounds = Rounds(name, law.identity(), len(grid), law.rule, size)
    rounds.take_up(work)
    found = Candidates(work, judges, rounds, cells, all_of_them, law, max(1, size // law.rule.rows_per_cell))
    unknown = plans_in(work) - set(rounds.names)
    while unknown:
        if None in unknown or any(True for _ in found.to_do()):
            return None
        look = found.look()
        if found.is_damaged or not look.more.any() or rounds.draw(look.more) not in unknown:
            return None
        unknown.discard(rounds.names[-1])
        rounds.keep(work)
    return found


class Candidates(ByRange):
    """See the module.

    Args:
        cells: of ``grid``, that of all that may be drawn. block: cells that are looked at together.
    """

    def __init__(
        self, work: Path, judges: RunJudges, rounds: Rounds, cells: PlannedCells, grid: Grid, law: Law, block: int
    ) -> None:
        super().__init__(work, judges, rounds, cells)
        self._rounds, self._law, self._block, self.grid = rounds, law, block, grid
        # By persona, of any prompt's.
        most = law.rule.max_candidates
        self._weights = [each.weights for each in cells.at(range(0, most * len(grid.personas), most))]

    @property
    def n_control(self) -> int:
        return self._cells.n_control_of(self._rounds.drawn)

    def draw(self, more: Counts) -> None:
        """Have more candidates; that is noted here, before any of them is decoded. Raises OSError."""
        self._rounds.draw(more)
        self._rounds.keep(self._work)

    def to_do(self, files: Files | None = None) -> Iterator[Places]:
        for places in super().to_do(files):
            # Which of them are decoded together is no matter of the plan alone.
            self._is_partly |= not places.of_range.startswith(self._rounds.names[0])
            yield places

    def look(self) -> Look:
        """What has passed so far, and how many are drawn next; with :attr:`is_damaged`, of less than was there.

        Raises:
            OSError, TooNew
        """
        n, most = self._rounds.n_cells, self._law.rule.max_candidates
        found = Look(np.zeros(n, np.int32), np.zeros(n, np.int32))
        for first, block in self._blocks():
            dead = _dead_in(block.tables["rejected"])
            n_dead = Counter(block.places[row_id] // most for row_id in dead)
            for cell in range(first, min(first + self._block, n)):
                n_passed, drawn = len(block.passed.get(cell, ())), int(self._rounds.drawn[cell])
                found.passed[cell] = n_passed
                found.more[cell] = n_more(self._law.rule, drawn, n_passed, 0, n_dead[cell])
        return found

    def pieces(self) -> Iterator[dict[str, pa.Table]]:
        for _, block in self._blocks():
            kept = {cell.row_id: block.places[cell.row_id] for cells in block.passed.values() for cell in cells}
            yield arranged(block.tables, {"generations": kept, "judgments": kept, "rejected": block.places})

    def report(self, look: Look) -> dict[str, Any]:
        """See :func:`pipeline.plan.accept.report`."""
        keys = product((each.prompt_id for each in self.grid.prompts), (each.name for each in self.grid.personas))
        counts = zip(keys, look.passed.tolist(), self._rounds.drawn.tolist(), strict=True)
        return report(self._law.rule, counts)

    def _blocks(self) -> Iterator[tuple[int, _Block]]:
        """Block by block: its first cell, and what there is of it; each range is read once."""
        files, n = self._looked_at(), self._rounds.n_cells
        held: dict[int, _Located] = {}
        last: dict[int, int] = {}  # round -> the range that a later block may go on with
        for first in range(0, n, self._block):
            wanted = list(self._rounds.of_cells(first, end := min(first + self._block, n)))
            last |= {self._rounds.round_of(index): index for index in wanted}
            kept = {*wanted, *last.values()}
            held = {index: held[index] if index in held else self._located(files, index) for index in kept}
            yield first, self._seen(first, end, [held[index] for index in wanted])

    def _located(self, files: Files, index: int) -> _Located:
        tables, places = self._of_range(files, index).tables, self._rounds.places(index)
        ids = tables["generations"].column("row_id").to_pylist()
        known: dict[str, int] = {}
        if len(files["generations"].get(index, [])) == 1 and len(ids) == len(places):  # in the plan's order
            known = dict(zip(ids, places, strict=True))
        elif ids or tables["rejected"].num_rows:
            known = {cell.row_id: cell.place for cell in self._cells.at(places)}
        found: _Located = {}
        for name, table in tables.items():
            of_rows = (known.get(row_id, -1) for row_id in table.column("row_id").to_pylist())
            found[name] = table, np.fromiter(of_rows, np.int64, table.num_rows)
        return found

    def _seen(self, first: int, end: int, held: Sequence[_Located]) -> _Block:
        """What the law says of some cells, of the ranges that hold their candidates."""
        most, n_personas = self._law.rule.max_candidates, len(self._weights)
        parts: dict[str, list[pa.Table]] = {name: [TABLES[name].empty_table()] for name in FOLDERS}
        places, rows = dict[str, int](), dict[str, int]()
        for located in held:
            for name, (table, of_rows) in located.items():
                mine = (first * most <= of_rows) & (of_rows < end * most)
                part = table.filter(pa.array(mine))
                parts[name].append(part)
                if name != "judgments":
                    known = dict(zip(part.column("row_id").to_pylist(), of_rows[mine].tolist(), strict=True))
                    places |= known
                    if name == "generations":
                        rows |= known
        tables = {name: pa.concat_tables(some) for name, some in parts.items()}
        groups: dict[int, list[Seen]] = {}
        for row_id, place in sorted(rows.items(), key=lambda each: each[1]):
            cell = place // most
            groups.setdefault(cell, []).append(Seen(row_id, self._weights[cell % n_personas]))
        passed, _ = self._law.seen(groups, merged(tables["judgments"]), rows.keys())
        return _Block(tables, places, passed)


def _dead_in(rejected: pa.Table) -> set[str]:
    """Row ids of dead letters that are not to be tried again."""
    return {
        row["row_id"] for row in rejected.select(["row_id", "reason"]).to_pylist() if row["reason"] not in TRANSIENT
    }
