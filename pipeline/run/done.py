"""Whether a job's data set is there as a run would leave it, so that none is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from evaluation.items import label_of
from pipeline.exit_status import ExitStatus
from pipeline.job.adapters import own_judges
from pipeline.job.known import assignments, is_remote
from pipeline.job.model import Job
from pipeline.job.recorded import recorded
from pipeline.judging.registry import load_assigned
from pipeline.plan.errors import RunError
from pipeline.plan.plan import Plan
from pipeline.store.dataset import FOLDERS, JOB_FILE, RUN_FILE
from pipeline.store.files import read_text
from pipeline.store.layout import files_in
from pipeline.store.shards import read_shard


def is_done(job: Job) -> bool:
    """Whether it is complete, with all scores that can be had, and no text or score of it would be another now.

    Rows are told by their ids, which depend on prompts, personas, settings, and the weights of model and adapters;
    embedded judges by their labels, of which their weights are a part. A damaged or foreign folder is not done.
    """
    output = Path(job.output_folder)
    try:
        # Read as a job: fields that came after the record was written stand in it at their defaults, or at the job's.
        same = recorded(job.changed(**json.loads(read_text(output / JOB_FILE)))) == recorded(job)
        record = json.loads(read_text(output / RUN_FILE))
        if not (same and record["ended"]["complete"] and record["ended"]["status"] == ExitStatus.DONE):
            return False
        every, there = job, set(_row_ids(output))
        if job.accept is not None:  # which of its candidates are kept judges have settled
            every = job.changed(accept=None, samples_per_cell=job.accept.max_candidates)
        planned = {cell.row_id for cell in Plan.of(every, record["dtype"], job.attribute_names).cells()}
        return (planned == there if job.accept is None else planned >= there) and set(embedded_labels(job)) <= set(
            record["judges"]
        )
    except (OSError, ValueError, KeyError, TypeError, RunError):
        return False


def _row_ids(output: Path) -> Iterator[str]:
    for name in ("generations", "rejected"):
        for path in files_in(output / FOLDERS[name]):
            yield from read_shard(path, name, ["row_id"]).column("row_id").to_pylist()


def embedded_labels(job: Job) -> Iterator[str]:
    """Of the judges that are not behind an endpoint: name and version. Raises JudgeError: one can't be loaded."""
    for each in assignments(job.judges, job.attribute_names, own_judges(job)):
        if not is_remote(each.spec):
            yield label_of(load_assigned(each))
