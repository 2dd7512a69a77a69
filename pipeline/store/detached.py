"""A job that was handed to workers elsewhere and whose driver has gone: what is noted of it beside its rows.

Its workers read here when they are to stop (:mod:`pipeline.store.stop`), and every later command who has the job.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.store.files import newest, read_text, remove, write_bytes
from pipeline.store.spending import Spent, note_spent

DETACHED_FILE = "detached.json"  # in the work folder
JOB_FILE = "detached-job.json"  # beside it
_WRITTEN_BY_WORKERS = ("generations", "rejected", "judgments")


@dataclass(frozen=True)
class Until:
    """A moment after which workers begin no row, in seconds since the epoch; why, and what that ends a command with."""

    at: float
    reason: str
    status: int


@dataclass(frozen=True)
class Detached:
    """See the module. Times are seconds since the epoch.

    Attributes:
        runner: its name; ``service``: Beam's options by which the service that has the job is found again.
        job_id: by which that service knows it; ``None``: it gave none, or the driver was killed before it was noted.
        devices: that are paid for, each at ``device_price`` an hour.
        ended: when its workers last wrote something, once a command has found that it has ended, as ``state``.
    """

    runner: str
    service: tuple[str, ...]
    submitted: float
    devices: int
    device_price: float
    until: Until | None = None
    job_id: str | None = None
    ended: float | None = None
    state: str | None = None

    @property
    def cost(self) -> float:
        """Of its devices, up to its end."""
        return ((self.ended or self.submitted) - self.submitted) / 3600 * self.devices * self.device_price


def noted(work: Path) -> Detached | None:
    """The detached job of a work folder; ``None``: there is none. Raises OSError: nobody can tell."""
    try:
        found: dict[str, Any] = json.loads(read_text(work / DETACHED_FILE))
    except (FileNotFoundError, NotADirectoryError):
        return None
    until = found["until"]
    found |= {"service": tuple(found["service"]), "until": None if until is None else Until(**until)}
    return Detached(**{each.name: found[each.name] for each in fields(Detached) if each.name in found})


def note(work: Path, job: Detached) -> None:
    """Raises OSError."""
    write_bytes((json.dumps(asdict(job), indent=2) + "\n").encode(), work / DETACHED_FILE)


def note_job(work: Path, job: Mapping[str, Any]) -> None:
    """Keep the job itself, for those who have not its file. Raises OSError."""
    write_bytes((json.dumps(job, indent=2) + "\n").encode(), work / JOB_FILE)


def noted_job(work: Path) -> dict[str, Any]:
    """What :func:`note_job` has kept. Raises OSError, ValueError."""
    return dict(json.loads(read_text(work / JOB_FILE)))


def forget(work: Path) -> None:
    """Raises OSError."""
    remove(work / DETACHED_FILE)
    remove(work / JOB_FILE)


def last_written(work: Path, job: Detached) -> float:
    """When its workers last wrote something, by the clock of the place; when it was submitted, if they never did."""
    return max([job.submitted, *filter(None, (newest(work / name) for name in _WRITTEN_BY_WORKERS))])


def note_its_cost(work: Path, job: Detached) -> None:
    """Count what its devices have cost up to its end, once however often it is noted. Raises OSError."""
    note_spent(work, f"detached-{job.submitted:.3f}", Spent(job.cost))
