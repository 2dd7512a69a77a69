"""A data set's card, written again from what lies in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from pipeline.job.model import Job
from pipeline.publish.card import CARD_FILE, write_card
from pipeline.publish.configs import data_front
from pipeline.publish.summary import summarise
from pipeline.store.dataset import FOLDERS, JOB_FILE, RUN_FILE, WORK_FOLDER, job_folder
from pipeline.store.exchange import GATHERING, exchange, finish_exchange, next_files
from pipeline.store.lock import FolderLock
from pipeline.store.schema import TABLES
from pipeline.store.shards import read_shard, write_bytes


def rewrite_card(folder: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> Path:
    """Write a data set's card again; nothing else of it changes but what is said here.

    Args:
        folder: of the data set, whole or ``partial``.
        changes: to its record, ``run.json``.

    Returns:
        the card.

    Raises:
        FolderInUse: a run or a judge works there. OSError: a file is missing or can't be written.
        ValueError: job or record can't be read. In each case what is there stays.
    """
    work = folder / WORK_FOLDER
    work.mkdir(exist_ok=True)
    with FolderLock(work), FolderLock(work, wait=True, name=GATHERING):
        finish_exchange(folder)
        job, run, tables = read_data_set(folder)
        run |= changes
        coming = next_files(folder)
        summary = summarise(
            tables["generations"],
            tables["judgments"],
            job.attribute_names,
            panel_rule=job.panel,
            judges=set(run["judges"]),
        )
        if changes:
            write_bytes((json.dumps(run, indent=2) + "\n").encode(), coming / RUN_FILE)
        write_card(coming, job, tables, summary, run, data_front(folder), beside=folder)
        exchange(folder, [])
    return folder / CARD_FILE


def read_data_set(folder: Path) -> tuple[Job, dict[str, Any], dict[str, pa.Table]]:
    """Job, record and tables of a data set's folder, the tables under today's schema.

    Raises:
        OSError: a file is missing. ValueError: one can't be read (pydantic.ValidationError, too).
    """
    # What its job's paths are relative to matters to none of what a card says of it.
    known = {"folder": job_folder(folder / WORK_FOLDER) or folder.absolute(), "shipped": {}}
    job = Job.model_validate(json.loads((folder / JOB_FILE).read_text("utf-8")), context=known)
    run: dict[str, Any] = json.loads((folder / RUN_FILE).read_text("utf-8"))
    return job, run, {name: _table(folder, name) for name in FOLDERS}


def _table(folder: Path, name: str) -> pa.Table:
    tables = [read_shard(path, name) for path in sorted((folder / FOLDERS[name]).glob("*.parquet"))]
    return pa.concat_tables(tables) if tables else TABLES[name].empty_table()
