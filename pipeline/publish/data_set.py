"""A data set as a whole: tables, card, job, record and manifest are written together and exchanged together.

The present one stays, whole and readable, until the next is complete. What a run that did not end well has so far is a
data set beside it, in the folder ``partial``, and goes when a later run completes.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from evaluation.items import same_judge
from pipeline.job.model import Job
from pipeline.job.recorded import recorded_text
from pipeline.publish.card import write_card
from pipeline.publish.configs import data_front
from pipeline.publish.summary import Summary, summarise
from pipeline.store.dataset import (
    FOLDERS,
    JOB_FILE,
    PARTIAL,
    RUN_FILE,
    WORK_FOLDER,
    is_complete,
    keep_job_folder,
    write_tables,
)
from pipeline.store.exchange import exchange, next_files
from pipeline.store.manifest import DATASET_MANIFEST, files_of, write_files
from pipeline.store.schema import TABLES
from pipeline.store.shards import read_shard, write_bytes, write_dataset

logger = logging.getLogger(__name__)

Tables = Mapping[str, pa.Table]


def write_data_set(output: Path, job: Job, tables: Tables, summary: Summary, run: dict[str, Any]) -> None:
    """Make these the data set of a folder, in place of what is there. Raises OSError; what is there stays then."""
    coming = next_files(output)
    write_bytes(recorded_text(job).encode(), coming / JOB_FILE)
    _write(coming, job, tables, summary, run)
    keep_job_folder(coming / WORK_FOLDER, job.folder)
    exchange(output, FOLDERS.values())
    shutil.rmtree(output / PARTIAL, ignore_errors=True)


def write_partial(output: Path, job: Job, tables: Tables, summary: Summary, run: dict[str, Any]) -> Path | None:
    """Put what there is so far beside the data set; returns its folder, ``None`` for nothing. Raises OSError."""
    target = output / PARTIAL
    if not any(table.num_rows for table in tables.values()):
        shutil.rmtree(target, ignore_errors=True)
        return None
    coming = next_files(output)
    _write(coming, job, tables, summary, run)
    shutil.rmtree(target, ignore_errors=True)
    coming.rename(target)
    return target


def _write(folder: Path, job: Job, tables: Tables, summary: Summary, run: dict[str, Any]) -> None:
    write_tables(folder, tables)
    _write_record(folder, run)
    write_card(folder, job, tables, summary, run)


def _write_record(folder: Path, run: Mapping[str, Any]) -> None:
    write_bytes((json.dumps(run, indent=2) + "\n").encode(), folder / RUN_FILE)


def write_judgments(
    output: Path,
    judgments: pa.Table,
    calls: Mapping[str, Any],
    own: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> None:
    """Exchange a data set's judgments, and with them what its card, record and manifest say of them.

    Args:
        output: of a run, or any folder that judgments of other texts are kept in.
        judgments: all of them.
        calls: label of a judge that has just judged -> what its calls came to, see ``calls`` in ``run.json``;
            ``None``: it makes none.
        own: of those beside adapters, see ``own_judges`` there.

    Raises:
        OSError: what is there stays then.
    """
    coming, place = next_files(output), FOLDERS["judgments"]
    entries = write_dataset(judgments, coming / place) if judgments.num_rows else []
    others = {name: entry for name, entry in files_of(output).items() if not name.startswith(f"{place}/")}
    if (output / DATASET_MANIFEST).is_file():  # else nobody knows what its other files should be
        write_files(coming, others | {f"{place}/{entry['file']}": entry for entry in entries})
    if is_complete(output):
        _write_words(coming, output, judgments, calls, own)
    exchange(output, [place])


def _write_words(
    coming: Path, output: Path, judgments: pa.Table, calls: Mapping[str, Any], own: Mapping[str, Mapping[str, str]]
) -> None:
    """Card and record of a data set with other judgments."""
    try:
        folder = {"folder": output.absolute(), "shipped": {}}
        job = Job.model_validate(json.loads((output / JOB_FILE).read_text("utf-8")), context=folder)
        run: dict[str, Any] = json.loads((output / RUN_FILE).read_text("utf-8"))
        labels = {each for each in run["judges"] if not any(same_judge(each, label) for label in calls)} | {*calls}
    except (OSError, ValueError, KeyError, ValidationError) as error:
        logger.warning("%s: its job or record can't be read (%s): card and record stay as they are", output, error)
        return
    tables = {name: _table(output, name) for name in FOLDERS} | {"judgments": judgments}
    run["judges"] = sorted(labels)
    run["counts"] |= {"judgments": judgments.num_rows, "unscored": judgments.column("score").null_count}
    run["own_judges"] = {**run.get("own_judges", {}), **own}
    for label, found in calls.items():
        if found is not None:
            run.setdefault("calls", {})[label] = dict(found)
    summary = summarise(tables["generations"], judgments, job.attribute_names, panel_rule=job.panel, judges=set(labels))
    data = data_front(output, elsewhere={FOLDERS["judgments"]: coming / FOLDERS["judgments"]})
    _write_record(coming, run)
    write_card(coming, job, tables, summary, run, data, beside=output)


def _table(output: Path, name: str) -> pa.Table:
    tables = [read_shard(path, name) for path in sorted((output / FOLDERS[name]).glob("*.parquet"))]
    return pa.concat_tables(tables) if tables else TABLES[name].empty_table()
