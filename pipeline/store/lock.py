"""One run on an output folder at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from pipeline.store.lease import Held, Lease
from pipeline.store.places import is_local

logger = logging.getLogger(__name__)

LOCK_FILE = "lock"
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class FolderInUse(RuntimeError):
    """Another process works on the folder; the message names its host and pid, ``holder`` nothing else."""

    def __init__(self, folder: Path, holder: str) -> None:
        super().__init__(f"{folder} is in use by {holder}; wait for it, or stop it")
        self.holder = holder


class FolderLock:
    """Holds a work folder: ``with FolderLock(folder): ...``.

    On a disk the system lets go of it when the process ends, however it ends: no lock outlives its run. In a store it
    is a lease (:class:`pipeline.store.lease.Lease`).

    Args:
        folder: exists.
        shared: beside others who share it, but not beside a run.
        wait: until it is free, instead of an error.
        name: of the lock; those of other names do not know of each other.

    Raises:
        FolderInUse: on entry. OSError: a folder that can't be written.
    """

    def __init__(self, folder: Path, *, shared: bool = False, wait: bool = False, name: str = LOCK_FILE) -> None:
        self._path, self._shared, self._wait = folder / name, shared, wait
        self._descriptor = -1
        self._lease = None if is_local(folder) else Lease(self._path, wait=wait)

    def look(self) -> None:
        """Come back if nobody holds it alone, and leave nothing. Raises FolderInUse, OSError."""
        if self._lease is None:
            with FolderLock(self._path.parent, shared=True, wait=self._wait, name=self._path.name):
                return
        try:
            self._lease.look()
        except Held as error:
            raise FolderInUse(self._path.parent, str(error)) from error

    def __enter__(self) -> FolderLock:
        if self._lease is not None:
            try:
                self._lease.share() if self._shared else self._lease.take()
            except Held as error:
                raise FolderInUse(self._path.parent, str(error)) from error
            return self
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            kind = fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX
            fcntl.flock(self._descriptor, kind if self._wait else kind | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 1000)
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                if error.errno in _NOT_SUPPORTED:
                    logger.warning("%s: this file system has no locks; see to it that one run works here", self._path)
                    self._descriptor = -1
                    return self
                raise
            raise FolderInUse(self._path.parent, _shown(holder)) from error
        try:  # an earlier holder's words, if it was killed, are no longer true
            os.ftruncate(self._descriptor, 0)
            if not self._shared:
                os.write(self._descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        except OSError:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.give_back()
        if self._descriptor >= 0:
            if not self._shared:
                with suppress(OSError):
                    os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)


def _shown(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"another process (host {holder['host']}, pid {holder['pid']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
