"""Which interval the rows of an output are of: noted beside them, so that no folder comes to hold those of two."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from pipeline.store.dataset import FOLDERS, JOB_FILE, WORK_FOLDER
from pipeline.store.files import listing, read_text, remove, write_bytes

_FILE = "interval"  # in the work folder


def noted_interval(output: Path) -> str | None:
    """The interval that an output is of; ``None``: of none. Raises OSError."""
    with suppress(FileNotFoundError, NotADirectoryError):
        return read_text(output / WORK_FOLDER / _FILE)
    with suppress(FileNotFoundError, NotADirectoryError, ValueError, TypeError, AttributeError):
        found = json.loads(read_text(output / JOB_FILE)).get("interval")
        return found if isinstance(found, str) else None
    return None


def note_interval(output: Path, interval: str | None) -> None:
    """Note it for the commands that go on. Raises OSError."""
    if interval is None:
        remove(output / WORK_FOLDER / _FILE)
    else:
        write_bytes(interval.encode(), output / WORK_FOLDER / _FILE)


def interval_problem(output: Path, interval: str | None) -> str | None:
    """Why rows of an interval can't be written into an output, in one line; ``None``: they can. Raises OSError."""
    places = [output / WORK_FOLDER / name for name in FOLDERS] + [output / name for name in FOLDERS.values()]
    if not any(listing(place, ".parquet") for place in places):
        return None
    there = noted_interval(output)
    if there == interval:
        return None
    has = "rows of no interval" if there is None else f"rows of the interval {there}"
    wanted = "none" if interval is None else interval
    return f"output: {output} holds {has}, and this job's is {wanted}; give another output, or that interval"
