"""One run on an output folder at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from pathlib import Path
from types import TracebackType

logger = logging.getLogger(__name__)

LOCK_FILE = "lock"
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class FolderInUse(RuntimeError):
    """Another process works on the folder; the message names its host and pid."""


class FolderLock:
    """Holds a work folder: ``with FolderLock(folder): ...``.

    The system lets go of it when the process ends, however it ends: no lock outlives its run.

    Args:
        folder: exists.
        shared: beside others who share it, but not beside a run.

    Raises:
        FolderInUse: on entry.
    """

    def __init__(self, folder: Path, *, shared: bool = False) -> None:
        self._path, self._shared = folder / LOCK_FILE, shared
        self._descriptor = -1

    def __enter__(self) -> FolderLock:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 1000)
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                if error.errno in _NOT_SUPPORTED:
                    logger.warning("%s: this file system has no locks; see to it that one run works here", self._path)
                    self._descriptor = -1
                    return self
                raise
            raise FolderInUse(f"{self._path.parent} is in use by {_shown(holder)}; wait for it, or stop it") from error
        if not self._shared:
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _shown(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"another process (host {holder['host']}, pid {holder['pid']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
