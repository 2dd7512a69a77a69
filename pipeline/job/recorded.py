"""The job as a data set records it (its ``job.json``), and that record as a job to run again.

A data set is published, so its record names no place of this machine: ``output`` is the folder that it lies in, and
what was given by an absolute path stands relative to the job file's folder. Where that is, only the work folder knows
(:func:`pipeline.store.dataset.job_folder`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personas.attributes import KNOWN
from personas.words import show
from pipeline.job.errors import Problem
from pipeline.store.files import exists
from pipeline.store.places import is_local, is_url, joined

if TYPE_CHECKING:
    from pipeline.job.model import Job

_HERE = "."


@dataclass(frozen=True)
class Record:
    """A data set's ``job.json``.

    Attributes:
        output: the data set's folder.
        folder: that the job's paths are relative to.
        noted: whether that was noted; else it is the data set's own folder, for want of a better one.
    """

    output: Path
    folder: Path
    noted: bool


def record_of(path: Path) -> Record | None:
    """What a job file is the record of; ``None``: it is a job file as others."""
    if path.suffix != ".json":
        return None
    from pipeline.store.dataset import JOB_FILE, RUN_FILE, WORK_FOLDER, job_folder
    from pipeline.store.exchange import finish_any_exchange
    from pipeline.store.lock import FolderInUse
    from pipeline.store.manifest import DATASET_MANIFEST

    output = path.absolute().parent
    if path.name != JOB_FILE or not any((output / name).exists() for name in (WORK_FOLDER, RUN_FILE, DATASET_MANIFEST)):
        return None
    with suppress(FolderInUse, OSError):  # else the record would be that of a data set on its way out
        finish_any_exchange(output)
    folder = job_folder(output / WORK_FOLDER)
    return Record(output, folder or output, folder is not None)


def recorded(job: Job) -> dict[str, Any]:
    """The job's fields for its data set, as JSON has them."""
    # When a run is to stop is no part of what it writes: a time would end the next run at once.
    data: dict[str, Any] = job.model_dump(mode="json") | {"output": _HERE, "deadline": None}
    for entry, described in zip(data["attributes"], job.described_attributes(), strict=True):
        for name in ("description", "opposite"):  # of the adapter's card, which may not be there where others judge
            said = getattr(described, name)
            if entry["adapter"] and entry[name] is None and said != getattr(KNOWN.get(described.name), name, None):
                entry[name] = said or None
    for _, holder, name in named_places(data):
        if holder[name]:
            holder[name] = _portable(job.folder, holder[name])
    return data


def recorded_text(job: Job) -> str:
    """What stands in ``job.json``."""
    return json.dumps(recorded(job), indent=2) + "\n"


def missing_places(job: Job, record: Record) -> Problem | None:
    """All that a recorded job names and that is not there, in one line; ``None``: all is."""
    found = []
    for field, holder, name in named_places(job.model_dump(mode="json")):
        place = holder[name]
        may_be_an_id = name not in ("file", "template") and _is_bare(place or "")
        if place and not may_be_an_id and not exists(joined(job.folder, place)):
            found.append(f"{field}.{name} {show(place)}")
    if not found:
        return None
    where = f"in {str(record.folder)!r}"
    if not record.noted:
        where += " (where its job file was, is not known here: the data set has moved, or its .work was deleted)"
    return Problem("files", f"missing {where}: {', '.join(found)}; bring them there, or give the job file instead")


def files_needed(job: Job) -> list[str]:
    """What a record names that is no id of the Hub and no model that is embedded: whoever runs it needs these, too."""
    found = []
    for _, holder, name in named_places(recorded(job)):
        place = holder[name] or ""
        if place and (name in ("file", "template") or not _is_bare(place)):
            found.append(place.removeprefix("./"))
    return list(dict.fromkeys(found))


def named_places(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every field that names a place: of which section, the section, and its name there; files are no ids."""
    yield "model", data["model"], "id"
    for index, each in enumerate(data["attributes"]):
        yield f"attributes[{index}]", each, "adapter"
        yield f"attributes[{index}]", each, "reference"
    for name in ("dataset", "file"):
        yield "prompts", data["prompts"], name
    if "file" in data["personas"]:
        yield "personas", data["personas"], "file"
    if "card" in data:  # not in older records
        yield "card", data["card"], "template"


def _is_bare(place: str) -> bool:
    """Whether a place is written as ids of the Hub are, too."""
    return not place.startswith((".", "/", "~")) and not is_url(place)


def _portable(folder: Path, place: str) -> str:
    """The place without the machine's own part; what is there and looks like an id of the Hub is marked by ``./``."""
    if os.path.isabs(place) and is_local(folder):
        # By way of the real folders, since .. leaves a link by its other side; the last name stays, rows record it.
        path = Path(os.path.normpath(place))
        place = os.path.relpath(Path(os.path.realpath(path.parent)) / path.name, os.path.realpath(folder))
    return f"./{place}" if _is_bare(place) and not is_url(place) and exists(joined(folder, place)) else place
