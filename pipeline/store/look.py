"""An output folder looked at before a run, with nothing left in it."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.store.dataset import WORK_FOLDER, is_foreign
from pipeline.store.errors import is_writable
from pipeline.store.lock import LOCK_FILE, FolderInUse, FolderLock


def output_problem(output: Path) -> str | None:
    """Why no run could write there, as :func:`pipeline.store.dataset.prepare` would find; no folder is made."""
    try:
        if output.exists() and not output.is_dir():
            return f"output: {output} is a file; give a folder"
        work = output / WORK_FOLDER
        if is_foreign(output):
            return f"output: {output} holds files of something else; give an empty or new folder"
        there = next(each for each in (work, output, *output.parents) if os.path.lexists(each))
        if not there.is_dir():
            return f"output: {output} can't be made, as {there} is no folder; give another"
    except OSError as error:
        return f"output: {output} can't be written ({error.strerror}); give a folder you own"
    if not is_writable(there):
        return f"output: {there} can't be written (read-only, or full); make room, or give another folder"
    return None


def in_use(output: Path) -> str | None:
    """Who works on the folder now, if anybody does."""
    work = output / WORK_FOLDER
    if not (work / LOCK_FILE).is_file():
        return None
    try:
        with FolderLock(work, shared=True):
            return None
    except FolderInUse as error:
        return f"output: {error}"
    except OSError:
        return None
