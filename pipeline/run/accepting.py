"""Rounds of `accept`: draw, judge and look, until every cell has its rows or no more may be drawn."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from evaluation.items import of_kinds
from pipeline.job.adapters import own_judges
from pipeline.job.fields import Accept
from pipeline.job.known import choosing, counted
from pipeline.job.model import Job
from pipeline.judging.table import merged
from pipeline.plan import accept
from pipeline.plan.plan import Plan
from pipeline.run.candidates import Candidates
from pipeline.run.judges import RunJudges
from pipeline.run.rows import ById
from pipeline.store.dataset import dead_ids, done_ids
from pipeline.store.errors import output_errors
from pipeline.store.shards import read_shards
from pipeline.store.stop import StopFile

logger = logging.getLogger(__name__)

# For `run.json`, and how many candidates wait for a score.
Accepted = tuple[dict[str, Any], int]


def law_of(rule: Accept, job: Job, judges: RunJudges) -> accept.Law:
    """What lets a job's candidates pass."""
    judged = counted(choosing(job), job.attribute_names, own_judges(job))
    labels, remote = (frozenset(of_kinds(each, rule.by)) for each in (judges.labels, judges.remote_labels))
    return accept.Law(rule, frozenset(judged), labels, remote, job.panel)


def wordless(generations: pa.Table) -> set[str]:
    """Row ids of texts that no judge can judge: without a letter or digit."""
    columns = (generations.column(name).to_pylist() for name in ("row_id", "response"))
    return {row_id for row_id, response in zip(*columns, strict=True) if not any(map(str.isalnum, response))}


@dataclass(frozen=True)
class Accepting:
    """What the rounds of a run have in common, however its rows are told.

    Attributes:
        generate: decodes and judges what is not there yet of some rows.
    """

    law: accept.Law
    work: Path
    judges: RunJudges
    stop: StopFile
    generate: Callable[[Candidates | ById], None]

    def by_range(self, rows: Candidates) -> Accepted:
        """By ranges, block by block. The rows have all candidates then, and know which are kept."""
        while True:
            self.generate(rows)
            with output_errors(self.work.parent):
                look = rows.look()
            if rows.is_damaged:  # what was set aside is made again before anything follows from its absence
                continue
            if self.stop.reason() is not None or not look.more.any():
                return rows.report(look), 0
            self._say(rows.n)
            with output_errors(self.work.parent):
                rows.draw(look.more)

    def by_id(self, draws: accept.Draws, rows: ById, plan: Plan) -> Accepted:
        """By the ids of all rows. The rows have all candidates then, and those that are kept."""
        seen, drawn, remote = set[str](), set[str](), self.law.remote
        while True:
            rows.cells = cells = plan.cells(draws.candidates(), draws.places())
            if drawn:
                rows.later.append([cell for cell in cells if cell.row_id not in drawn])
            drawn = {cell.row_id for cell in cells}
            self.generate(rows)
            table, done = merged(read_shards(self.work / "judgments", "judgments")), done_ids(self.work)
            nothing = wordless(read_shards(self.work / "generations", "generations", ["row_id", "response"]))
            groups = accept.by_cell(cells)
            passed, waiting = self.law.seen(groups, table, done, nothing)
            dead = dead_ids(self.work)
            n_dead = {key: sum(cell.row_id in dead for cell in group) for key, group in groups.items()}
            n_waiting = {key: sum(cell.row_id in waiting for cell in group) for key, group in groups.items()}
            asked = {cell.row_id for cell in cells if cell.weights and cell.row_id in done} - seen
            seen |= asked
            if asked and asked <= waiting and self.stop.reason() is None:
                self.stop.request(*self.judges.why_unasked(accept.why_waiting(table, waiting, remote)))
            if self.stop.reason() is not None or not draws.draw_more(passed, n_dead, n_waiting):
                rows.kept = [cell for group in passed.values() for cell in group]
                counts = ((key, len(passed.get(key, ())), n) for key, n in draws.drawn.items())
                return accept.report(draws.rule, counts, len(waiting)), len(waiting)
            self._say(len(cells))

    def _say(self, n: int) -> None:
        logger.info("%d candidates so far; more are drawn where too few have passed", n)
