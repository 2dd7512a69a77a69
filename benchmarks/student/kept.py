"""Jobs whose folders are named by what their texts and scores depend on, so that what is there can be kept unread."""

from __future__ import annotations

import hashlib
import json
import logging

from pipeline.compare.banks import keep_loaded
from pipeline.job.model import Job
from pipeline.plan.plan import Plan
from pipeline.run.done import embedded_labels, is_done
from pipeline.run.run import run_job

logger = logging.getLogger(__name__)


def settled(job: Job) -> Job:
    """The job with its output's name completed by a hash of its row ids, its judges and all else that it records.

    Raises:
        RunError: its model or adapters can't be had. JudgeError: a judge can't be.
    """
    labels = embedded_labels(job)
    row_ids = [cell.row_id for cell in Plan.of(job).cells()]
    digest = hashlib.sha256(json.dumps([job.work_hash(), sorted(labels), row_ids]).encode()).hexdigest()
    return job.model_copy(update={"output": f"{job.output}-{digest[:12]}"})


def write(job: Job) -> None:
    """Write a settled job's data set, or go on with it; what is done is not opened. Raises RunError: see `run_job`."""
    if is_done(job):
        return
    result = run_job(job, load=keep_loaded)
    if result.ending.why is not None:
        logger.warning("%s: %s", job.name, result.ending.why)
