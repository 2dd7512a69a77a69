"""A run from job to data set: plan, resume, Beam, judges, data set, card."""

from __future__ import annotations

import logging
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.beam import execute
from pipeline.beam.options import beam_options, n_workers
from pipeline.beam.supervise import GraphFailed, WorkerDied
from pipeline.beam.to_do import forget, keep_shards
from pipeline.beam.work import PROGRESS, Work
from pipeline.decode.loading import LoadBank
from pipeline.exit_status import ExitStatus
from pipeline.job.adapters import own_judges
from pipeline.job.known import counted
from pipeline.job.model import Job
from pipeline.judging.registry import JudgeError
from pipeline.judging.table import merged
from pipeline.plan import accept, computed_with, read_with
from pipeline.plan.cells import PlannedCell
from pipeline.plan.errors import RunError
from pipeline.plan.merged import texts_of
from pipeline.plan.plan import Plan
from pipeline.plan.ranges import shards_of
from pipeline.plan.split import split_problems
from pipeline.plan.stored import store_plan
from pipeline.publish.data_set import write_data_set, write_partial
from pipeline.publish.gather import gather_rows
from pipeline.publish.licence_sources import collect
from pipeline.publish.summary import Summary, summarise
from pipeline.run.ending import Counts, Ending, ending_of, has_its_scores, ids_of, so_far
from pipeline.run.judges import RunJudges
from pipeline.run.labels import relabel
from pipeline.run.limits import Limits
from pipeline.run.record import Course, record
from pipeline.store.dataset import dead_ids, done_ids, ids_without, n_shards, prepare, set_aside_judgments
from pipeline.store.errors import OutputError, TooNew, output_errors, readable, what_happened
from pipeline.store.exchange import finish_exchange
from pipeline.store.lock import FolderInUse, FolderLock
from pipeline.store.places import is_local
from pipeline.store.shards import read_shards
from pipeline.store.spending import Spending
from pipeline.store.state import note_planned
from pipeline.store.stop import StopFile, Watch, graceful_signals

logger = logging.getLogger(__name__)

