"""What may end a run early: its deadline, the data set's budget, too many rejected rows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from pipeline.beam.progress import ticks
from pipeline.exit_status import ExitStatus
from pipeline.job.deadline import seconds_until
from pipeline.job.model import Job
from pipeline.store.detached import Until
from pipeline.store.spending import Spending, Spent
from pipeline.store.stop import Condition, Stop

logger = logging.getLogger(__name__)


class Limits:
    """Of one run.

    Args:
        started: when it began, in seconds since the epoch.
        n_devices: that are paid for.
        spending: of the data set; the budget counts what earlier runs have spent.
        judges_spent: what judges behind endpoints have cost this run so far, by name.
    """

    def __init__(
        self,
        job: Job,
        started: float,
        n_devices: int,
        spending: Spending,
        judges_spent: Callable[[], Mapping[str, float]],
    ) -> None:
        self._job, self._started, self._n_devices = job, started, n_devices
        self._spending, self._judges_spent = spending, judges_spent
        earlier = spending.earlier.total
        if job.budget is not None and earlier > 0:
            left = max(0.0, job.budget - earlier)
            logger.info("budget %g: earlier runs of this data set spent %.4g, %.4g is left", job.budget, earlier, left)

    def now(self) -> Spent:
        """What this run has spent so far."""
        hours = (time.time() - self._started) / 3600
        return Spent(hours * self._n_devices * self._job.device_price, self._judges_spent())

    def cost(self) -> float:
        """Of devices and judges, of this run so far and all earlier ones."""
        return self._spending.earlier.total + self.now().total

    def note(self) -> None:
        """Write down what was spent. It is for later runs: no error ends this one."""
        with suppress(OSError):
            self._spending.note(self.now())

    def rejections(self, progress: Path, n_cells: int, n_dead: int) -> Condition:
        """Too many rows are dead letters; ``n_dead`` were before and stay so."""
        most = self._job.max_rejected_fraction * n_cells

        def rejected() -> Stop | None:
            n = n_dead + ticks(progress / "rejected")
            if n <= most:
                return None
            return Stop(f"{n} of {n_cells} rows were rejected", ExitStatus.TOO_MANY_REJECTED)

        return rejected

    def conditions(self) -> list[Condition]:
        """What may end it whatever it does."""
        job, found, deadline = self._job, list[Condition](), self._deadline()
        if deadline is not None:
            end, reached = deadline
            found.append(lambda: reached if time.time() >= end else None)
        if job.budget is not None:
            found.append(lambda: self.out_of_budget() if self.cost() >= self._budget else None)
        return [*found, self._note_now_and_then]

    def until(self, n_devices: int) -> Until | None:
        """When workers that nobody drives are to stop, their devices' price and all; ``None``: nothing says so."""
        ends, price = [self._deadline()], n_devices * self._job.device_price / 3600
        if self._job.budget is not None and price > 0:
            left = max(0.0, self._budget - self._spending.earlier.total)
            ends.append((self._started + left / price, self.out_of_budget()))
        at, stop = min(filter(None, ends), key=lambda end: end[0], default=(0.0, None))
        return None if stop is None else Until(at, stop.reason, stop.status)

    def _deadline(self) -> tuple[float, Stop] | None:
        deadline = self._job.deadline
        if deadline is None:
            return None
        seconds = seconds_until(deadline, datetime.fromtimestamp(self._started))
        return self._started + seconds, Stop(f"deadline {deadline} reached")

    @property
    def _budget(self) -> float:
        assert self._job.budget is not None
        return self._job.budget

    def out_of_budget(self) -> Stop:
        """The budget is spent, by whom, and what to do."""
        earlier = self._spending.earlier.total
        by = f", {earlier:.4g} of it by earlier runs of this data set" if earlier > 0 else ""
        return Stop(f"budget of {self._budget:g} spent{by}; raise it with --budget", ExitStatus.BUDGET_SPENT)

    def _note_now_and_then(self) -> None:
        with suppress(OSError):
            self._spending.note_now_and_then(self.now())
