"""A run in two commands: one hands its graph to workers elsewhere and goes, another makes the data set of their rows.

In between nobody drives: workers hold deadline and devices' budget (:mod:`pipeline.store.stop`). What needs one place
that sees all rows (``accept``, endpoints' judges, the data set itself) is not theirs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from personas import PromptError
from pipeline.beam.at_work import moment
from pipeline.beam.detached import place_of, submission, submit
from pipeline.beam.supervise import GraphFailed
from pipeline.beam.work import BOOKS_FILE, Books, Work
from pipeline.exit_status import ExitStatus
from pipeline.job.model import Job, shipped_adapters
from pipeline.plan import computed_with
from pipeline.plan.computed_with import ComputedWith
from pipeline.plan.errors import RunError
from pipeline.run.by_range import ByRange
from pipeline.run.rows import ById, Rows, Written
from pipeline.run.run import Place, Result, Run, opened
from pipeline.run.takeover import settled
from pipeline.store.dataset import WORK_FOLDER
from pipeline.store.detached import JOB_FILE, Detached, forget, note, note_job, noted, noted_job
from pipeline.store.errors import OutputError, output_errors, readable
from pipeline.store.files import exists, read_text, remove
from pipeline.store.places import expanded
from pipeline.store.stop import INTERRUPTED, graceful_signals


@dataclass(frozen=True)
class Submitted:
    """What was handed over.

    Attributes:
        n_cells: to decode; ``n_to_judge``: texts, once for each judge. Both 0: nothing was left, nothing was sent.
    """

    n_cells: int
    n_to_judge: int
    job: Detached


def detach(job: Job, beam_arguments: Sequence[str], specification: str | None = None) -> Submitted:
    """Plan a job as a run does, and hand its graph over.

    Args:
        beam_arguments: in which :func:`pipeline.beam.detached.detach_problems` finds nothing.
        specification: place that Dataflow's specification of the job goes to, for a template's launcher to submit.

    Raises:
        RunError: as :func:`pipeline.run.run.run_job`; a detached job is at work there; the service took nothing.
    """
    with opened(job) as place:
        before = settled(place.output, place.work)
        place.stop.clear()
        return _Submission(job, place, tuple(beam_arguments), before, specification).submitted()


def finish(
    output: Path, beam_arguments: Sequence[str] = (), *, anyway: bool = False, interruptible: bool = False
) -> Result:
    """Make the data set of what a detached job has written; nothing is decoded.

    Args:
        beam_arguments: Beam's own options, of workers that put it together.
        anyway: where nobody can tell whether the job has ended. interruptible: by Ctrl-C, from the main thread only.

    Raises:
        RunError: none was detached there, or it is at work; else as :func:`pipeline.run.run.run_job`.
    """
    job = _job_of(output)
    with opened(job) as place:
        found = settled(output, place.work, anyway=anyway)
        if found is None:
            raise _nothing(output)
        run = _Finish(job, place, found, tuple(beam_arguments))
        with graceful_signals(place.stop) if interruptible else nullcontext():
            try:
                result = run.result()
            except RunError:  # there is less than a data set: with the rest goes on whoever runs the job
                forget(place.work)
                raise
        forget(place.work)
        return result


class _Submission(Run):
    """A run up to its graph.

    Args:
        before: a detached job that is over, and that nobody has finished.
        specification: see :func:`detach`.
    """

    decodes = False

    def __init__(
        self,
        job: Job,
        place: Place,
        beam_arguments: tuple[str, ...],
        before: Detached | None,
        specification: str | None,
    ) -> None:
        super().__init__(job, place, beam_arguments)
        self.before, self.specification = before, specification

    def submitted(self) -> Submitted:
        self.keep_how()
        self.all_rows()
        return self.found

    def generate(self, rows: ById | ByRange) -> None:
        """Hand over what is not there yet, having noted who will have it."""
        work, _ = self.left_of(rows)
        now = time.time()
        detached = submission(self.beam_arguments, now, self.job.device_price, None)
        detached = replace(detached, until=self.limits.until(detached.devices))
        if work.is_empty:
            if self.specification is not None:
                self.submit(work)
            self.found = Submitted(0, 0, self.before or replace(detached, ended=now))
            with output_errors(self.output):
                if self.before is None:  # else the rows are those of that job, and so are the counts of its graph
                    remove(self.work / BOOKS_FILE)
                note_job(self.work, _noted(self.job))
                note(self.work, self.found.job)
            return
        if self.stop.at_once(self.limits.conditions()) and (stop := self.stop.found()) is not None:
            raise RunError(f"nothing was submitted: {stop.reason}", stop.status)
        with output_errors(self.output):
            note_job(self.work, _noted(self.job))
            note(self.work, detached)  # before workers can look for it
        try:
            detached = replace(detached, job_id=self.submit(work))
        except Exception:
            forget(self.work)
            raise
        with output_errors(self.output):
            note(self.work, detached)
        self.found = Submitted(work.n_cells, work.n_to_judge, detached)

    def submit(self, work: Work) -> str | None:
        """The id by which its service knows it, if it says one. Raises RunError, OutputError: it took nothing."""
        try:
            return submit(work, self.beam_arguments, self.specification)
        except GraphFailed as error:
            raise RunError(f"nothing was submitted: {str(error).splitlines()[0]}", error.status) from error


class _Finish(Run):
    """A run from its graph on."""

    again = "the same mpg run"
    decodes = False

    def __init__(self, job: Job, place: Place, detached: Detached, beam_arguments: tuple[str, ...]) -> None:
        super().__init__(job, place, beam_arguments)
        self.detached, self.started = detached, detached.submitted
        try:
            self.books = Books(**json.loads(read_text(self.work / BOOKS_FILE)))
        except FileNotFoundError:  # its graph was not run to its end: nobody knows which rows are its
            self.books = Books()
        self.decode_s = self.books.decode_s

    def how(self, workers: int) -> ComputedWith:
        return computed_with.kept(self.output) or super().how(workers)

    def generate(self, rows: ById | ByRange) -> None:
        """Ask endpoints' judges; what workers have left undone stays so."""
        work, _ = self.left_of(rows)
        if not work.is_empty:
            self.stop.request(f"the detached job has ended before its last row ({self.detached.state})")
        elif self.stop.reason() != INTERRUPTED:
            self.stop.clear()  # it came after the last row
        self.ask_endpoints(rows)

    def cost(self) -> float:
        return super().cost() + self.detached.cost

    def added(self, rows: Rows) -> Written:
        found = rows.written()
        new = min(self.books.n_rows, found.kept)
        return Written(found.kept - new, found.generated + new, found.n_tokens + self.books.n_tokens)


