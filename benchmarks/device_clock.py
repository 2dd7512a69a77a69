"""Results written as they come, and a clock that nothing outlasts."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class OutOfTime(BaseException):  # libraries that go on after any Exception must not go on after this one
    """A case was stopped by the clock."""


class Log:
    """Results as they come: a line of JSON each in a file, a row of a table on stdout."""

    def __init__(self, out: Path | None) -> None:
        self._file = out.open("w", encoding="utf-8") if out else None

    def __call__(self, row: str, /, **result: Any) -> None:
        print(row, flush=True)
        if self._file is not None:
            self._file.write(json.dumps(result) + "\n")
            self._file.flush()


class Clock:
    """What is left of the time given; a case may not outlast it."""

    def __init__(self, minutes: float) -> None:
        self._end = time.monotonic() + 60 * minutes

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    @contextmanager
    def limit(self, most: float) -> Iterator[None]:
        """Raises OutOfTime inside after ``most`` seconds, or when all time is up."""

        def stop(*_: Any) -> None:
            raise OutOfTime

        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, max(0.1, min(most, self.left)), 5.0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)


def describe(error: BaseException) -> str:
    """Its kind, and the beginning of what it says."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
