"""A run from job to data set: plan, resume, Beam, judges, data set, card."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from personas import Grid
from pipeline.beam import execute
from pipeline.beam.options import are_elsewhere, beam_options, n_devices, n_workers
from pipeline.beam.supervise import MOST_DEATHS, GraphFailed, WorkerDied
from pipeline.beam.work import PROGRESS, Work
from pipeline.decode.loading import LoadBank
from pipeline.exit_status import ExitStatus
from pipeline.job.fields import Accept
from pipeline.job.model import Job
from pipeline.judging.registry import JudgeError
from pipeline.plan import computed_with, read_with
from pipeline.plan.accept import Draws, widest
from pipeline.plan.computed_with import ComputedWith
from pipeline.plan.defaults import default_problem
from pipeline.plan.errors import RunError
from pipeline.plan.merged import texts_of
from pipeline.plan.plan import Plan
from pipeline.plan.split import split_problems
from pipeline.plan.stored import store_plan
from pipeline.publish.data_set import write_data_set, write_partial
from pipeline.publish.licence_sources import collect
from pipeline.publish.summary import Summary
from pipeline.run.accepting import Accepting, law_of
from pipeline.run.by_range import ByRange, by_range
from pipeline.run.candidates import candidates
from pipeline.run.coming import BLOCK_ROWS, LEAST_WORKERS, Coming, put_together, put_together_by_workers
from pipeline.run.ending import Counts, Ending, ending_of, has_its_scores, so_far
from pipeline.run.judges import RunJudges
from pipeline.run.limits import Limits
from pipeline.run.record import Course, record
from pipeline.run.rows import ById, Rows, Written
from pipeline.run.takeover import take_over
from pipeline.store.dataset import n_shards, prepare
from pipeline.store.errors import OutputError, TooNew, output_errors, readable, what_happened
from pipeline.store.exchange import finish_exchange
from pipeline.store.interval import interval_problem, note_interval
from pipeline.store.lock import FolderInUse, FolderLock
from pipeline.store.places import is_local
from pipeline.store.spending import Spending
from pipeline.store.state import note_planned
from pipeline.store.stop import StopFile, Watch, graceful_signals

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a run left behind.

    Attributes:
        ending: what is to be said beside it, and what the command ends with.
    """

    folder: Path
    summary: Summary
    run: dict[str, Any]
    ending: Ending = field(default_factory=Ending)


def run_job(
    job: Job,
    beam_arguments: Sequence[str] = (),
    *,
    interruptible: bool = False,
    load: LoadBank | None = None,
    of: type[Run] | None = None,
) -> Result:
    """Run a job to its data set. A run that was stopped goes on where it was: finished rows are kept.

    Args:
        beam_arguments: Beam's own options.
        interruptible: Ctrl-C and SIGTERM finish the rows in flight first; from the main thread only.
        load: of the model bank, see :class:`pipeline.decode.bank.ProcessBank`.
        of: which of its stages, see :mod:`pipeline.run.stages`; ``None``: all.

    Raises:
        RunError: the output folder holds something else, is in use or can't be written; too many rows were rejected;
            worker processes were killed again and again; Ctrl-C, a deadline or a budget ended it.
    """
    with opened(job) as place:
        take_over(place.output, place.work)
        place.stop.clear()
        with graceful_signals(place.stop) if interruptible else nullcontext():
            return (of or Run)(job, place, tuple(beam_arguments), load).result()


@dataclass(frozen=True)
class Place:
    """The output of a run that has it for itself.

    Attributes:
        work: its work folder. n_texts: rows that are planned.
    """

    output: Path
    work: Path
    stop: StopFile
    n_texts: int


@contextmanager
def opened(job: Job) -> Iterator[Place]:
    """Have a job's output for oneself.

    Raises:
        RunError: on entry as :func:`run_job`; and in place of what its caller raises of the output.
    """
    output, texts = job.output_folder, texts_of(job, job.load_prompts())
    for problem in (*texts.problems, *split_problems(job, job.load_prompts())):
        raise RunError(f"{problem.field}: {problem.text}", ExitStatus.BAD_INPUT)
    if texts.note is not None:
        logger.info("%s", texts.note)
    try:
        work = prepare(output)
    except OutputError as error:
        raise RunError(readable(error), ExitStatus.BAD_INPUT) from error
    try:
        with FolderLock(work):
            with output_errors(output):
                finish_exchange(output)  # before anything there is read
            yield Place(output, work, StopFile.of(work), texts.n)
    except (JudgeError, TooNew) as error:
        raise RunError(readable(error), ExitStatus.BAD_INPUT) from error
    except (OutputError, FolderInUse) as error:
        raise RunError(readable(error)) from error
    except OSError as error:  # the disk, at any other moment
        raise RunError(f"output: {what_happened(error, output)}") from error


