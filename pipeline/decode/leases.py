"""Which process of this machine has which device: locks on files, which the system lifts when their process ends.

Two locks stand for a device, and for all devices of a *unit*, which is what one model bank lies on: mostly one device.

- its **bank**: whoever holds it may load a bank there, and nobody else; held as long as the bank is loaded.
- its **turn**: whoever holds it may use the bank that is there, wherever it is; held for a task.

Of a unit's locks a process has all or none, and it never waits with one in hand: nothing can lock up.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.store.copies import own_folder

# A unit: by what its devices are called on this machine, in their order.
Unit = tuple[str, ...]
FOLDER_VARIABLE = "MPG_LEASES"
_SHARED_MEMORY = Path("/dev/shm")
# What a Unix socket's address has room for (unix(7)), less a name of :meth:`Leases.address` and its slash.
_DIGITS = 16
_LONGEST_FOLDER = 107 - _DIGITS - 1
_open: set[int] = set()  # descriptors that hold locks


class LeaseError(RuntimeError):
    """Leases can't be kept; the message is one line."""


class Held:
    """Locks that this process holds until :meth:`release`, or its end."""

    def __init__(self, descriptors: list[int]) -> None:
        self._descriptors = descriptors
        _open.update(descriptors)

    def release(self) -> None:
        """Give them up."""
        while self._descriptors:
            descriptor = self._descriptors.pop()
            _open.discard(descriptor)
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()


def _not_in_a_child() -> None:
    """A forked child has the same locks: it must not keep them when this process has ended."""
    for descriptor in _open:
        with suppress(OSError):
            os.close(descriptor)
    _open.clear()


os.register_at_fork(after_in_child=_not_in_a_child)


class Leases:
    """The locks of one machine's devices, in a folder.

    Args:
        folder: of this user's, on this machine; ``None``: :func:`lease_folder`.

    Raises:
        LeaseError: the folder can't be used.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = lease_folder() if folder is None else folder
        _check(self.folder)

    def turn(self, unit: Unit) -> Held | None:
        """The right to use what is loaded on a unit; ``None``: somebody has it."""
        return self._take(self.folder / f"{name}.turn" for name in unit)

    def bank(self, unit: Unit) -> Held | None:
        """The right to load on a unit, for who has its turn; ``None``: somebody has loaded there."""
        return self._take(self.folder / f"{name}.bank" for name in unit)

    def address(self, name: str) -> str:
        """Where the one who has loaded on a device is reached."""
        return str(self.folder / hashlib.sha256(name.encode()).hexdigest()[:_DIGITS])

    def _take(self, paths: Iterable[Path]) -> Held | None:
        found: list[int] = []
        for path in paths:
            try:
                found.append(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                fcntl.flock(found[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                Held(found).release()
                if isinstance(error, BlockingIOError):
                    return None
                raise LeaseError(f"{path}: {error.strerror}; set {FOLDER_VARIABLE} to a folder with locks") from error
        return Held(found)


def lease_folder() -> Path:
    """Where all processes of a user on a machine find each other, whatever their HOME, TMPDIR or working directory.

    It is ``$MPG_LEASES``, or a folder in the machine's shared memory (of one container, where that has its own; where
    several share devices, let ``MPG_LEASES`` name a folder that they share, too).
    """
    asked = os.environ.get(FOLDER_VARIABLE)
    if asked:
        return Path(asked)
    base = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    return base / f"mpg-{os.getuid()}"


def _check(folder: Path) -> None:
    """Make the folder where it is missing; it is this user's alone, since what lies there is obeyed."""
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise LeaseError(f"{folder}: longer than the {_LONGEST_FOLDER} bytes that the addresses of devices leave; "
                         f"set {FOLDER_VARIABLE} to a shorter one")  # fmt: skip
    try:
        own_folder(folder)
    except PermissionError as error:
        raise LeaseError(f"{folder}: {error.strerror}; set {FOLDER_VARIABLE} to one") from error
    except OSError as error:
        raise LeaseError(f"{folder}: {error.strerror}; set {FOLDER_VARIABLE} to a folder of yours") from error