# Worker processes that may be killed one after the other without a shard finished between, before a run gives up.
MOST_DEATHS = 3


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
    job: Job, beam_arguments: Sequence[str] = (), *, interruptible: bool = False, load: LoadBank | None = None
) -> Result:
    """Run a job to its data set. A run that was stopped goes on where it was: finished rows are kept.

    Args:
        beam_arguments: Beam's own options.
        interruptible: Ctrl-C and SIGTERM finish the rows in flight first; from the main thread only.
        load: of the model bank, see :class:`pipeline.decode.bank.ProcessBank`.

    Raises:
        RunError: the output folder holds something else, is in use or can't be written; too many rows were rejected;
            worker processes were killed again and again; Ctrl-C, a deadline or a budget ended it.
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
        stop = StopFile.of(work)
        with FolderLock(work):
            stop.clear()
            with output_errors(output):
                finish_exchange(output)  # before anything there is read
            with graceful_signals(stop) if interruptible else nullcontext():
                return _Run(job, output, work, stop, tuple(beam_arguments), load, texts.n).result()
    except (JudgeError, TooNew) as error:
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
        n_texts: int,
    ) -> None:
        self.job, self.output, self.work, self.stop, self.n_texts = job, output, work, stop, n_texts
        self.beam_arguments, self.load = beam_arguments, load
        self.progress = work / PROGRESS if is_local(work) else Path(tempfile.mkdtemp(prefix="mpg-progress-"))
        self.started, workers = time.time(), n_workers(beam_options(beam_arguments))
        self.computed_with = computed_with.settled(output, job, workers, n_texts)
        self.plan = Plan.of(job, self.computed_with.dtype, self.computed_with.attributes)
        problem = read_with.problem_with(output, self.plan)
        if problem is not None:
            raise RunError(problem, ExitStatus.BAD_INPUT)
        self.judges = RunJudges(job, work)
        self.licences = collect(job, self.plan.sources)  # cards are small: before models are loaded
        self.limits = Limits(job, self.started, workers, Spending(work), self.judges.spent)
        self.done_before: set[str] | None = None
        self.labelled: set[str] = set()  # rows whose labels are the job's
        self.decode_s = 0.0

    def result(self) -> Result:
        with output_errors(self.output):
            computed_with.keep(self.output, self.computed_with)
            read_with.keep(self.output, self.plan)
        try:
            grid = self.job.cells(self.job.load_prompts())
            draws = None if self.job.accept is None else accept.Draws(self.job.accept, grid)
            self.grid = grid if draws is None else draws.widest
            if draws is None:
                cells = kept = self.plan.cells(grid)
                self.generate(cells)
                accepted, n_waiting = None, 0
            else:
                cells, kept, accepted, n_waiting = self.until_enough(draws)
        finally:
            self.limits.note()
        return self.finish(cells, kept, accepted, n_waiting)

    # ------------------------------------------------------------------ rows

    def generate(self, cells: Sequence[PlannedCell]) -> None:
        """Decode and judge what is not there yet; a worker that is killed costs its shard's time and no more."""
        deaths = n_files = 0
        while True:
            work, n_dead = self.left_of(cells)
            if deaths and n_shards(self.work) > n_files:
                deaths = 0
            n_files = n_shards(self.work)
            shutil.rmtree(self.progress, ignore_errors=True)  # or old ticks would count as new ones
            conditions = [self.limits.rejections(self.progress, len(cells), n_dead), *self.limits.conditions()]
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
        with Watch(self.stop, self.limits.conditions()):
            self.judges.ask_endpoints(self.stop, cells, self.limits)

    def left_of(self, cells: Sequence[PlannedCell]) -> tuple[Work, int]:
        """What is not there yet, and how many rows are dead letters and not tried again."""
        planned = {cell.row_id for cell in cells}
        with output_errors(self.output):
            relabel(self.work, [cell for cell in cells if cell.row_id not in self.labelled])
        self.labelled |= planned
        done, dead = done_ids(self.work), dead_ids(self.work)
        if self.done_before is None:
            self.done_before = done
            if done & planned:
                logger.info("%d of %d rows are there already and are kept", len(done & planned), len(planned))
                self.say_what_they_lack(planned)
        to_do = planned - done - dead
        set_aside_judgments(self.work, to_do)
        whole, regrouped = shards_of(cells, to_do, self.computed_with.rows_per_shard, dead)
        if regrouped and not self.computed_with.regrouped:
            self.computed_with = replace(self.computed_with, regrouped=True)
            computed_with.keep(self.output, self.computed_with)
        shards = whole + regrouped
        with output_errors(self.output):
            forget(self.work)
            note_planned(self.work, self.n_texts)
            work = Work(
                shards=keep_shards(self.work, shards),
                judges=self.judges.of_workers(planned),
                plan=store_plan(self.work, self.plan.rule, self.grid),
                folder=self.work,
                computed_with=self.computed_with,
                load=self.load,
                progress=self.progress,
            )
        return work, len((dead & planned) - {cell.row_id for shard in shards for cell in shard})

    def say_what_they_lack(self, planned: set[str]) -> None:
        """A word on rows that were written before the job asked for their tokens."""
        if self.job.decoder.token_log_ratios:
            lacking = len(ids_without(self.work, "token_log_ratios") & planned)
            if lacking:
                logger.warning(
                    "decoder.token_log_ratios: %d of these rows were written without and have none; for all, write the "
                    "data set anew into another folder (--output): float32 texts come out the same",
                    lacking,
                )

    def until_enough(self, draws: accept.Draws) -> tuple[list[PlannedCell], list[PlannedCell], dict[str, Any], int]:
        """Draw candidates until every cell has its rows or no more may be drawn.

        Returns:
            all candidates; those kept; the report; how many wait for a score.
        """
        judged, seen = counted(self.job.judges, self.job.attribute_names, own_judges(self.job)), set[str]()
        while True:
            cells = self.plan.cells(draws.candidates(), draws.places())
            self.generate(cells)
            table, done = merged(read_shards(self.work / "judgments", "judgments")), done_ids(self.work)
            scores = accept.adherence(cells, table, judged, self.judges.labels, self.job.panel)
            waiting = accept.waiting(cells, table, judged, self.judges.remote_labels, done, self.wordless())
            groups = accept.by_cell(cells)
            passed = accept.passing(groups, scores, done, draws.rule)
            dead = dead_ids(self.work)
            n_dead = {key: sum(cell.row_id in dead for cell in group) for key, group in groups.items()}
            n_waiting = {key: sum(cell.row_id in waiting for cell in group) for key, group in groups.items()}
            asked = {cell.row_id for cell in cells if cell.weights and cell.row_id in done} - seen
            seen |= asked
            if asked and asked <= waiting and self.stop.reason() is None:
                self.stop.request(*self.judges.why_unasked(table, waiting))
            if self.stop.reason() is not None or not draws.draw_more(passed, n_dead, n_waiting):
                kept = [cell for group in passed.values() for cell in group]
                return cells, kept, accept.report(draws, passed, n_waiting), len(waiting)
            logger.info("%d candidates so far; more are drawn where too few have passed", len(cells))

    def wordless(self) -> set[str]:
        """Row ids of texts that no judge can judge: without a letter or digit."""
        table = read_shards(self.work / "generations", "generations", ["row_id", "response"])
        return {row["row_id"] for row in table.to_pylist() if not any(map(str.isalnum, row["response"]))}

    # ------------------------------------------------------------------ data set

    def finish(
        self,
        cells: Sequence[PlannedCell],
        kept: Sequence[PlannedCell],
        accepted: dict[str, Any] | None,
        n_waiting: int,
    ) -> Result:
        """Exchange the data set for this one, if it is complete; else put beside it what there is.

        Raises:
            RunError: it is not complete.
        """
        with output_errors(self.output):
            tables = gather_rows(self.work, kept, cells, self.job.read_prompts())
        counts = Counts.of(tables, cells, accepted, self.judges.unjudged(tables["judgments"], ids_of(tables)))
        unscored = self.judges.verdict(tables["judgments"])
        beside = has_its_scores(self.output)
        ending = ending_of(self.job, counts, self.stop.found(), n_waiting, unscored, beside=beside)
        summary = summarise(
            tables["generations"],
            tables["judgments"],
            self.job.attribute_names,
            panel_rule=self.job.panel,
            judges=self.judges.labels,
        )
        course = Course(
            self.started,
            self.decode_s,
            self.limits.now().total,
            self.limits.cost(),
            self.done_before or set(),
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
            cells=cells,
            tables=tables,
            licences=self.licences,
        )
        with output_errors(self.output):
            if ending.complete:
                write_data_set(self.output, self.job, tables, summary, run)
                return Result(self.output, summary, run, ending)
            place = write_partial(self.output, self.job, tables, summary, run)  # None: there is nothing
        raise RunError(f"{ending.why}; {so_far(ending, counts, place, self.output)}", ending.status)
