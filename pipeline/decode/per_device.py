"""One worker a device, for all processes of a machine.

As many model banks lie on a machine as it has devices, however many processes a runner starts there. A process that
has something to do takes a device's *turn* (:mod:`pipeline.decode.leases`). If nothing is loaded there, it loads; if
another process has, it hands its task over and waits for the answer. So

- no device has two banks: a bank's lock is held as long as it is loaded;
- nothing is loaded twice for want of a lease: work goes to where a bank is, by a socket in the folder of the leases;
- every device is busy as long as more tasks wait than there are devices, since any of them goes to any device;
- who is killed leaves nothing behind: the system lifts its locks. The task of a killed holder is done anew by who had
  handed it over; a killed asker's task is finished for nobody.

Beam's ``MultiProcessShared`` gives one instance a name and leases nothing: every process would have to know which names
are taken; its server listens on a port of the machine behind a key that is known to all, and unpickles what it is sent.

A bank of another run (of another *tag*) makes room once nobody has used it for a while, at once in its own process.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic, Protocol, TypeVar

from pipeline.decode.leases import Held, Leases, Unit
from pipeline.events import event

logger = logging.getLogger(__name__)

# How often one who waits looks for a turn: a task takes seconds, and a look some microseconds a device.
_EVERY_S = 0.05
# A bank that nobody has used for so long makes room for another run: a run between two shards is not idle.
IDLE_S = 30.0
_SAID_AFTER_S = 60.0

Task = TypeVar("Task")
Result = TypeVar("Result")
_Task = TypeVar("_Task", contravariant=True)
_Result = TypeVar("_Result", covariant=True)


class Worker(Protocol[_Task, _Result]):
    """What is loaded on a unit: does one task at a time."""

    def __call__(self, task: _Task, /) -> _Result: ...

    def close(self) -> None:
        """Give its memory back."""
        ...


class PerDevice(Generic[Task, Result]):
    """Does tasks on the devices of this machine, beside the other processes that do.

    Args:
        make: loads a worker on a unit; what it raises is raised to who had called.
        units: of the machine, the same in all processes.
        tag: of what ``make`` loads: workers of the same tag do each other's tasks. Tasks and results are pickled.
        leases: of the machine.
        idle_s: after so many seconds without a task what is loaded here makes room for another tag's.
        stop: once it says yes, nobody waits any longer.
    """

    def __init__(
        self,
        make: Callable[[Unit], Worker[Task, Result]],
        units: Sequence[Unit],
        *,
        tag: str,
        leases: Leases | None = None,
        idle_s: float = IDLE_S,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._make, self._units, self._tag, self._stop = make, list(units), tag, stop
        self._idle_s = idle_s
        self._leases = Leases() if leases is None else leases
        self._began = False

    def __call__(self, task: Task) -> Result | None:
        """What a worker makes of it; ``None``: a stop was asked for before one was free.

        Raises:
            Exception: whatever loading or the task raised, in this process or another.
        """
        waiting_since: float | None = time.monotonic()
        while not self._stop():
            for unit in self._in_order():
                turn = self._leases.turn(unit)
                if turn is not None:
                    try:
                        done, result = self._try(unit, task)
                    finally:
                        turn.release()
                    if done:
                        self._began = True
                        return result
            if waiting_since is not None and time.monotonic() - waiting_since > _SAID_AFTER_S:
                waiting_since = None
                if not self._began:
                    logger.warning(_WAITING, len(self._units), self._leases.folder)
            time.sleep(_EVERY_S)
        return None

    def _in_order(self) -> list[Unit]:
        """Its own first, where nothing travels; the others in any order, so that none is besieged."""
        mixed = random.sample(self._units, len(self._units))
        return sorted(mixed, key=lambda unit: unit not in _here)

    def _try(self, unit: Unit, task: Task) -> tuple[bool, Any]:
        """Do a task on a unit whose turn is held; whether it was done, and the result."""
        while True:
            mine = _here.get(unit)
            if mine is not None and mine.tag == self._tag:
                return True, mine.run(task)
            lease = self._leases.bank(unit)
            if lease is not None:
                return True, self._load(unit, lease).run(task)
            answer, result = _ask(self._leases, unit, self._tag, task)
            if answer == _FAILED:
                raise result
            if answer != _ROOM:
                return answer == _DONE, result

    def _load(self, unit: Unit, lease: Held) -> _Loaded:
        """Load here; where that fails, the lease is given up."""
        event(logger, "device_leased", device=list(unit), leases=str(self._leases.folder))
        try:
            return _Loaded(unit, self._tag, self._make(unit), lease, self._leases, self._idle_s)
        except BaseException:
            lease.release()
            raise


def whole(units: Sequence[Unit], leases: Leases | None = None) -> tuple[Unit, Held, Held]:
    """A unit for this process alone, as long as it holds both locks; waits for one."""
    leases, since = Leases() if leases is None else leases, time.monotonic()
    said = False
    while True:
        for unit in units:
            turn = leases.turn(unit)
            if turn is None:
                continue
            answer = _ROOM
            while answer == _ROOM:
                lease = leases.bank(unit)
                if lease is not None:
                    event(logger, "device_leased", device=list(unit), leases=str(leases.folder))
                    return unit, turn, lease
                answer, _ = _ask(leases, unit, "", None)
            turn.release()
        if not said and time.monotonic() - since > 2.0:
            said = True
            logger.warning(_WAITING, len(units), leases.folder)
        time.sleep(_EVERY_S)


_WAITING = (
    "waiting for a device: all %d are in use by other runs of yours on this machine (leases in %s); it goes on as soon "
    "as one is idle"
)

# --------------------------------------------------------------------------- what is loaded in this process

_DONE, _FAILED, _ROOM, _TAKEN, _GONE = "done", "failed", "room", "taken", "gone"


class _Loaded:
    """A worker in this process, which does its own tasks and those of others, one at a time."""

    def __init__(
        self, unit: Unit, tag: str, worker: Worker[Any, Any], lease: Held, leases: Leases, idle_s: float
    ) -> None:
        self.tag, self._unit, self._worker, self._lease, self._idle_s = tag, unit, worker, lease, idle_s
        self._busy, self._used = threading.Lock(), time.monotonic()
        self._addresses = [leases.address(name) for name in unit]
        for address in self._addresses:
            with suppress(FileNotFoundError):  # of one that was killed
                os.unlink(address)
        self._listener = Listener(self._addresses[0], "AF_UNIX")
        for address in self._addresses[1:]:
            os.symlink(self._addresses[0], address)
        _here[unit] = self
        threading.Thread(target=self._serve, name=f"serves {unit[0]}", daemon=True).start()

    def run(self, task: Any) -> Any:
        with self._busy:
            try:
                return self._worker(task)
            finally:
                self._used = time.monotonic()

    def _serve(self) -> None:
        """Answer one asker after the other: only who has the turn asks."""
        while _here.get(self._unit) is self:
            with suppress(OSError, EOFError), self._listener.accept() as asker:  # one that was killed
                self._answer(asker)

    def _answer(self, asker: Connection) -> None:
        """Whatever happens, an asker that lives hears of it: without a word it would ask again, and for ever."""
        received = asker.recv_bytes()
        try:
            answer = bytes(ForkingPickler.dumps(self._answer_to(*ForkingPickler.loads(received))))
        except BaseException as error:
            answer = _told(error)
        asker.send_bytes(answer)

    def _answer_to(self, tag: str, pid: int, task: Any) -> tuple[str, Any]:
        if tag == self.tag:
            return _DONE, self.run(task)
        if pid != os.getpid() and time.monotonic() - self._used < self._idle_s:
            return _TAKEN, None
        with self._busy:
            del _here[self._unit]
            self._listener.close()
            for address in self._addresses[1:]:
                os.unlink(address)
            self._worker.close()
            self._lease.release()
        return _ROOM, None


_here: dict[Unit, _Loaded] = {}


def _ask(leases: Leases, unit: Unit, tag: str, task: Any) -> tuple[str, Any]:
    """Have who has loaded on a unit do a task, or make room; what it answers, or that nobody does."""
    answer: tuple[str, Any] = _GONE, None
    for name in unit:  # its devices may be those of several others
        with suppress(OSError, EOFError), Client(leases.address(name), "AF_UNIX") as holder:
            holder.send((tag, os.getpid(), task))
            answer = holder.recv()
            if answer[0] != _TAKEN:
                break
    return answer


def _told(error: BaseException) -> bytes:
    """An error as another process can read it, with its traceback; in words, where it can't be pickled."""
    try:
        found = bytes(ForkingPickler.dumps((_FAILED, ExceptionWithTraceback(error, error.__traceback__))))
        ForkingPickler.loads(found)
    except Exception:
        return bytes(ForkingPickler.dumps((_FAILED, RuntimeError(f"{type(error).__name__}: {error}"))))
    return found
