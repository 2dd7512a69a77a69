"""The licence of a data set that is there, and its card with a licence that somebody states."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from pipeline.job.model import Job
from pipeline.publish.licence_rules import PARTS, STATED, LicenceError, Part, Resolved, recorded, resolved, state
from pipeline.publish.licence_sources import collect, of_judges
from pipeline.store.dataset import FOLDERS, JOB_FILE, RUN_FILE, WORK_FOLDER, job_folder
from pipeline.store.exchange import whole_here
from pipeline.store.files import origin_of

__all__ = ["LicenceError", "Part", "Resolved", "licence_of", "restate"]


def licence_of(
    folder: Path, stated: str | None = None, *, name: str | None = None, link: str | None = None
) -> Resolved:
    """The licence of a data set.

    Args:
        folder: of the data set, on this machine: its own, or a copy of one in a store.
        stated: what its publisher states; ``None``: what was stated before (:func:`restate`), what the job states
            (``card.license``), or what follows from its parts. Only of a data set whose run kept no record of its
            parts may the Hub be asked.
        name, link: of ``other``.

    Raises:
        LicenceError: it can't be told, or is stated in a way that can't be; a line for each obstacle.
    """
    job, run = _read(folder)
    parts = _parts(folder, job, run)
    if stated is not None:
        return state(stated, name, link, parts, field="--license")
    return resolved(parts, run, job)


def restate(folder: Path, license: str | None = None, *, name: str | None = None, link: str | None = None) -> Resolved:
    """Write a data set's card again with its licence, at once or not at all.

    Args:
        license: what is stated for it, which its record keeps. A later ``mpg judge`` keeps it, too; a later
            ``mpg run``, which may have made it of other parts, does not. ``None``: as :func:`licence_of` finds it; the
            record keeps the parts' licences then, where it did not have them.
        name, link: of ``other``.

    Raises:
        LicenceError: it can't be told, or is stated in a way that can't be. FolderInUse: a run or a judge works there.
        OSError: a folder that can't be written. What is there stays then.
    """
    from pipeline.publish.rewrite import rewrite_card  # which imports all that a card is made with

    copy = whole_here(folder)
    job, run = _read(copy)
    parts = _parts(copy, job, run)
    changes: dict[str, Any] = {}
    if license is None:
        found = resolved(parts, run, job)
    else:
        found = state(license, name, link, parts, field="--license")
        changes[STATED] = found.front
    if recorded(run) is None:
        changes[PARTS] = [asdict(each) for each in collect(job, None, run)]
    rewrite_card(folder, changes)
    return found


def _parts(folder: Path, job: Job, run: Mapping[str, Any]) -> tuple[Part, ...]:
    """What a data set was made with: as its run recorded it, else as the job names it."""
    kept = recorded(run)
    labels = {str(label) for label in run.get("judges", ())}
    for file in sorted((folder / FOLDERS["judgments"]).glob("*.parquet")):
        labels |= set(pc.unique(pq.read_table(file, columns=["judge"]).column("judge")).to_pylist())
    return (*(collect(job, None, run) if kept is None else kept), *of_judges(labels, job, run.get("calls") or {}))


def _read(folder: Path) -> tuple[Job, dict[str, Any]]:
    """Job and record of a data set. Raises LicenceError."""
    file = RUN_FILE
    try:
        run = json.loads((folder / RUN_FILE).read_text("utf-8"))
        file = JOB_FILE
        known = {"folder": job_folder(origin_of(folder) / WORK_FOLDER) or folder.absolute(), "shipped": {}}
        return Job.model_validate(json.loads((folder / JOB_FILE).read_text("utf-8")), context=known), dict(run)
    except (OSError, ValueError, TypeError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "damaged, or of another version"
        raise LicenceError([f"{file}: can't be read in {folder} ({why}); run or fetch the data set again"]) from error
