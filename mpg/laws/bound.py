"""``scr``'s online bound M and the books that say what the bound costs."""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

# M before and below the window's evidence. The log-ratio of an 8-token chunk was measured to have a
# standard deviation of about 0.5 at strength 1; with E[R] = 1 that puts R's 90th percentile near
# exp(1.28 * 0.5 - 0.5**2 / 2) = 1.7. A floor of 2 keeps a row's first chunks, which have no window
# yet, from being accepted blindly (M = 1 would accept every chunk that the target likes). The adapters that ship since
# have 2 and not 0.5 (docs/method.md): the floor then clips much of R's tail. It stays: texts depend on it.
BOUND_FLOOR = 2.0
# The alarm on E[R] = 1 needs a sample for its normal approximation, and 4 standard errors: a false
# alarm once in 16,000 runs.
_ALARM_MIN_SAMPLES = 200
_ALARM_STANDARD_ERRORS = 4.0
# Share of the squares' sum that one chunk may have before a mean below 1 says nothing. A tail that was not drawn lowers
# the mean and its error together: a log-normal R of sigma 2.5 has a mean of less than .7 in two of five samples of 300.
_TAIL = 0.1


@dataclass
class Window:
    """One row's recent chunk ratios; their maximum is the bound M for the next chunk."""

    size: int
    ratios: deque[float] = field(init=False)
    n_clipped: int = 0
    kept_mass: float = 0.0
    n_seen: int = 0

    def __post_init__(self) -> None:
        self.ratios = deque(maxlen=self.size)

    @property
    def bound(self) -> float:
        """M, from the chunks before this one only: the chunk tested must not move its own bar."""
        return max(BOUND_FLOOR, max(self.ratios, default=0.0))

    def record(self, ratio: float) -> None:
        """Book a tested chunk's R against the bound it was tested with."""
        bound = self.bound
        self.n_clipped += ratio > bound
        self.kept_mass += min(ratio, bound)
        self.n_seen += 1
        self.ratios.append(ratio)

    @property
    def tv_bound(self) -> float:
        """``1 - mean min(R, M)``, at least 0, which estimates ``E[(R - M)+] = 1 - M A >= TV`` for one chunk.

        Not ``mean (R - M)+``, equal to it in expectation as ``E[R] = 1``: that is as heavy-tailed as R, and what most
        samples say of it is far too little (docs/method.md).
        """
        return min(1.0, max(0.0, 1.0 - self.kept_mass / self.n_seen)) if self.n_seen else 0.0


@dataclass
class RatioAlarm:
    """Watches the identity ``E_{c ~ pi_0}[R(c)] = 1`` over a run; a miss means a wrong denominator."""

    n: int = 0
    total: float = 0.0
    total_squared: float = 0.0
    largest: float = 0.0

    def record(self, ratio: float) -> None:
        self.n += 1
        self.total += ratio
        self.total_squared += ratio * ratio
        self.largest = max(self.largest, ratio)

    @property
    def mean(self) -> float:
        return self.total / self.n if self.n else math.nan

    def check(self) -> bool:
        """Log a warning and return True when the mean is more than 4 standard errors from 1."""
        if self.n < _ALARM_MIN_SAMPLES:
            return False
        if not math.isfinite(self.total_squared):
            return False  # ratios beyond 1e154: their tail decides the mean, and no sample this small has seen it
        if self.mean < 1 and self.largest**2 > _TAIL * self.total_squared:
            return False  # the tail again: few chunks have most of the mass, and those not drawn may have the rest
        variance = max(0.0, self.total_squared / self.n - self.mean * self.mean)
        error = math.sqrt(variance / self.n)
        if abs(self.mean - 1.0) <= _ALARM_STANDARD_ERRORS * error + 1e-3:
            return False
        logger.warning(
            "mean of R over %d chunks is %.3f +- %.3f, not 1: drafts do not follow the reference they are scored by",
            self.n,
            self.mean,
            error,
        )
        return True
