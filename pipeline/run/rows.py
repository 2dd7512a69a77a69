"""What is written of a plan and what is left of it: for any work folder, by the ids of all rows.

Everything that was ever written counts, whatever plan it was written for; what a run does then holds all cells of its
plan. Where the work folder holds nothing but files of this very plan, :mod:`pipeline.run.by_range` tells the same from
their names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from pipeline.beam.to_do import forget, keep_shards
from pipeline.beam.work import JudgeWork, ToDo
from pipeline.judging.registry import COLUMNS, item_of
from pipeline.plan.cells import PlannedCell
from pipeline.plan.ranges import shards_of
from pipeline.publish.gather import gather_rows
from pipeline.run.asking import HeldTexts, Texts
from pipeline.run.judges import RunJudges
from pipeline.run.labels import relabel
from pipeline.store.dataset import dead_ids, done_ids, ids_without, set_aside_judgments
from pipeline.store.shards import read_shards

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeftToDo:
    """What is not there yet.

    Attributes:
        shards: to decode; ``None``: there are none.
        n_dead: rows that are dead letters and not tried again.
        regrouped: whether some of the shards are not the plan's, but put together anew.
    """

    shards: ToDo | None
    judges: Sequence[JudgeWork]
    n_dead: int
    regrouped: bool


@dataclass(frozen=True)
class Written:
    """What a run has added.

    Attributes:
        kept: rows of the plan that were there before; generated: since, with so many tokens.
    """

    kept: int
    generated: int
    n_tokens: int


class Rows(Protocol):
    """Rows of a plan."""

    @property
    def n(self) -> int:
        """How many are planned."""
        ...

    @property
    def n_control(self) -> int:
        """How many of those have control tokens in their texts."""
        ...

    def left(self) -> LeftToDo:
        """What is left to do, noted in the work folder. Raises OSError, TooNew."""
        ...

    def to_ask(self, label: str, attributes: tuple[str, ...]) -> Texts:
        """What a judge behind an endpoint may not have scored. Raises OSError, TooNew."""
        ...

    def pieces(self) -> Iterator[dict[str, pa.Table]]:
        """The rows that are there, in the plan's order, with judgments and dead letters. Raises OSError, TooNew."""
        ...

    @property
    def is_damaged(self) -> bool:
        """Whether files were set aside while :meth:`pieces` were read: what was in them is left to do again."""
        ...

    def written(self) -> Written:
        """What this run has added; after :meth:`pieces`."""
        ...


class ById:
    """By the ids of all rows: see the module.

    Args:
        size: cells that are decoded together.
        asks_for_tokens: whether the job wants its texts' tokens, which rows of before may lack.
    """

    is_damaged = False  # shards are looked at whenever it is asked what is left

    def __init__(self, work: Path, judges: RunJudges, size: int, *, asks_for_tokens: bool) -> None:
        self._work, self._judges, self._size, self._asks_for_tokens = work, judges, size, asks_for_tokens
        self.cells: Sequence[PlannedCell] = ()  # of the plan; with `accept` they become more
        self.later: list[list[PlannedCell]] = []  # those of them that each later round of `accept` has drawn
        self.kept: Sequence[PlannedCell] | None = None  # whose rows the data set has; None: all
        self._before: set[str] | None = None
        self._labelled: set[str] = set()  # rows whose labels are the job's

    @property
    def n(self) -> int:
        return len(self.cells)

    @property
    def n_control(self) -> int:
        return sum(cell.control is not None for cell in self.cells)

    def left(self) -> LeftToDo:
        cells, planned = self.cells, {cell.row_id for cell in self.cells}
        relabel(self._work, [cell for cell in cells if cell.row_id not in self._labelled])
        self._labelled |= planned
        done, dead = done_ids(self._work), dead_ids(self._work)
        if self._before is None:
            self._before = done
            if done & planned:
                logger.info("%d of %d rows are there already and are kept", len(done & planned), len(planned))
                self._say_what_they_lack(planned)
        to_do = planned - done - dead
        set_aside_judgments(self._work, to_do)
        whole, regrouped = self._shards(to_do, dead)
        forget(self._work)
        again = {cell.row_id for shard in (*whole, *regrouped) for cell in shard}
        return LeftToDo(
            keep_shards(self._work, whole + regrouped),
            self._judges.of_workers(planned),
            len((dead & planned) - again),
            bool(regrouped),
        )

    def _shards(self, to_do: set[str], dead: set[str]) -> tuple[list[list[PlannedCell]], list[list[PlannedCell]]]:
        """See :func:`pipeline.plan.ranges.shards_of`; a later round's cells are put together by its draws alone."""
        drawn = {cell.row_id for cells in self.later for cell in cells}
        first = [cell for cell in self.cells if cell.row_id not in drawn] if drawn else self.cells
        whole, regrouped = shards_of(first, to_do, self._size, dead)
        for cells in self.later:
            for some in shards_of(cells, to_do, self._size, dead):
                regrouped += some
        return whole, regrouped

    def to_ask(self, label: str, attributes: tuple[str, ...]) -> HeldTexts:
        order = {cell.row_id: i for i, cell in enumerate(self.cells)}
        rows = read_shards(self._work / "generations", "generations", COLUMNS).to_pylist()
        items = (item_of(row) for row in rows if row["row_id"] in order)
        return HeldTexts(sorted(items, key=lambda item: order[item.key]), self._work / "judgments")

    def pieces(self) -> Iterator[dict[str, pa.Table]]:
        yield gather_rows(self._work, self.cells if self.kept is None else self.kept, self.cells)

    def written(self) -> Written:
        rows = read_shards(self._work / "generations", "generations", ["row_id", "n_tokens"]).to_pylist()
        planned, before = {cell.row_id for cell in self.cells}, self._before or set()
        new = {row["row_id"]: row["n_tokens"] for row in rows if row["row_id"] in planned - before}
        return Written(len(planned & before), len(new), sum(new.values()))

    def _say_what_they_lack(self, planned: set[str]) -> None:
        """A word on rows that were written before the job asked for their tokens."""
        if self._asks_for_tokens:
            lacking = len(ids_without(self._work, "token_log_ratios") & planned)
            if lacking:
                logger.warning(
                    "decoder.token_log_ratios: %d of these rows were written without and have none; for all, write the "
                    "data set anew into another folder (--output): float32 texts come out the same",
                    lacking,
                )
