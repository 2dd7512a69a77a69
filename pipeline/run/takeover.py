"""A detached job that a later command finds: at work still, or over, so that the command goes on in its place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pipeline.beam.at_work import look
from pipeline.plan.errors import RunError
from pipeline.store.detached import Detached, forget, note, note_its_cost
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
        found = look(output)
        if found is None:
            return None
        job = found.job
        if found.problem is not None and not (anyway and found.standing.is_over is None):
            raise RunError(found.problem)
        if job.ended is None:
            job = replace(job, ended=found.last, state=found.standing.words)
            note(work, job)
        note_its_cost(work, job)
    return job
