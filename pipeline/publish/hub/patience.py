"""How long the Hub is waited for: tries again with growing pauses, or as long as it asks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pipeline.exit_status import ExitStatus
from pipeline.publish.hub.errors import Passing, PublishError

logger = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How often something is tried.

    Attributes:
        tries: in all.
        first_s: pause after the first; each next one is twice as long, up to ``longest_s``.
        most_s: longest pause that the Hub may ask for.
        again: what is said where it was not enough.
    """

    tries: int = 6
    first_s: float = 1.0
    longest_s: float = 30.0
    most_s: float = 900.0
    sleep: Callable[[float], None] = time.sleep
    again: str = "the same command goes on, and what is uploaded is not sent again"

    def over(self, function: Callable[[], T]) -> T:
        """What the function returns, called again while it raises :class:`Passing`. Raises PublishError."""
        for n in range(1, self.tries + 1):
            try:
                return function()
            except Passing as problem:
                self.pause(problem, n)
        raise AssertionError("the last pause raises")

    def pause(self, problem: PublishError, n: int) -> None:
        """Wait after the n-th try that failed so. Raises PublishError: enough."""
        wait_s = problem.wait_s if isinstance(problem, Passing) else None
        if n >= self.tries == 1:
            raise PublishError(str(problem), ExitStatus.TRY_AGAIN) from problem
        if n >= self.tries:
            raise PublishError(f"{problem}; {n} tries; {self.again}", ExitStatus.TRY_AGAIN) from problem
        if wait_s is not None and wait_s > self.most_s:
            raise PublishError(
                f"{problem}; it asks to wait {wait_s:.0f} s; {self.again}", ExitStatus.TRY_AGAIN
            ) from problem
        if wait_s is None:
            wait_s = min(self.longest_s, self.first_s * 2 ** (n - 1))
        logger.warning("%s; again in %.0f s", problem, wait_s)
        self.sleep(wait_s)
