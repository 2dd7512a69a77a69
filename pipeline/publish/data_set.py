"""A data set as a whole: tables, card, job, record and manifest are written together and exchanged together.

The present one stays, whole and readable, until the next is complete. What a run that did not end well has so far is a
data set beside it, in the folder ``partial``, and goes when a later run completes. A form to train on stays as long as
the rows and scores that it was made of do.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from evaluation.items import same_judge
from pipeline.job.known import reporting
from pipeline.job.model import Job
from pipeline.job.recorded import recorded_text
from pipeline.plan.split import test_ids
from pipeline.publish.card import write_card
from pipeline.publish.configs import data_front
from pipeline.publish.digest import Seen, digest_of
from pipeline.publish.exports import fitting, say_what_goes
from pipeline.publish.sums import Digest
from pipeline.store.dataset import (
    FOLDERS,
    FORMS,
    JOB_FILE,
    PARTIAL,
    RUN_FILE,
    WORK_FOLDER,
    copied,
    is_complete,
    keep_job_folder,
    write_pieces,
)
from pipeline.store.exchange import exchange, next_files
from pipeline.store.files import exists, put_folder, read_text, remove_tree, write_bytes
from pipeline.store.layout import IsTest, Sizes, among, files_in, ids_in_test, write_dataset
from pipeline.store.manifest import DATASET_MANIFEST, files_of, write_files
from pipeline.store.schema import TABLES
from pipeline.store.shards import read_shard

logger = logging.getLogger(__name__)

Tables = Mapping[str, pa.Table]


def write_rows(output: Path, job: Job, pieces: Iterable[Tables], sizes: Sizes | None = None) -> Path:
    """Write the files of a data set to come, beside the one that is there; returns their folder. Raises OSError.

    Args:
        pieces: see :func:`pipeline.store.dataset.write_pieces`.
    """
    coming = next_files(output)
    write_pieces(coming, pieces, None if job.split is None else partial(test_ids, job.split), sizes)
    return coming


def digest(
    folder: Path,
    job: Job,
    judges: Iterable[str],
    elsewhere: Mapping[str, Path] = MappingProxyType({}),
    seen: Seen | None = None,
) -> Digest:
    """What a data set's card and record say of its rows, see :func:`pipeline.publish.digest.digest_of`."""
    names, labels = job.attribute_names, reporting(job, judges)
    return digest_of(folder, names, labels, panel_rule=job.panel, elsewhere=elsewhere, seen=seen)


def write_data_set(output: Path, coming: Path, job: Job, found: Digest, run: dict[str, Any]) -> None:
    """Make what was written the data set of a folder, in place of what is there.

    Args:
        coming: see :func:`write_rows`. found: of the rows there.

    Raises:
        OSError: what is there stays then.
    """
    forms = fitting(output, files_of(coming))
    gone = say_what_goes(output, forms)
    write_files(coming, files_of(coming) | forms)
    elsewhere = {name.partition("/")[0]: output / name.partition("/")[0] for name in forms}
    write_bytes(recorded_text(job).encode(), coming / JOB_FILE)
    _write_about(coming, job, found, run, elsewhere)
    keep_job_folder(coming / WORK_FOLDER, job.folder)
    exchange(output, [*FOLDERS.values(), *gone], coming=coming)
    remove_tree(output / PARTIAL)


def write_partial(output: Path, coming: Path, job: Job, found: Digest, run: dict[str, Any]) -> Path | None:
    """Put what there is so far beside the data set; returns its folder, ``None`` for nothing. Raises OSError.

    Args:
        coming: see :func:`write_rows`. found: of the rows there.
    """
    target = output / PARTIAL
    if not files_of(coming):
        remove_tree(coming)
        remove_tree(target)
        return None
    _write_about(coming, job, found, run)
    remove_tree(target)
    put_folder(coming, target)
    return target


def _write_about(
    folder: Path,
    job: Job,
    found: Digest,
    run: dict[str, Any],
    elsewhere: Mapping[str, Path] = MappingProxyType({}),
) -> None:
    """Card and record of the tables that were written into a folder.

    Args:
        elsewhere: form to train on -> where its files are.
    """
    _write_record(folder, run)
    write_card(folder, job, found, run, data_front(folder, elsewhere=elsewhere))


def _write_record(folder: Path, run: Mapping[str, Any]) -> None:
    write_bytes((json.dumps(run, indent=2) + "\n").encode(), folder / RUN_FILE)


