"""A run from job to data set: plan, resume, Beam, judges, data set, card."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.beam import execute
from pipeline.beam.options import beam_options, n_workers
from pipeline.beam.supervise import GraphFailed, WorkerDied
from pipeline.beam.work import Work
from pipeline.decode.bank import LoadBank
from pipeline.exit_status import ExitStatus
from pipeline.job.adapters import own_judges
from pipeline.job.known import counted
from pipeline.job.model import Job
from pipeline.judging.registry import JudgeError
from pipeline.judging.table import merged
from pipeline.plan import accept, computed_with
from pipeline.plan.cells import PlannedCell
from pipeline.plan.errors import RunError
from pipeline.plan.plan import Plan
from pipeline.plan.ranges import shards_of
from pipeline.publish.card import write_card
from pipeline.publish.gather import gather_rows
from pipeline.publish.summary import Summary, summarise
from pipeline.run.judges import RunJudges
from pipeline.run.limits import Limits
from pipeline.run.record import Course, record
from pipeline.store.dataset import (
    JOB_FILE,
    RUN_FILE,
    dead_ids,
    done_ids,
    keep_job_folder,
    n_shards,
    prepare,
    set_aside_judgments,
    write_tables,
)
from pipeline.store.errors import OutputError, output_errors, readable, what_happened
from pipeline.store.lock import FolderInUse, FolderLock
from pipeline.store.shards import read_shards, write_bytes
from pipeline.store.stop import INTERRUPTED, StopFile, Watch, graceful_signals

logger = logging.getLogger(__name__)

# Worker processes that may be killed one after the other without a shard finished between, before a run gives up.
MOST_DEATHS = 3


class RunStopped(RunError):
    """A run that ended early because it was asked to; what it had finished is kept."""


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    folder: Path
    summary: Summary
    run: dict[str, Any]


def run_job(
    job: Job, beam_arguments: Sequence[str] = (), *, interruptible: bool = False, load: LoadBank | None = None
) -> Result:
    """Run a job to its data set. A run that was stopped goes on where it was: finished rows are kept.

    Args:
        beam_arguments: Beam's own options.
        interruptible: Ctrl-C and SIGTERM finish the rows in flight first; from the main thread only.
        load: of the model bank, see :class:`pipeline.decode.bank.ProcessBank`.

    Raises:
        RunError: the output folder holds something else, is in use or can't be written; too many rows were rejected;
            worker processes were killed again and again.
        RunStopped: Ctrl-C, a deadline or a budget ended it.
    """
    output = Path(job.output).absolute()
    try:
        work = prepare(output)
    except OutputError as error:
        raise RunError(readable(error), ExitStatus.BAD_INPUT) from error
    try:
        stop = StopFile.of(work)
        with FolderLock(work):
            stop.clear()
            with graceful_signals(stop) if interruptible else nullcontext():
                return _Run(job, output, work, stop, tuple(beam_arguments), load).result()
    except GraphFailed as error:
        logger.error("%s", error)
        raise RunError(str(error).splitlines()[0], ExitStatus.FAILED) from error
    except JudgeError as error:
        raise RunError(readable(error), ExitStatus.BAD_INPUT) from error
    except (OutputError, FolderInUse) as error:
        raise RunError(readable(error)) from error
    except OSError as error:  # the disk, at any other moment
        raise RunError(f"output: {what_happened(error, output)}") from error


class _Run:
    """One run of a job."""

    def __init__(
        self,
        job: Job,
        output: Path,
        work: Path,
        stop: StopFile,
        beam_arguments: tuple[str, ...],
        load: LoadBank | None,
    ) -> None:
        self.job, self.output, self.work, self.stop = job, output, work, stop
        self.beam_arguments, self.load = beam_arguments, load
        self.started, workers = time.time(), n_workers(beam_options(beam_arguments))
        self.computed_with = computed_with.settled(output, job, workers)
        self.plan = Plan.of(job, self.computed_with.dtype)
        self.judges = RunJudges(job, work)
        self.limits = Limits(job, self.started, workers, self.judges.spent)
        self.done_before: set[str] | None = None
        self.decode_s = 0.0

    def result(self) -> Result:
        with output_errors(self.output):
            write_bytes((self.job.model_dump_json(indent=2) + "\n").encode(), self.output / JOB_FILE)
            keep_job_folder(self.work, self.job.folder)
            computed_with.keep(self.output, self.computed_with)
            (self.output / RUN_FILE).unlink(missing_ok=True)
        grid = self.job.cells(self.job.load_prompts())
        if self.job.accept is None:
            cells = kept = self.plan.cells(grid)
            self.generate(cells)
            accepted = None
        else:
            cells, kept, accepted = self.until_enough(accept.Draws(self.job.accept, grid))
        return self.finish(cells, kept, accepted)

    # ------------------------------------------------------------------ rows

    def generate(self, cells: Sequence[PlannedCell]) -> None:
        """Decode and judge what is not there yet; a worker that is killed costs its shard's time and no more."""
        deaths = n_files = 0
        while True:
            work, n_dead = self.left_of(cells)
            if deaths and n_shards(self.work) > n_files:
                deaths = 0
            n_files = n_shards(self.work)
            shutil.rmtree(self.work / "progress", ignore_errors=True)  # or old ticks would count as new ones
            began = time.time()
            rejections = self.limits.rejections(self.work, len(cells), n_dead)
            try:
                with Watch(self.stop, [rejections, *self.limits.conditions()]):
                    books = execute.run(work, self.beam_arguments)
            except WorkerDied as error:
                deaths += 1
                self.decode_s += time.time() - began
                if deaths >= MOST_DEATHS:
                    raise RunError(
                        f"{error}; {deaths} one after the other without a shard finished between: lower batch_size or "
                        "the number of workers; what was written is kept, the same command goes on"
                    ) from error
                logger.warning("%s; its shard is made again", error)
                continue
            break
        self.decode_s += books.decode_s
        with Watch(self.stop, self.limits.conditions()):
            self.judges.ask_endpoints(self.stop, cells, self.limits.cost)

    def left_of(self, cells: Sequence[PlannedCell]) -> tuple[Work, int]:
        """What is not there yet, and how many rows are dead letters and not tried again."""
        planned = {cell.row_id for cell in cells}
        done, dead = done_ids(self.work), dead_ids(self.work)
        if self.done_before is None:
            self.done_before = done
            if done & planned:
                logger.info("%d of %d rows are there already and are kept", len(done & planned), len(planned))
        to_do = planned - done - dead
        set_aside_judgments(self.work, to_do)
        whole, regrouped = shards_of(cells, to_do, self.computed_with.rows_per_shard, dead)
        if regrouped and not self.computed_with.regrouped:
            self.computed_with = replace(self.computed_with, regrouped=True)
            computed_with.keep(self.output, self.computed_with)
        work = Work(
            shards=whole + regrouped,
            judges=self.judges.of_workers(planned),
            sources=self.plan.sources,
            folder=self.work,
            computed_with=self.computed_with,
            load=self.load,
        )
        return work, len((dead & planned) - {cell.row_id for shard in work.shards for cell in shard})

    def until_enough(self, draws: accept.Draws) -> tuple[list[PlannedCell], list[PlannedCell], dict[str, Any]]:
        """Draw candidates until every cell has its rows or no more may be drawn: all, those kept, and the report."""
        judged = counted(self.job.judges, self.job.attribute_names, own_judges(self.job))
        while True:
            cells = self.plan.cells(draws.candidates())
            self.generate(cells)
            table = self.judges.heard(merged(read_shards(self.work / "judgments", "judgments")))
            scores = accept.adherence(cells, table, judged, self.judges.labels, self.job.panel)
            groups = accept.by_cell(cells)
            passed = accept.passing(groups, scores, done_ids(self.work), draws.rule)
            dead = dead_ids(self.work)
            n_dead = {key: sum(cell.row_id in dead for cell in group) for key, group in groups.items()}
            if self.stop.reason() is not None or not draws.draw_more(passed, n_dead):
                kept = [cell for group in passed.values() for cell in group]
                return cells, kept, accept.report(draws, passed)
            logger.info("%d candidates so far; more are drawn where too few have passed", len(cells))

    # ------------------------------------------------------------------ data set

    def finish(
        self, cells: Sequence[PlannedCell], kept: Sequence[PlannedCell], accepted: dict[str, Any] | None
    ) -> Result:
        """Write the data set; its record last, if it is complete.

        Raises:
            RunError, RunStopped: it is not.
        """
        with output_errors(self.output):
            tables = gather_rows(self.work, kept, cells)
            write_tables(self.output, tables)
        job, n_rows, n_rejected = self.job, tables["generations"].num_rows, tables["rejected"].num_rows
        if n_rejected > job.max_rejected_fraction * len(cells):
            raise RunError(
                f"{n_rejected} of {len(cells)} rows were rejected, more than max_rejected_fraction "
                f"{job.max_rejected_fraction:g} allows; reasons: {self.output / 'rejected'}; finished rows are kept"
            )
        reason = self.stop.reason()
        if reason is not None:
            raise RunStopped(
                f"stopped ({reason}): {n_rows} rows are in {self.output}, of {len(kept)} planned; "
                "the same command goes on with the others",
                ExitStatus.INTERRUPTED if reason == INTERRUPTED else ExitStatus.TRY_AGAIN,
            )
        if accepted is None and n_rows + n_rejected < len(cells):
            missing = len(cells) - n_rows - n_rejected
            raise RunError(
                f"{missing} of {len(cells)} rows are missing: shards have vanished; the same command goes on"
            )
        summary = summarise(
            tables["generations"],
            self.judges.heard(tables["judgments"]),
            job.attribute_names,
            panel_rule=job.panel,
            judges=self.judges.labels,
        )
        course = Course(self.started, self.decode_s, self.limits.cost(), self.done_before or set(), accepted)
        run = record(
            job,
            self.plan.sources,
            self.computed_with,
            self.judges,
            course,
            work=self.work,
            cells=cells,
            tables=tables,
        )
        with output_errors(self.output):
            write_card(self.output, job, tables, summary, run)
            # Last of all: its presence says that everything else is there.
            write_bytes((json.dumps(run, indent=2) + "\n").encode(), self.output / RUN_FILE)
        return Result(self.output, summary, run)
