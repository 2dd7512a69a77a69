"""The job as a data set records it (its ``job.json``), and that record as a job to run again.

A data set is published, so its record names no place of this machine: ``output`` is the folder that it lies in, and
what was given by an absolute path stands relative to the job file's folder. Where that is, only the work folder knows
(:func:`pipeline.store.dataset.job_folder`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.job.errors import Problem, show
from pipeline.store.places import expanded

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
    from pipeline.store.manifest import DATASET_MANIFEST

    output = path.absolute().parent
    if path.name != JOB_FILE or not any((output / name).exists() for name in (WORK_FOLDER, RUN_FILE, DATASET_MANIFEST)):
        return None
    folder = job_folder(output / WORK_FOLDER)
    return Record(output, folder or output, folder is not None)


def recorded(job: Job) -> dict[str, Any]:
    """The job's fields for its data set, as JSON has them."""
    # When a run is to stop is no part of what it writes: a time would end the next run at once.
    data: dict[str, Any] = job.model_dump(mode="json") | {"output": _HERE, "deadline": None}
    for holder, name, is_hub_id_else in _places(data):
        holder[name] = _portable(job.folder, holder[name], is_hub_id_else)
    return data


def recorded_text(job: Job) -> str:
    """What stands in ``job.json``."""
    return json.dumps(recorded(job), indent=2, ensure_ascii=True) + "\n"


def missing_places(job: Job, record: Record) -> Problem | None:
    """All that a recorded job names and that is not there, in one line; ``None``: all is."""
    found = [f"{field} {show(place)}" for field, place in _named(job) if not _is_there(job.folder, place)]
    if not found:
        return None
    where = f"in {str(record.folder)!r}"
    if not record.noted:
        where += " (where its job file was, is not known here: the data set has moved, or its .work was deleted)"
    return Problem("files", f"missing {where}: {', '.join(found)}; bring them there, or give the job file instead")


def _places(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, bool]]:
    """Every field that names a place: who holds it, its name, and whether it may be an id of the Hub instead."""
    yield data["model"], "id", True
    for each in data["attributes"]:
        yield each, "adapter", True
        yield each, "reference", True
    yield data["prompts"], "dataset", True
    yield data["prompts"], "file", False
    if "file" in data["personas"]:
        yield data["personas"], "file", False


def _named(job: Job) -> Iterator[tuple[str, str]]:
    """Field and place of all that lies in a folder or a file of the user's."""
    yield "model.id", job.model.id
    for index, each in enumerate(job.attributes):
        yield f"attributes[{index}].adapter", each.adapter or ""
        yield f"attributes[{index}].reference", each.reference or ""
    yield "prompts.dataset", job.prompts.dataset or ""
    if job.prompts.file is not None:
        yield "prompts.file", f"./{job.prompts.file}" if _is_bare(job.prompts.file) else job.prompts.file
    file = getattr(job.personas, "file", None)
    if file is not None:
        yield "personas.file", f"./{file}" if _is_bare(file) else file


def _is_there(folder: Path, place: str) -> bool:
    return not place or (_is_bare(place) and not (folder / place).exists()) or (folder / expanded(place)).exists()


def _is_bare(place: str) -> bool:
    """Whether a place is written as ids of the Hub are, too."""
    return not place.startswith((".", "/", "~"))


def _portable(folder: Path, place: str | None, is_hub_id_else: bool) -> str | None:
    """The place without the machine's own part; a folder that looks like an id of the Hub is marked by ``./``."""
    if not place:
        return place
    if os.path.isabs(place):
        # By way of the real folders, since .. leaves a link by its other side; the last name stays, rows record it.
        path = Path(os.path.normpath(place))
        place = os.path.relpath(Path(os.path.realpath(path.parent)) / path.name, os.path.realpath(folder))
    return f"./{place}" if is_hub_id_else and _is_bare(place) and (folder / place).exists() else place
