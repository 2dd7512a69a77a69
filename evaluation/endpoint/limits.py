"""What bounds a judge's calls: how many in flight and a minute, and a budget.

All of it is shared by the calls of one event loop. Time goes through a :class:`Clock`, so that tests can let
minutes pass in a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_MINUTE_S = 60.0
# First pause after a failure and the longest one; each doubles the one before.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0


class Clock:
    """Time as it passes."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let other calls go on meanwhile."""
        await asyncio.sleep(seconds)


class Throttle:
    """At most ``in_flight`` calls at once and ``per_minute`` in any 60 seconds (0: no limit)."""

    def __init__(self, in_flight: int, per_minute: int, clock: Clock) -> None:
        self._slots = asyncio.Semaphore(in_flight)
        self._per_minute, self._clock = per_minute, clock
        self._started: deque[float] = deque()
        self._order = asyncio.Lock()

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Hold a place while the body runs."""
        async with self._slots:
            if self._per_minute:
                async with self._order:
                    while len(self._started) >= self._per_minute:
                        wait = self._started[0] + _MINUTE_S - self._clock.now()
                        if wait <= 0:
                            self._started.popleft()
                        else:
                            await self._clock.sleep(wait)
                    self._started.append(self._clock.now())
            yield


@dataclass
class Budget:
    """A hard limit on what calls may cost; prices in the user's currency per million tokens.

    A call goes out only if it can be paid for even at its longest, whatever else is under way.

    Attributes:
        limit: ``None``: none.
        spent, reserved: by calls that have ended, and by those under way.
        earlier: spent before, by other runs; it counts.
    """

    limit: float | None = None
    prompt_price: float = 0.0
    completion_price: float = 0.0
    spent: float = 0.0
    reserved: float = 0.0
    earlier: float = 0.0
    prompt_tokens: int = field(default=0)
    completion_tokens: int = field(default=0)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What a call of so many tokens costs."""
        return (prompt_tokens * self.prompt_price + completion_tokens * self.completion_price) / 1e6

    def reserve(self, most: float) -> bool:
        """Set aside what a call may cost at most; False: there is not enough left."""
        if self.limit is not None and self.earlier + self.spent + self.reserved + most > self.limit:
            return False
        self.reserved += most
        return True

    def settle(self, most: float, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Book a call that has ended; one without usage costs what was set aside, a failed one (0, 0) nothing."""
        self.reserved -= most
        if prompt_tokens is None or completion_tokens is None:
            self.spent += most
            return
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens
        self.spent += self.cost(prompt_tokens, completion_tokens)
