"""An output folder looked at before a run, with nothing left in it."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.store.dataset import WORK_FOLDER, is_foreign
from pipeline.store.errors import is_writable, unwritable
from pipeline.store.files import exists, is_file, remove, store_errors, write_bytes
from pipeline.store.lock import LOCK_FILE, FolderInUse, FolderLock
from pipeline.store.places import is_local


def output_problem(output: Path) -> str | None:
    """Why no run could write there, as :func:`pipeline.store.dataset.prepare` would find; no folder is made."""
    try:
        with store_errors(output):
            return _problem(output)
    except OSError as error:
        return f"output: {unwritable(output, error)}"


def _problem(output: Path) -> str | None:
    if is_file(output):
        return f"output: {output} is a file; give a folder"
    work = output / WORK_FOLDER
    if is_foreign(output):
        return f"output: {output} holds files of something else; give an empty or new folder"
    if not is_local(output):
        write_bytes(b".", work / ".probe")
        remove(work / ".probe")
        return None
    there = next(each for each in (work, output, *output.parents) if os.path.lexists(each))
    if not there.is_dir():
        return f"output: {output} can't be made, as {there} is no folder; give another"
    if not is_writable(there):
        return f"output: {unwritable(there)}"
    return None


def in_use(output: Path) -> str | None:
    """Who works on the folder now, if anybody does, as a line for people."""
    work = output / WORK_FOLDER
    try:
        if not exists(work / LOCK_FILE):
            return None
        FolderLock(work).look()
        return None
    except FolderInUse as error:
        return f"output: {error}"
    except OSError:
        return None


def holder(output: Path, *, wait: bool = False) -> str | None:
    """Who works on the folder now: ``another process (host H, pid N)``; ``None``: nobody.

    Args:
        wait: until nobody does, as far as the place tells.

    Raises:
        OSError: it can't be read.
    """
    work = output / WORK_FOLDER
    if not exists(work / LOCK_FILE):
        return None
    try:
        FolderLock(work, wait=wait).look()
        return None
    except FolderInUse as error:
        return error.holder
