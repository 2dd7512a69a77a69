"""How a run is told to end early: a file that every worker looks for before it takes in a row.

Ctrl-C, a deadline, a budget or too many rejected rows ask for it; rows in flight are finished and written. The
workers of a job that nobody drives (:mod:`pipeline.store.detached`) hold its deadline: the first to find it past asks.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

from pipeline.events import MESSAGE, is_json
from pipeline.exit_status import ExitStatus
from pipeline.store.detached import Until, noted
from pipeline.store.files import exists, read_text, remove, write_bytes
from pipeline.store.places import expanded, is_local

STOP_FILE = "stop"
INTERRUPTED = "interrupted"
# How often the driver looks whether a limit is reached, in seconds.
_EVERY_S = 0.5
# A worker asks for the file at most so often: a look costs a few microseconds, on a network more.
_LOOK_EVERY_S = 0.2
_LOOK_IN_STORE_EVERY_S = 5.0


@dataclass(frozen=True)
class Stop:
    """Why a run is to stop, and what the command ends with then."""

    reason: str
    status: ExitStatus = ExitStatus.TRY_AGAIN


@dataclass(frozen=True)
class StopFile:
    """The request to stop, in a work folder."""

    path: str

    @classmethod
    def of(cls, work: Path) -> StopFile:
        return cls(str(work / STOP_FILE))

    def request(self, reason: str, status: ExitStatus = ExitStatus.TRY_AGAIN) -> None:
        """Ask all to stop; the first reason stays."""
        if self.found() is None:
            write_bytes(json.dumps([reason, status]).encode(), expanded(self.path))

    def found(self) -> Stop | None:
        """Why the run is to stop; ``None``: it is not."""
        try:
            reason, status = json.loads(read_text(expanded(self.path)))
            return Stop(reason, ExitStatus(status))
        except FileNotFoundError:
            return None

    def reason(self) -> str | None:
        """The same in words alone."""
        found = self.found()
        return None if found is None else found.reason

    def at_once(self, conditions: Sequence[Callable[[], Stop | None]]) -> bool:
        """Whether to stop before anything is begun: asked for already, or by one of some conditions now."""
        for condition in conditions:
            found = condition()
            if found is not None:
                self.request(found.reason, found.status)
        return self.found() is not None

    def clear(self) -> None:
        """Of an earlier run."""
        remove(expanded(self.path))

    def watcher(self) -> Callable[[], bool]:
        """Whether to stop, cheap enough to be asked all the time."""
        last, found, place = 0.0, False, expanded(self.path)
        every_s = _LOOK_EVERY_S if is_local(place) else _LOOK_IN_STORE_EVERY_S
        knows, until = False, None

        def requested() -> bool:
            nonlocal last, found, knows, until
            now = time.monotonic()
            if not found and now - last > every_s:
                last = now
                with suppress(OSError):  # a store that does not answer now says nothing about a stop
                    if not knows:
                        until, knows = _until(place.parent), True
                    if until is not None and time.time() >= until.at:
                        found = True
                        self.request(until.reason, ExitStatus(until.status))
                    found = found or exists(place)
            return found

        return requested


def _until(work: Path) -> Until | None:
    """When the workers of a detached job are to stop. Raises OSError."""
    job = noted(work)
    return None if job is None or job.ended is not None else job.until


# Whether to stop now, and why; ``None``: there is no reason.
Condition = Callable[[], Stop | None]


class Watch:
    """Asks for a stop when a limit is reached: ``with Watch(stop, [condition]): ...``.

    Args:
        conditions: each says why to stop, or ``None``.
    """

    def __init__(self, stop: StopFile, conditions: Sequence[Condition]) -> None:
        self._stop, self._conditions = stop, conditions
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        while True:
            for condition in self._conditions:
                found = condition()
                if found is not None:
                    with suppress(OSError):  # a full disk ends the run by itself
                        self._stop.request(found.reason, found.status)
                    return
            if self._ended.wait(_EVERY_S):
                return

    def __enter__(self) -> Watch:
        if self._conditions:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._conditions:
            self._thread.join()


# What is to be done before a process is ended at once: each says in words what came of it.
_at_once: list[Callable[[], str]] = []
# How long that may take, in seconds: a person waits, or a machine that is about to be taken away (30 s, on Google's).
_AT_ONCE_S = 10.0


@contextmanager
def before_it_ends_at_once(do: Callable[[], str]) -> Iterator[None]:
    """Have something done before the second Ctrl-C ends the process, see :func:`graceful_signals`.

    Args:
        do: called from a thread of its own; returns what is to be said of it.
    """
    _at_once.append(do)
    try:
        yield
    finally:
        _at_once.remove(do)


def _in_time(do: Callable[[], str]) -> str:
    """What it says, or that it took too long: a signal may have come while what it needs was held."""
    said = ["what runs elsewhere could not be told in time"]
    thread = threading.Thread(target=lambda: said.insert(0, do()), daemon=True)
    thread.start()
    thread.join(_AT_ONCE_S)
    return said[0]


@contextmanager
def graceful_signals(stop: StopFile) -> Iterator[None]:
    """Ctrl-C (or SIGTERM, which preempted machines get) asks for a stop; the second one ends the process at once.

    Before that, what was asked for is done (:func:`before_it_ends_at_once`), unless a third comes.

    Nothing that is written is lost either way: a shard is there wholly or not at all, and worker processes end with
    the one that started them. Call it from the main thread.
    """

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, second)
        signal.signal(signal.SIGTERM, second)
        try:
            stop.request(INTERRUPTED, ExitStatus.INTERRUPTED)
        except OSError:  # a full disk, say: nobody can be told
            second(number, frame)
        _say("mpg: stopping: rows in flight are finished and written; Ctrl-C again stops at once")

    def second(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)
        words = "".join(f"; {_in_time(do)}" for do in tuple(_at_once))
        _say(f"mpg: stopped at once{words}; the same command goes on from the rows that are written")
        os._exit(ExitStatus.INTERRUPTED)

    before = {number: signal.signal(number, first) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(line: str) -> None:
    """To stderr, from a signal handler: no buffer, no lock."""
    with suppress(OSError):  # nobody reads it any more
        text = json.dumps({"event": MESSAGE, "level": "WARNING", "message": line}) if is_json() else f"\n{line}"
        os.write(2, f"{text}\n".encode())
