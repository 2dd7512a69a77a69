"""Errors that have to come out of a Beam worker as one line.

Beam hands a worker's exception to the driver as the text of its traceback, so the line travels between two marks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.store.files import remove, store_errors, write_bytes
from pipeline.store.places import is_local

_BEGIN, _REFUSED, _END = "<<mpg: ", "<<mpg, refused: ", " :mpg>>"


class OutputError(RuntimeError):
    """The output folder can't be written; the message is one line."""


class TooNew(OutputError):
    """What is there was written by a later version of this project."""


@contextmanager
def output_errors(folder: Path) -> Iterator[None]:
    """Turn an operating system's error about a folder's files into one line with a remedy.

    Raises:
        OutputError: in place of an OSError.
    """
    try:
        with store_errors(folder):
            yield
    except OSError as error:
        raise OutputError(f"{_BEGIN}output: {what_happened(error, folder)}{_END}") from error


def what_happened(error: OSError, folder: Path) -> str:
    """The error in a line: where, what, and what to do."""
    what = (error.strerror or str(error) or type(error).__name__).lower()
    if not is_local(folder):
        remedy = "see to its address, keys and rights"
    elif os.path.lexists(folder) and not folder.is_dir():
        return f"{folder}: is no folder, and files go into one; name another"
    elif not folder.is_dir():
        what, remedy = "is gone", "bring it back, or name another folder"
    else:
        remedy = "make room, or see to it that it can be written"
    return f"{error.filename or folder}: {what}; {remedy}; what was written before is kept, the same command goes on"


def line_in(error: BaseException | str) -> str | None:
    """The marked line in an error or in the text of one, if there is any."""
    return _between(_BEGIN, error)


def refused(line: str) -> RuntimeError:
    """An error for a worker to raise; its line, on what was refused and why, is found by :func:`refusal_in`."""
    return RuntimeError(f"{_REFUSED}{line}{_END}")


def refusal_in(error: BaseException | str) -> str | None:
    """The line of :func:`refused` in an error or in the text of one, if there is any."""
    return _between(_REFUSED, error)


def _between(begin: str, error: BaseException | str) -> str | None:
    found = re.search(re.escape(begin) + r"(.*?)" + re.escape(_END), str(error), re.DOTALL)
    return found.group(1) if found else None


def readable(error: BaseException | str) -> str:
    """The marked line of an error, else the last line of its text."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return line_in(error) or lines[-1].strip()


def unwritable(place: Path, error: OSError | None = None) -> str:
    """Why a folder, or a place in a store, can't be written, and the remedy; without an error a file can't be made."""
    if not is_local(place):
        why, remedy = "no file can be made there", "see to its address, keys and rights"
    else:
        why, remedy = "read-only, or full", "make room, or give another folder"
    if error is not None:
        why = error.strerror or str(error)
        remedy = remedy if not is_local(place) else "give a folder you own"
    return f"{place} can't be written ({why}); {remedy}"


def is_writable(folder: Path) -> bool:
    """Whether a file can be made there; asked by making one, since permissions don't tell root of a read-only disk."""
    probe = folder / f".probe-{os.getpid()}"
    if not is_local(folder):
        try:
            write_bytes(b".", probe)
            remove(probe)
        except OSError:
            return False
        return True
    try:
        probe.write_bytes(b"." * 4096)  # an empty file fits on a full disk
    except OSError:
        return False
    finally:
        with suppress(OSError):
            probe.unlink()
    return True