class Run:
    """One run of a job."""

    again = "the same command"  # that goes on where this one has stopped
    decodes = True  # with devices that this process, or its children, have

    def __init__(self, job: Job, place: Place, beam_arguments: tuple[str, ...], load: LoadBank | None = None) -> None:
        self.job, self.output, self.work, self.stop = job, place.output, place.work, place.stop
        self.n_texts, self.beam_arguments, self.load, work = place.n_texts, beam_arguments, load, place.work
        self.progress = work / PROGRESS if is_local(work) else Path(tempfile.mkdtemp(prefix="mpg-progress-"))
        self.started, options = time.time(), beam_options(beam_arguments)
        workers, devices = n_workers(options), n_devices(options)  # on this machine; wherever they are
        self.several = workers >= LEAST_WORKERS or are_elsewhere(options)
        self.computed_with = self.how(workers)
        self.plan = Plan.of(job, self.computed_with.dtype, self.computed_with.attributes)
        for problem in (
            interval_problem(self.output, job.interval),
            default_problem(self.output, job),
            read_with.problem_with(self.output, self.plan),
        ):
            if problem is not None:
                raise RunError(problem, ExitStatus.BAD_INPUT)
        self.judges = self.with_judges()
        self.licences = collect(job, self.plan.sources)  # cards are small: before models are loaded
        self.limits = Limits(job, self.started, devices if self.decodes else 0, Spending(work), self.judges.spent)
        self.decode_s = 0.0

    def with_judges(self) -> RunJudges:
        """Who judges its texts."""
        return RunJudges(self.job, self.work)

    def how(self, workers: int) -> ComputedWith:
        """What it computes with."""
        return computed_with.settled(self.output, self.job, workers, self.n_texts)

    def keep_how(self) -> None:
        """Note what rows are computed and read with."""
        with output_errors(self.output):
            computed_with.keep(self.output, self.computed_with)
            read_with.keep(self.output, self.plan)
            note_interval(self.output, self.job.interval)

    def result(self) -> Result:
        self.keep_how()
        try:
            rows, accepted, n_waiting = self.all_rows()
        finally:
            self.limits.note()
        return self.finish(rows, accepted, n_waiting)

    def all_rows(self) -> tuple[ById | ByRange, dict[str, Any] | None, int]:
        """Generate all that is to be had; with them, if it was asked, the report of `accept` and how many wait."""
        grid = self.job.cells(self.job.load_prompts())
        if self.job.accept is not None:
            return self.until_enough(self.job.accept, grid)
        rows: ById | ByRange | None = self.rows_by_range(grid)
        if rows is None:
            rows, self.grid = self.rows_by_id(), grid
            rows.cells = self.plan.cells(grid)
        self.generate(rows)
        return rows, None, 0

    def rows_by_range(self, grid: Grid) -> ByRange | None:
        """The rows of a plan that the work folder knows by its ranges; ``None``: it holds something else."""
        self.grid = self.plan.distinct(grid)
        with output_errors(self.output):
            return by_range(self.work, self.plan, self.grid, self.computed_with.rows_per_shard, self.judges)

    def rows_by_id(self) -> ById:
        asks = self.job.decoder.token_log_ratios
        return ById(self.work, self.judges, self.computed_with.rows_per_shard, asks_for_tokens=asks)

    def until_enough(self, rule: Accept, grid: Grid) -> tuple[ById | ByRange, dict[str, Any], int]:
        """Draw candidates until every cell has its rows or no more may be drawn."""
        law, self.grid = law_of(rule, self.job, self.judges), widest(grid, rule)
        accepting = Accepting(law, self.work, self.judges, self.stop, self.generate)
        if not self.judges.remote:
            size = self.computed_with.rows_per_shard
            with output_errors(self.output):
                of_ranges = candidates(self.work, self.plan, grid, size, self.judges, law)
            if of_ranges is not None:
                return of_ranges, *accepting.by_range(of_ranges)
        rows = self.rows_by_id()
        return rows, *accepting.by_id(Draws(rule, grid), rows, self.plan)

    # ------------------------------------------------------------------ rows

    def generate(self, rows: ById | ByRange) -> None:
        """Decode and judge what is not there yet; a worker that is killed costs its shard's time and no more."""
        deaths = n_files = 0
        while True:
            work, n_dead = self.left_of(rows)
            if deaths and n_shards(self.work) > n_files:
                deaths = 0
            n_files = n_shards(self.work)
            shutil.rmtree(self.progress, ignore_errors=True)  # or old ticks would count as new ones
            conditions = [self.limits.rejections(self.progress, rows.n, n_dead), *self.limits.conditions()]
            if not work.is_empty and self.stop.at_once(conditions):
                return  # before a model is loaded for nothing
            began = time.time()
            try:
                with Watch(self.stop, conditions):
                    books = execute.run(work, self.beam_arguments)
            except WorkerDied as error:
                deaths += 1
                self.decode_s += time.time() - began
                if deaths >= MOST_DEATHS:
                    self.stop.request(
                        f"{error}; {deaths} one after the other without a shard finished between: lower batch_size or "
                        "the number of workers"
                    )
                    return
                logger.warning("%s; its shard is made again", error)
                continue
            except GraphFailed as error:  # whatever it was, what is finished is there to look at
                logger.error("%s", error)
                self.stop.request(str(error).splitlines()[0], error.status)
                return
            break
        self.decode_s += books.decode_s
        self.ask_endpoints(rows)

    def ask_endpoints(self, rows: Rows) -> None:
        """Ask the judges behind endpoints about what they have not scored."""
        if self.judges.remote:
            with Watch(self.stop, self.limits.conditions()):
                self.judges.ask_endpoints(self.stop, rows.to_ask, self.limits)

    def left_of(self, rows: Rows) -> tuple[Work, int]:
        """What is not there yet, and how many rows are dead letters and not tried again."""
        with output_errors(self.output):
            left = rows.left()
            note_planned(self.work, self.n_texts)
            if left.regrouped and not self.computed_with.regrouped:
                self.computed_with = replace(self.computed_with, regrouped=True)
                computed_with.keep(self.output, self.computed_with)
            work = Work(
                shards=left.shards,
                judges=left.judges,
                plan=store_plan(self.work, self.plan.rule, self.grid),
                folder=self.work,
                computed_with=self.computed_with,
                load=self.load,
                progress=self.progress,
            )
        return work, left.n_dead

    # ------------------------------------------------------------------ data set

    def finish(self, rows: ById | ByRange, accepted: dict[str, Any] | None = None, n_waiting: int = 0) -> Result:
        """Exchange the data set for this one, if it is complete; else put beside it what there is.

        Args:
            accepted: see :func:`pipeline.plan.accept.report`. n_waiting: candidates that wait for a score.

        Raises:
            RunError: it is not complete.
        """
        coming = self.coming(rows)
        if rows.is_damaged:  # what was set aside is made again, once
            self.generate(rows)
            coming = self.coming(rows)
        if rows.is_damaged:  # of the rest it is
            with output_errors(self.output):
                coming = put_together(self.output, self.job, rows, self.judges)
        found = coming.found
        with output_errors(self.output):
            beside = has_its_scores(self.output)
        counts = Counts.of(found, rows.n, accepted, coming.n_unjudged)
        ending = ending_of(self.job, counts, self.stop.found(), n_waiting, coming.unscored, beside=beside)
        course = Course(
            self.started,
            self.decode_s,
            self.cost(),
            self.limits.cost(),
            rows.n,
            rows.n_control,
            self.added(rows),
            accepted,
        )
        run = record(
            self.job,
            self.plan.sources,
            self.computed_with,
            self.judges,
            course,
            ending,
            read_with=read_with.parts_of(self.plan),
            work=self.work,
            found=found,
            licences=self.licences,
        )
        with output_errors(self.output):
            if ending.complete:
                self.keep(coming, run)
                return Result(self.output, found.summary, run, ending)
            place = write_partial(self.output, coming.folder, self.job, found, run)  # None: there is nothing
        raise RunError(f"{ending.why}; {so_far(ending, counts, place, self.output, self.again)}", ending.status)

    def keep(self, coming: Coming, run: dict[str, Any]) -> None:
        """Make what was put together the data set. Raises OSError."""
        write_data_set(self.output, coming.folder, self.job, coming.found, run)

    def cost(self) -> float:
        """Of this run."""
        return self.limits.now().total

    def added(self, rows: Rows) -> Written:
        """What this run has added."""
        return rows.written()

    def coming(self, rows: Rows) -> Coming:
        """The files of a data set of what there is: put together by workers, where there are several, or here."""
        if self.several and type(rows) is ByRange and rows.n > 2 * BLOCK_ROWS and not self.judges.remote:
            size = self.computed_with.rows_per_shard
            try:
                with output_errors(self.output):
                    plan = store_plan(self.work, self.plan.rule, self.grid)
                return put_together_by_workers(
                    self.output, self.job, rows, self.judges, plan, size, self.beam_arguments
                )
            except (WorkerDied, GraphFailed) as error:  # the rows are there, and this process can do without
                logger.warning("workers could not put the data set together: %s", str(error).splitlines()[0])
        with output_errors(self.output):
            return put_together(self.output, self.job, rows, self.judges)
