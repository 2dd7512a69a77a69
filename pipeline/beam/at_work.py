"""Whether an output is a detached job's still, in the words that every command has for it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.beam.detached import Standing, place_of, standing
from pipeline.plan.errors import RunError
from pipeline.store.dataset import WORK_FOLDER
from pipeline.store.detached import Detached, last_written, noted
from pipeline.store.errors import output_errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """A detached job, and how it is.

    Attributes:
        last: when its workers last wrote something, in seconds since the epoch.
        problem: why nobody else may write there, in a line; ``None``: it is over.
    """

    job: Detached
    standing: Standing
    last: float
    problem: str | None


def look(output: Path) -> Found | None:
    """The detached job of an output; ``None``: there is none. Raises OSError: the output can't be read."""
    work = output / WORK_FOLDER
    job = noted(work)
    if job is None:
        return None
    found, last = standing(work, job), last_written(work, job)
    who, problem = f"output: the job detached to {place_of(job)} at {moment(job.submitted)}", None
    if found.is_over is False:
        problem = (
            f"{who} is at work there ({found.words}): mpg status {output} says how far it is, mpg stop {output} "
            f"ends it; then mpg finish {output}"
        )
    elif found.is_over is None:
        written = f"its last files were written at {moment(last)}" if last > job.submitted else "it wrote nothing"
        problem = (
            f"{who}: nobody can say whether it has ended ({found.words}); {written}; if it has: "
            f"mpg finish {output} --anyway"
        )
    return Found(job, found, last, problem)


def problem_of(output: Path) -> str | None:
    """Why nobody else may write there; a place that can't be read is said by who reads it."""
    try:
        found = look(output)
    except OSError:
        return None
    return None if found is None else found.problem


def refuse(output: Path) -> None:
    """For a command that is about to write there. Raises RunError, OutputError: the output can't be read."""
    with output_errors(output):
        found = look(output)
    if found is not None and found.problem is not None:
        raise RunError(found.problem)


def tell(output: Path) -> None:
    """For a command that reads there: what it finds may not be all."""
    problem = problem_of(output)
    if problem is not None:
        logger.warning("%s", problem)


def moment(seconds: float) -> str:
    """A time in seconds since the epoch, for people: local, ISO 8601."""
    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="seconds")
