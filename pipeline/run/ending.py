"""How a run ended: whether its data set is complete, else why not, and what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.exit_status import ExitStatus
from pipeline.job.model import Job
from pipeline.judging.verdict import Verdict
from pipeline.publish.sums import Digest
from pipeline.store.dataset import RUN_FILE, is_complete
from pipeline.store.files import read_text
from pipeline.store.stop import Stop


@dataclass(frozen=True)
class Ending:
    """See the module.

    Attributes:
        complete: whether the run's rows are a data set.
        why: what it is not complete for, or what is to be said beside it, in a line; ``None``: nothing.
        status: that the command ends with.
    """

    complete: bool = True
    why: str | None = None
    status: ExitStatus = ExitStatus.DONE


@dataclass(frozen=True)
class Counts:
    """What there is, of what was planned.

    Attributes:
        planned: cells; with ``accept`` candidates.
        rows, rejected: of the data set.
        missing: cells that are neither.
        unjudged: rows that some judge has not looked at.
    """

    planned: int
    rows: int
    rejected: int
    missing: int
    unjudged: int

    @classmethod
    def of(cls, found: Digest, planned: int, accepted: object | None, unjudged: int) -> Counts:
        """Args: accepted: not ``None`` where rows are chosen among candidates: none of them is missing then."""
        missing = 0 if accepted is not None else planned - found.n_rows - found.n_rejected
        return cls(planned, found.n_rows, found.n_rejected, missing, unjudged)


def ending_of(
    job: Job,
    counts: Counts,
    stop: Stop | None,
    n_waiting: int,
    unscored: Verdict | None = None,
    *,
    beside: bool = False,
) -> Ending:
    """What a run has come to.

    Args:
        stop: that was asked for.
        n_waiting: candidates of ``accept`` that wait for a score.
        unscored: more than ``max_unscored_fraction`` is; the texts are a data set all the same, unless it would take
            the place of one that has its scores.
        beside: whether there is such a one.
    """
    if counts.rejected > job.max_rejected_fraction * counts.planned:
        return Ending(
            False,
            f"{counts.rejected} of {counts.planned} rows were rejected, more than max_rejected_fraction "
            f"{job.max_rejected_fraction:g} allows",
            ExitStatus.TOO_MANY_REJECTED,
        )
    if stop is not None and (job.accept is not None or counts.missing or counts.unjudged):
        return Ending(False, f"stopped ({stop.reason})", stop.status)
    if counts.missing:
        return Ending(False, f"{counts.missing} of {counts.planned} rows are missing", ExitStatus.TRY_AGAIN)
    if n_waiting > job.max_unscored_fraction * counts.planned:
        return Ending(False, f"{n_waiting} candidates wait for a judge's score", ExitStatus.TRY_AGAIN)
    return Ending() if unscored is None else Ending(not beside, unscored.why, unscored.status)


def has_its_scores(output: Path) -> bool:
    """Whether a data set is there of which nothing was to be said. Raises OSError."""
    try:
        run = json.loads(read_text(output / RUN_FILE))
        return is_complete(output) and run.get("ended", {"why": None})["why"] is None
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return False


def so_far(ending: Ending, counts: Counts, place: Path | None, output: Path, again: str = "the same command") -> str:
    """Where a run that is not complete has left its rows, and what ``again``, a command, does."""
    left = []
    if counts.missing:
        left.append(f"the other {counts.missing}")
    if counts.unjudged:
        left.append(f"{counts.unjudged} texts that wait for a judge")
    mended = ending.status not in (ExitStatus.TRY_AGAIN, ExitStatus.INTERRUPTED)
    goes_on = f"; {'then ' if mended else ''}{again} goes on{' with ' if left else ''}{' and '.join(left)}"
    stays = f"; the data set in {output} stays as it was" if is_complete(output) else ""
    if place is None:
        return f"none of {counts.planned} rows is finished yet{stays}{goes_on}"
    reasons = f" (reasons: {place / 'rejected'})" if counts.rejected else ""
    return f"{counts.rows} of {counts.planned} rows are finished, to look at in {place}{reasons}{stays}{goes_on}"


def on_record(ending: Ending) -> dict[str, Any]:
    """For ``run.json``."""
    return {"complete": ending.complete, "why": ending.why, "status": int(ending.status)}
