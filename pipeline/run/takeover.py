"""A detached job that a later command finds: at work still, or over, so that the command goes on in its place."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pipeline.beam.detached import place_of, standing
from pipeline.plan.errors import RunError
from pipeline.store.detached import Detached, forget, last_written, note, note_its_cost, noted
from pipeline.store.errors import output_errors


def take_over(output: Path, work: Path) -> None:
    """Forget the detached job of an output, if there is one and it is over. Raises as :func:`settled`."""
    if settled(output, work) is not None:
        with output_errors(output):
            forget(work)


def settled(output: Path, work: Path, *, anyway: bool = False) -> Detached | None:
    """The detached job of an output, which is over: what its devices have cost is counted. ``None``: there is none.

    Args:
        anyway: take it for over where nobody can tell.

    Raises:
        RunError: it is at work, or nobody can tell. OutputError: the output can't be read or written.
    """
    with output_errors(output):
        job = noted(work)
        if job is None:
            return None
        found, last = standing(work, job), last_written(work, job)
        who = f"output: the job detached to {place_of(job)} at {moment(job.submitted)}"
        if found.is_over is False:
            raise RunError(
                f"{who} is at work there ({found.words}): mpg status {output} says how far it is, mpg stop {output} "
                f"ends it; then mpg finish {output}"
            )
        if found.is_over is None and not anyway:
            written = f"its last files were written at {moment(last)}" if last > job.submitted else "it wrote nothing"
            raise RunError(
                f"{who}: nobody can say whether it has ended ({found.words}); {written}; if it has: "
                f"mpg finish {output} --anyway"
            )
        if job.ended is None:
            job = replace(job, ended=last, state=found.words)
            note(work, job)
        note_its_cost(work, job)
    return job


def moment(seconds: float) -> str:
    """A time in seconds since the epoch, for people: local, ISO 8601."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