def _noted(job: Job) -> dict[str, object]:
    """A job for those who have not its file; its deadline was that of the workers."""
    return {"folder": str(job.folder), "job": job.model_dump(mode="json") | {"deadline": None}}


def _job_of(output: Path) -> Job:
    """The job that was detached. Raises RunError."""
    work = output / WORK_FOLDER
    try:
        with output_errors(output):
            if noted(work) is None:
                raise _nothing(output)
            found = noted_job(work) if exists(work / JOB_FILE) else None
    except OutputError as error:
        raise RunError(readable(error)) from error
    if found is None:
        lost = f"{work / JOB_FILE} is gone, which says what was detached"
        raise RunError(f"{output}: {lost}; the same mpg run goes on from its rows", ExitStatus.BAD_INPUT)
    context = {"folder": expanded(found["folder"]), "shipped": dict(shipped_adapters())}
    try:
        job = Job.model_validate(found["job"] | {"output": str(output)}, context=context)
        job.load_prompts()
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise RunError(
            f"{output}: its job is not one of this version of mpg-scr ({why}); install the one that submitted it",
            ExitStatus.BAD_INPUT,
        ) from error
    except PromptError as error:
        raise RunError(f"{output}: prompts: {error}", ExitStatus.BAD_INPUT) from error
    return job


def _nothing(output: Path) -> RunError:
    return RunError(
        f"{output}: no job was detached there (mpg run JOB --detach), so there is nothing to finish",
        ExitStatus.BAD_INPUT,
    )


def words_of(found: Submitted, output: Path) -> str:
    """What was handed over where, in a line, and the commands that go on."""
    if not found.n_cells and not found.n_to_judge:
        return f"nothing is left for workers to do; mpg finish {output} writes the data set"
    what = f"{found.n_cells} rows to decode" if found.n_cells else f"{found.n_to_judge} texts to judge"
    job = found.job
    ends = "" if job.until is None else f", until {moment(job.until.at)} at the latest"
    paid = f" ({job.devices} devices at {job.device_price:g} an hour)" if job.device_price else ""
    commands = f"mpg status {output}, mpg stop {output}; then: mpg finish {output}"
    return f"{what}: submitted to {place_of(job)}{paid}{ends}; {commands}"
