"""A data set's files exchanged for the next ones: all of them, or, after a kill, all of them once a command looks.

The next files are written whole into ``.work/next``. A journal says which they are and which of the present ones go;
from then on the exchange happens, whoever finishes it: each step may be done twice. The manifest comes last. Before
the journal, a killed command leaves the present data set as it is.
"""

from __future__ import annotations

import atexit
import errno
import json
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.store.dataset import WORK_FOLDER, copied
from pipeline.store.files import (
    exists,
    files_below,
    listing,
    make_folder,
    move,
    put_folder,
    read_text,
    remove,
    remove_tree,
    sync_folder,
    write_bytes,
)
from pipeline.store.lock import FolderInUse, FolderLock
from pipeline.store.manifest import DATASET_MANIFEST
from pipeline.store.places import is_local

NEXT = "next"  # in the work folder: the files to come, and below WORK_FOLDER in it those of the work folder
JOURNAL = "exchange.json"  # in the work folder
GATHERING = "gathering"  # lock of those who share a work folder and exchange
_TRIES = 4  # to copy a data set whose files are being exchanged


def next_files(output: Path) -> Path:
    """An empty folder of this machine for the files to come. Raises OSError."""
    if not is_local(output):
        folder = Path(tempfile.mkdtemp(prefix="mpg-next-"))
        atexit.register(remove_tree, folder)  # a data set in size; once in the store, it is gone already
        return folder
    return next_place(output)


def next_place(output: Path) -> Path:
    """The same where the output is, and any worker writes. Raises OSError."""
    folder = output / WORK_FOLDER / NEXT
    remove_tree(folder)
    make_folder(folder)
    return folder


def exchange(
    output: Path,
    folders: Iterable[str],
    *,
    coming: Path | None = None,
    replace: Callable[[Path, Path], None] = move,
) -> None:
    """Put the files of :func:`next_files` into their places, and remove what they replace.

    Args:
        output: folder of the data set; nobody else exchanges its files now, see :func:`finish_exchange`.
        folders: whose Parquet files go unless they are among the next ones.
        coming: the folder of the next files; those of this machine go into a data set's store first. ``None``: they are
            there.
        replace: moves a file.

    Raises:
        OSError: as of any file; what the journal says is done by the next command then.
    """
    files = files_below(output / WORK_FOLDER / NEXT if coming is None else coming)
    if coming is not None and not is_local(output) and is_local(coming):
        try:
            put_folder(coming, output / WORK_FOLDER / NEXT)
        finally:
            remove_tree(coming)
    there = [f"{folder}/{name}" for folder in folders for name in listing(output / folder, ".parquet")]
    journal = {"files": files, "removed": sorted(set(there) - set(files))}
    write_bytes(json.dumps(journal).encode(), output / WORK_FOLDER / JOURNAL)
    _exchange(output, replace)


def finish_exchange(output: Path) -> None:
    """Finish what a killed command began, if one did; from inside the data set's lock. Raises OSError."""
    if exists(output / WORK_FOLDER / JOURNAL):
        _exchange(output, move)


def finish_any_exchange(output: Path) -> None:
    """The same from outside of a lock.

    Raises:
        FolderInUse: another command works there. OSError: a folder that can't be written.
    """
    if exists(output / WORK_FOLDER / JOURNAL):
        with FolderLock(output / WORK_FOLDER), FolderLock(output / WORK_FOLDER, wait=True, name=GATHERING):
            finish_exchange(output)


def whole_here(output: Path) -> Path:
    """A data set's folder itself; of one in a store a copy here of all its files as they were at one moment.

    What a killed command began to exchange is finished first, on a disk, too.

    Raises:
        FolderInUse: another command exchanges its files. OSError: as of any file.
    """
    for left in reversed(range(_TRIES)):
        try:
            finish_any_exchange(output)
        except FolderInUse:  # it may be done with it soon
            if is_local(output) or not left:
                raise
            continue
        if is_local(output):
            return output
        with suppress(FileNotFoundError):
            copy = copied(output)
            if copied(output) == copy and not exists(output / WORK_FOLDER / JOURNAL):
                return copy
        if not exists(output):
            raise FileNotFoundError(errno.ENOENT, "no such folder", str(output))
    raise OSError(errno.EAGAIN, "its files change while they are read", str(output))


def _exchange(output: Path, replace: Callable[[Path, Path], None]) -> None:
    work = output / WORK_FOLDER
    journal, coming = json.loads(read_text(work / JOURNAL)), work / NEXT
    last = [name for name in journal["files"] if name == DATASET_MANIFEST]
    for name in journal["files"]:
        if name not in last:
            _move(coming / name, output / name, replace)
    for name in journal["removed"]:
        remove(output / name)
        with suppress(OSError):  # there are others
            if is_local(output):
                (output / name).parent.rmdir()  # no folder for no rows
    for name in last:
        _move(coming / name, output / name, replace)
    for folder in {(output / name).parent for name in journal["files"]}:
        sync_folder(folder)
    remove(work / JOURNAL)
    remove_tree(coming)


def _move(source: Path, target: Path, replace: Callable[[Path, Path], None]) -> None:
    if exists(source):  # else an earlier try has moved it
        make_folder(target.parent)
        replace(source, target)
