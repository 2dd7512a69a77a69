"""A lock in a store: an object that only one can create, and that its holder writes anew while it lives.

A store has no ``flock``. So whoever comes looks whether the holder's beat moves: one whose beat has stood still for
:data:`DEAD_AFTER_S`, by the clock of the one who looks, is gone, and the lease is taken over. Clocks of two machines
are never compared.

Those who share it have an object each, beside it. Either kind writes its own first and looks for the other's then, so
that of two that come at once one sees the other at least.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path

from pipeline.store.files import create, listing, read_bytes, remove, write_bytes

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 10.0
DEAD_AFTER_S = 45.0
_SHARED = "-shared"  # behind a lease's name: the folder of those who share it
_LOOK_EVERY_S = 1.0
# A store that makes what is there already may let two in: each looks again, after so long, whether it is the one.
_SETTLE_S = 0.3


class Held(RuntimeError):
    """Somebody else holds it; the message says who."""


class Lease:
    """Of a folder in a store.

    Args:
        path: of the object.
        wait: until it is free, instead of an error.
    """

    def __init__(self, path: Path, *, wait: bool = False) -> None:
        self._path, self._mine, self._wait = path, path, wait
        self._shared = path.with_name(f"{path.name}{_SHARED}")
        self._me = {"host": socket.gethostname(), "pid": os.getpid(), "token": uuid.uuid4().hex}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> None:
        """Hold it alone from now on. Raises Held; OSError: the store can't be written."""
        while True:
            if not self._holder() and create(self._beat(0), self._path):
                time.sleep(_SETTLE_S)
                if self._holder().get("token") == self._me["token"]:
                    break
            self.look()
        self._begin()
        try:
            for name in listing(self._shared):
                self._look(self._shared / name)
        except BaseException:
            self.give_back()
            raise

    def share(self) -> None:
        """Hold it beside others who share it, from now on. Raises Held; OSError: the store can't be written."""
        self._mine = self._shared / str(self._me["token"])
        write_bytes(self._beat(0), self._mine)
        self._begin()
        try:
            self.look()
        except BaseException:
            self.give_back()
            raise

    def look(self) -> None:
        """Come back once nobody holds it alone: at once, or when its holder has long been dead. Raises Held, OSError.

        Nothing is written, but that the lease of one that is dead is removed.
        """
        self._look(self._path)

    def _begin(self) -> None:
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _look(self, path: Path) -> None:
        seen, since, said = self._holder(path), time.monotonic(), False
        while seen:
            if self._is_gone(seen):
                remove(path)
                return
            if not said and time.monotonic() - since > BEAT_EVERY_S:
                said = True
                logger.info("%s: looking for up to %.0f s whether %s is alive", path, DEAD_AFTER_S, _shown(seen))
            time.sleep(_LOOK_EVERY_S)
            now = self._holder(path)
            if now != seen:
                if now and not self._wait:
                    raise Held(_shown(now))
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > DEAD_AFTER_S:
                remove(path)
                return

    def give_back(self) -> None:
        """Let go of it; nothing where it is somebody else's."""
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._thread = None
            with suppress(OSError):
                if self._holder(self._mine).get("token") == self._me["token"]:
                    remove(self._mine)

    def _keep(self) -> None:
        beat = 0
        while not self._ended.wait(BEAT_EVERY_S):
            beat += 1
            with suppress(OSError):  # the next beat may reach the store again
                write_bytes(self._beat(beat), self._mine)

    def _beat(self, number: int) -> bytes:
        return json.dumps(self._me | {"beat": number}).encode()

    def _holder(self, path: Path | None = None) -> dict[str, object]:
        try:
            return dict(json.loads(read_bytes(self._path if path is None else path)))
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError):
            return {"host": "?", "pid": "?"}

    def _is_gone(self, holder: dict[str, object]) -> bool:
        """Whether it was a process of this machine that has ended."""
        pid = holder.get("pid")
        if holder.get("host") != self._me["host"] or not isinstance(pid, int) or pid == os.getpid():
            return False
        return not os.path.exists(f"/proc/{pid}") if os.path.isdir("/proc/self") else False


def _shown(holder: dict[str, object]) -> str:
    return f"another process (host {holder.get('host')}, pid {holder.get('pid')})"
