"""A default that was another once: a job file that leaves it unsaid means another law than the rows that it wrote."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from mpg.settings import TABLE
from pipeline.job.model import Job
from pipeline.plan.cells import config_hash, identity
from pipeline.plan.sources import decoder_settings
from pipeline.store.dataset import JOB_FILE, WORK_FOLDER
from pipeline.store.files import listing, read_parquet, read_text

_FORMER = "sum"
_SETTINGS = ["attributes", "strengths", "dtype", "config_hash"]


def default_problem(output: Path, job: Job) -> str | None:
    """Why a data set can't be gone on with by a file without ``decoder.aggregate``; ``None``: it can, or there is none.

    The sum was the default before the product. A file that names its law, by aggregate or by decoder, means it still.
    """
    decoder = job.decoder
    if TABLE[decoder.name].target is not None or "aggregate" in decoder.model_fields_set:
        return None
    there = _recorded(output) or _of_rows(output, job)
    if there is None or there == decoder.aggregate:
        return None
    of = f"rows of {output} are of the {there}, which was the default, and now {decoder.aggregate} is"
    return f"decoder.aggregate: {of}; add aggregate: {there} to go on with them, or give another output"


def _recorded(output: Path) -> str | None:
    """As the data set says; ``None``: there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(read_text(output / JOB_FILE))["decoder"]["aggregate"])
    return None


def _of_rows(output: Path, job: Job) -> str | None:
    """The former default, if rows that no data set was made of yet have otherwise the job's settings; else ``None``."""
    row = next(_weighted_rows(output / WORK_FOLDER / "generations"), None)
    if row is None:
        return None
    names = tuple(row["attributes"])
    strengths = dict(zip(names, row["strengths"], strict=True))
    settings = replace(decoder_settings(job), aggregate=_FORMER, strength=strengths)
    return _FORMER if row["config_hash"] == config_hash(identity(settings, row["dtype"], names)) else None


def _weighted_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows that aren't of the reference alone, of shards that can be read; who can't list them is told elsewhere."""
    names: Iterable[str] = ()
    with suppress(OSError):
        names = listing(folder, ".parquet")
    for name in names:
        with suppress(OSError, pa.ArrowException):
            yield from (row for row in read_parquet(folder / name, _SETTINGS).to_pylist() if row["attributes"])
