"""What may end a run early: its deadline, its budget, too many rejected rows."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pipeline.beam.progress import ticks
from pipeline.job.deadline import seconds_until
from pipeline.job.model import Job

# Why to stop; ``None``: there is no reason.
Condition = Callable[[], str | None]


class Limits:
    """Of one run.

    Args:
        started: when it began, in seconds since the epoch.
        n_workers: that have a device each.
        judges_spent: what judges behind endpoints have cost it so far.
    """

    def __init__(self, job: Job, started: float, n_workers: int, judges_spent: Callable[[], float]) -> None:
        self._job, self._started, self._n_workers, self._judges_spent = job, started, n_workers, judges_spent

    def cost(self) -> float:
        """Of devices and judges so far."""
        hours = (time.time() - self._started) / 3600
        return hours * self._n_workers * self._job.device_price + self._judges_spent()

    def rejections(self, work: Path, n_cells: int, n_dead: int) -> Condition:
        """Too many rows are dead letters; ``n_dead`` were before and stay so."""
        most = self._job.max_rejected_fraction * n_cells

        def rejected() -> str | None:
            n = n_dead + ticks(work / "progress" / "rejected")
            return f"{n} of {n_cells} rows were rejected" if n > most else None

        return rejected

    def conditions(self) -> list[Condition]:
        """What may end it whatever it does."""
        job, found = self._job, list[Condition]()
        if job.deadline is not None:
            end = self._started + seconds_until(job.deadline, datetime.fromtimestamp(self._started))
            found.append(lambda: f"deadline {job.deadline} reached" if time.time() >= end else None)
        if job.budget is not None and job.device_price > 0:
            budget = job.budget
            found.append(lambda: f"budget of {budget:g} spent" if self.cost() >= budget else None)
        return found
