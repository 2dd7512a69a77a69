"""The breaker between a judge and its server: it holds calls back while they can't be answered, and knows when to end.

Until a first call is answered, one at a time goes out: a wrong key costs one call, not one for each text.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from evaluation.endpoint.limits import FIRST_PAUSE_S, LONGEST_PAUSE_S, Clock
from evaluation.scores import Status

logger = logging.getLogger(__name__)

# Longest sleep of a call that waits its turn, so that it sees soon that there is none any more.
_LOOK_S, _LOOK_AGAIN_S = 0.05, 5.0
# Texts in a row that came to nothing, before a first one was answered, and refusals of access in a row, afterwards.
_MOST_FRUITLESS, _MOST_REFUSED = 5, 3


@dataclass(frozen=True)
class Stop:
    """Why a judge asks no more.

    Attributes:
        status: that the texts which were not asked about get.
        incurable: no later call can cure it: somebody has to mend something first.
        of_budget: it is the budget that is spent.
    """

    reason: str
    status: Status = Status.FAILED
    incurable: bool = False
    of_budget: bool = False


class Breaker:
    """Holds all calls back while the server says that it has no capacity, or is not there.

    One refused call pauses every other: a server that throttles is not asked again by all at once. A pause is what the
    server asks for, or doubles each time; then one call tries while the others wait for its outcome.

    Args:
        patience_s: how long a server may have no capacity, or one that has answered before be away, in seconds.
        tries: how often a server that never answered is looked for.
        in_flight: calls at once at most.
        answered: whether it has answered before.

    Attributes:
        stop: why no more calls go out, once none do.
    """

    def __init__(self, patience_s: float, tries: int, in_flight: int, clock: Clock, *, answered: bool = False) -> None:
        self._patience_s, self._tries, self._clock = patience_s, tries, clock
        self._most_fruitless = 2 * in_flight + _MOST_REFUSED
        self._open_at = 0.0  # no call before
        self._held_since: float | None = None
        self._held_why, self._held_status = "", Status.FAILED
        self._pause = FIRST_PAUSE_S
        self._trying: object | None = None  # the call that goes alone
        self._failed_tries = self._fruitless = self._refused = 0
        self._answered = answered
        self.stop: Stop | None = None

    @property
    def has_answered(self) -> bool:
        """Whether the server has answered a call."""
        return self._answered

    @property
    def gives_texts_one_try(self) -> bool:
        """Whether a text has used up its tries for nothing and none has been answered: the others get one each."""
        return not self._answered and self._fruitless > 0

    async def wait(self, call: object) -> Stop | None:
        """Wait until a call may go out; else why none does any more."""
        while self.stop is None:
            now = self._clock.now()
            if self._held_since is not None and now - self._held_since > self._patience_s:
                self.end(Stop(f"{self._held_why} for {self._patience_s:g} s", self._held_status))
                break
            alone = self._held_since is not None or not self._answered
            if now >= self._open_at and (not alone or self._trying in (None, call)):
                self._trying = call if alone else None
                return None
            await self._clock.sleep(min(max(self._open_at - now, _LOOK_S), _LOOK_AGAIN_S))
        return self.stop

    def leave(self, call: object) -> None:
        """A call has ended, somehow: another may try."""
        if self._trying is call:
            self._trying = None

    def throttled(self, retry_after_s: float | None, words: str) -> None:
        """A call was refused for want of capacity."""
        if retry_after_s is not None and retry_after_s > self._patience_s:
            longer = f"longer than patience_s {self._patience_s:g}"
            self.end(
                Stop(f"the server asks to come back in {retry_after_s:.0f} s, {longer} ({words})", Status.THROTTLED)
            )
        self._held_why, self._held_status = "the server refused all calls", Status.THROTTLED
        self._hold(retry_after_s or None, f"the server has no capacity ({words})")

    def unreachable(self, words: str) -> None:
        """A call found nobody there."""
        self._held_why, self._held_status = words, Status.FAILED
        first = self._clock.now() >= self._open_at  # of the calls that were under way together
        self._failed_tries += first
        if not self._answered and self._failed_tries > self._tries:
            self.end(Stop(f"{words}, {self._failed_tries} times in a row"))
        elif first:
            self._hold(None, words, "" if self._answered else f"try {self._failed_tries} of {self._tries + 1}")

    def answered(self) -> None:
        """A call went through: the way is free for all."""
        if self._held_since is not None:
            logger.warning("judge: the server answers again")
        self._held_since, self._pause, self._trying = None, FIRST_PAUSE_S, None
        self._failed_tries = self._fruitless = self._refused = 0
        self._answered = True

    def lives(self) -> None:
        """A call was refused for its own text: the server is there and reads what it is sent."""
        self._fruitless, self._answered = 0, True

    def refused(self, words: str, *, final: bool) -> None:
        """A call was refused as any other would be; ``final``: whatever was answered before."""
        self._refused += 1
        if final or not self._answered or self._refused >= _MOST_REFUSED:
            self.end(Stop(words, incurable=True))

    def fruitless(self, words: str, *, incurable: bool) -> None:
        """A text came to nothing, after all its tries."""
        self._fruitless += 1
        if self._fruitless >= (self._most_fruitless if self._answered else _MOST_FRUITLESS):
            self.end(Stop(f"{self._fruitless} texts in a row came to nothing ({words})", incurable=incurable))

    def end(self, stop: Stop) -> None:
        """No more calls go out; the first reason is kept."""
        self.stop = self.stop or stop

    def _hold(self, retry_after_s: float | None, what: str, how_long: str = "") -> None:
        """Begin a pause, unless one of the calls that were under way together has."""
        now = self._clock.now()
        self._trying = None
        if now < self._open_at:
            return
        if self._held_since is None:
            self._held_since = now
        pause = self._pause if retry_after_s is None else retry_after_s
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        self._open_at = now + pause
        since = f"since {now - self._held_since:.0f} s; giving up after {self._patience_s:.0f} s"
        logger.warning("judge: %s; all calls wait %.3g s (%s)", what, pause, how_long or since)