def write_judgments(
    output: Path,
    judgments: pa.Table,
    calls: Mapping[str, Any],
    own: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
    sizes: Sizes | None = None,
) -> None:
    """Exchange a data set's judgments, and with them what its card, record and manifest say of them.

    Args:
        output: of a run, or any folder that judgments of other texts are kept in.
        judgments: all of them; each is in the split of its text.
        calls: label of a judge that has just judged -> what its calls came to, see ``calls`` in ``run.json``;
            ``None``: it makes none.
        own: of those beside adapters, see ``own_judges`` there.

    Raises:
        OSError: what is there stays then.
    """
    coming, place = next_files(output), FOLDERS["judgments"]
    is_test = among(ids_in_test(output / FOLDERS["generations"]))
    entries = write_dataset(judgments, coming / place, is_test, sizes) if judgments.num_rows else []
    others = {name: entry for name, entry in files_of(output).items() if name.partition("/")[0] not in (place, *FORMS)}
    files = others | {f"{place}/{entry['file']}": entry for entry in entries}
    forms = fitting(output, files)
    gone = say_what_goes(output, forms)
    if exists(output / DATASET_MANIFEST):  # else nobody knows what its other files should be
        write_files(coming, files | forms)
    held = held_in(output) if is_complete(output) else None
    if held is not None:
        job, run = held
        labels = {each for each in run["judges"] if not any(same_judge(each, label) for label in calls)} | {*calls}
        run["judges"] = sorted(labels)
        run["counts"] |= {"judgments": judgments.num_rows, "unscored": judgments.column("score").null_count}
        run["own_judges"] = {**run.get("own_judges", {}), **own}
        for label, found in calls.items():
            if found is not None:
                run.setdefault("calls", {})[label] = dict(found)
        _write_record(coming, run)
        _write_card_of(output, coming, job, run, [place, *gone])
    exchange(output, [place, *gone], coming=coming)


def write_form(output: Path, form: str, table: pa.Table, is_test: IsTest | None, sizes: Sizes | None = None) -> None:
    """Put a form to train on into a data set, in place of the one there; card and manifest know it then.

    Args:
        table: that has rows, see :func:`pipeline.publish.exports.noted`.

    Raises:
        OSError: what is there stays then.
    """
    coming = next_files(output)
    entries = write_dataset(table, coming / form, is_test, sizes)
    others = {name: entry for name, entry in files_of(output).items() if not name.startswith(f"{form}/")}
    write_files(coming, others | {f"{form}/{entry['file']}": entry for entry in entries})
    held = held_in(output)
    if held is not None:
        _write_card_of(output, coming, *held, [form])
    exchange(output, [form], coming=coming)


def refresh_card(output: Path, changes: Mapping[str, Any] = MappingProxyType({})) -> None:
    """Write a data set's README.md anew, from the tables, forms, job and record in its folder.

    Args:
        changes: to its record.

    Raises:
        OSError: what is there stays then.
    """
    coming, held = next_files(output), held_in(output)
    if held is not None:
        job, run = held
        if changes:
            run |= changes
            _write_record(coming, run)
        _write_card_of(output, coming, job, run)
        exchange(output, [], coming=coming)


def held_in(output: Path) -> tuple[Job, dict[str, Any]] | None:
    """A data set's job and record; ``None``, after a warning: they are none, and what is said of it stays.

    Raises:
        OSError: they can't be read now.
    """
    try:
        folder = {"folder": output.absolute(), "shipped": {}}
        job = Job.model_validate(json.loads(read_text(output / JOB_FILE)), context=folder)
        run: dict[str, Any] = json.loads(read_text(output / RUN_FILE))
        run["judges"] = list(run["judges"])
        run["counts"] = dict(run["counts"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, ValidationError) as error:
        logger.warning("%s: its job or record can't be read (%s): card and record stay as they are", output, error)
        return None
    return job, run


def _write_card_of(
    output: Path,
    coming: Path,
    job: Job,
    run: dict[str, Any],
    exchanged: Sequence[str] = (),
) -> None:
    """The card of a data set of whose folders some are being exchanged.

    Args:
        coming: folder of the files to come; the card goes there. exchanged: folders whose files are there now.
    """
    there, elsewhere = copied(output), {place: coming / place for place in exchanged}
    found, front = digest(there, job, run["judges"], elsewhere), data_front(there, elsewhere=elsewhere)
    write_card(coming, job, found, run, front, beside=there)


def table_of(output: Path, name: str) -> pa.Table:
    """All rows of one of a data set's tables, those of train first. Raises OSError, ValueError: a damaged file."""
    tables = [read_shard(path, name) for path in files_in(output / FOLDERS[name])]
    return pa.concat_tables(tables) if tables else TABLES[name].empty_table()
