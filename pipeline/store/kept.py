"""Copies of what lies in stores are kept within bounds: those that nobody has in use, the longest unused first.

Each copy is a folder with a mark in it. Whoever uses the copy holds a lock on the mark as long as it lives, and the
mark's time is when it was used last. What is in several copies is one file with links, see :mod:`.copies`.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MARK = ".origin"  # in a copy's folder: the URL that it is of
FILES = "files"  # beside the copies: what they are links to
# A copy that nobody has used for so long goes: as long as systemd keeps what lies in /tmp (tmpfiles.d/tmp.conf: 10d).
KEPT_S = 10 * 24 * 3600.0
# Of the disk, what copies may take together: of 64 GB the weights of a model of 8B in bfloat16 (16 GB).
MOST_OF_DISK = 0.25
# What is younger may be about to be used by somebody who has no lock yet: between the fetching of a file and its link.
_YOUNG_S = 3600.0
_COPY = re.compile("[0-9a-f]{24}")
_SCRATCH = "scratch-"
_held: dict[Path, int] = {}  # descriptors that hold locks, as long as this process lives


def hold(copy: Path) -> bool:
    """Have a copy in use from now on; whether it is still there."""
    mark = copy / MARK
    if copy not in _held:
        try:
            descriptor = os.open(mark, os.O_RDONLY)
        except FileNotFoundError:
            return False
        with suppress(OSError):  # a disk without locks: there nobody removes anything
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        _held[copy] = descriptor
    try:
        same = os.path.samestat(os.fstat(_held[copy]), os.stat(mark))
        os.utime(mark)
    except FileNotFoundError:
        same = False
    if not same:  # removed before the lock was had, or by hand
        os.close(_held.pop(copy))
    return same


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder to make something in; of a process that was killed it goes like a copy that nobody uses."""
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=parent) as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield Path(folder)
        finally:
            os.close(descriptor)


def keep_within_bounds(copies: Path, most_bytes: float | None = None) -> None:
    """Remove what is too old, or more than may lie there. It is for the disk alone: no error ends a command.

    Args:
        copies: the folder of all copies. most_bytes: that they may take; ``None``: of the disk, :data:`MOST_OF_DISK`.
    """
    with suppress(OSError):
        now, most = time.time(), shutil.disk_usage(copies).total * MOST_OF_DISK if most_bytes is None else most_bytes
        for folder in (copies, copies / FILES):
            for left in folder.glob(f"{_SCRATCH}*"):
                if now - _time(left) > _YOUNG_S:
                    _remove(left, left)
        used = sorted((_time(each / MARK), each) for each in copies.iterdir() if _is_copy(each))
        held = {copy: _bytes_of(copy) for _, copy in used}
        in_copies = Counter(file for each in held.values() for file in each)
        n_bytes = sum({file: size for each in held.values() for file, size in each.items()}.values())
        for when, copy in used:
            if (now - when > KEPT_S or n_bytes > most) and _remove(copy, copy / MARK):
                for file, size in held[copy].items():
                    in_copies[file] -= 1
                    n_bytes -= size if not in_copies[file] else 0
        _remove_orphans(copies / FILES, now)


def _is_copy(folder: Path) -> bool:
    """And not, say, a judge's cache, which has no other place."""
    return _COPY.fullmatch(folder.name) is not None and (folder / MARK).is_file()


def _time(path: Path) -> float:
    """When it was used last; what has just gone is not old."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _bytes_of(copy: Path) -> dict[int, int]:
    """Inode -> size of each file in a copy; one that several copies are links to has one inode."""
    sizes = dict[int, int]()
    for folder, _, names in os.walk(copy):
        for name in names:
            with suppress(OSError):
                found = os.lstat(os.path.join(folder, name))
                sizes[found.st_ino] = found.st_size
    return sizes


def _remove(folder: Path, lock: Path) -> bool:
    """Remove a folder, unless somebody has it in use; whether it was. At no moment half of it is there by its name."""
    with suppress(OSError):
        descriptor = os.open(lock, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not folder.name.startswith(_SCRATCH):
                folder = folder.rename(folder.with_name(f"{_SCRATCH}{folder.name}"))
            shutil.rmtree(folder, ignore_errors=True)
            return True
        finally:
            os.close(descriptor)
    return False


def _remove_orphans(files: Path, now: float) -> None:
    """Files that no copy is a link to any more."""
    for path in files.glob("*"):
        with suppress(OSError):
            found = path.lstat()
            if path.is_file() and found.st_nlink == 1 and now - found.st_mtime > _YOUNG_S:
                path.unlink()
