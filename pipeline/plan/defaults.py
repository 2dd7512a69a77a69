"""A default that was another once: a job file that leaves it unsaid means another law than the rows that it wrote."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from mpg.settings import TABLE
from pipeline.job.model import Job
from pipeline.store.dataset import JOB_FILE
from pipeline.store.files import read_text


def default_problem(output: Path, job: Job) -> str | None:
    """Why a data set can't be gone on with by a file without ``decoder.aggregate``; ``None``: it can, or there is none.

    The sum was the default before the product. A file that names its law, by aggregate or by decoder, means it still.
    """
    decoder = job.decoder
    if TABLE[decoder.name].target is not None or "aggregate" in decoder.model_fields_set:
        return None
    with suppress(OSError, ValueError, KeyError, TypeError):
        there = json.loads(read_text(output / JOB_FILE))["decoder"]["aggregate"]
        if there != decoder.aggregate:
            of = f"rows of {output} are of the {there}, which was the default, and now {decoder.aggregate} is"
            return f"decoder.aggregate: {of}; add aggregate: {there} to go on with them, or give another output"
    return None
