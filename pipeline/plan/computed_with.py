"""What a data set is computed with: decided once, before its first row, and kept.

Sums of floating-point numbers depend on their order. On many processors the last digits of a matrix product depend on
how many threads share it and on how many rows it has, so what decides both is no matter of who happens to run the job:

- **threads** of a decoding pass: the job's ``threads``; where it has none, the cores that this process may use (or
  ``OMP_NUM_THREADS``), shared out among the workers of the run that writes the first row. A lone process takes all
  cores, two on two cores one each.
- **batch_size**: the job's, when the first row is written.
- **rows_per_shard**: the job's; where it has none, what keeps batches full and workers busy, see :func:`shard_size`.
- **dtype**: the job's; ``auto`` is what it stood for then.

Runs that go on, with more workers or fewer, and ``mpg verify`` keep to it. It is in the work folder while a data set
grows, and in its ``run.json`` for good.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.job.model import Job
from pipeline.store.dataset import RUN_FILE, WORK_FOLDER
from pipeline.store.files import listing, read_parquet, read_text, write_bytes

logger = logging.getLogger(__name__)

FILE = "computed-with.json"  # in the work folder


@dataclass(frozen=True)
class ComputedWith:
    """See the module.

    Attributes:
        dtype: ``float32`` or ``bfloat16``.
        threads: of one decoding pass.
        batch_size: rows that a pass begins with; fewer where they do not fit into memory.
        rows_per_shard: cells of the plan that are decoded together.
        attributes: of the job that wrote the first row, in its order, in which a mixture's component is drawn; other
            ones come after them. Empty: nobody noted it.
        regrouped: whether some rows were not decoded together with the plan's others, since a stop had left their shard
            in part, or the plan has grown (or nobody knows).
    """

    dtype: str
    threads: int
    batch_size: int
    rows_per_shard: int
    attributes: tuple[str, ...] = ()
    regrouped: bool = False


# Of a shard that nobody gave a size: batches. As many shards a worker, and their sizes need no care.
_BATCHES, _MANY = 8, 4
_DECIDED = ("dtype", "threads", "batch_size", "rows_per_shard")


def cores() -> int:
    """Cores that this process may use: ``OMP_NUM_THREADS``, or the physical ones that the system lets it have."""
    from joblib import cpu_count

    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(asked) if asked.isdecimal() and int(asked) else int(cpu_count(only_physical_cores=True))


def shard_size(n_cells: int, batch_size: int, workers: int) -> int:
    """Rows that are decoded together and written at once, where the job does not say.

    A shard begins with a full batch and ends with one that drains; what a killed worker had of it is lost. So it has
    eight batches, whatever strengths they mix: a lone worker writes a small job as one shard. Several workers get
    shards of equal size, as many each, of two batches at least (the plan may grow).
    """
    largest = _BATCHES * batch_size
    shards = -(-n_cells // largest)
    if workers == 1 or shards >= _MANY * workers:
        return largest
    size = -(-n_cells // (-(-shards // workers) * workers))
    size = -(-size // batch_size) * batch_size if size >= _MANY * batch_size else size
    return min(largest, max(2 * batch_size, size))


def decided(job: Job, workers: int, n_cells: int) -> ComputedWith:
    """What a job is computed with where nothing is decided yet.

    Args:
        workers: processes that share this machine.
        n_cells: rows of the plan.
    """
    from mpg.models.dtype import pick_dtype

    threads = job.threads or max(1, cores() // workers)
    size = job.rows_per_shard or shard_size(n_cells, job.batch_size, workers)
    return ComputedWith(pick_dtype(job.model.dtype), threads, job.batch_size, size, job.attribute_names)


def kept(output: Path) -> ComputedWith | None:
    """What a data set is computed with, as far as that was decided; ``None``: it is not, or was not noted.

    Raises:
        OSError: it can't be read now.
    """
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        return _read(json.loads(read_text(output / WORK_FOLDER / FILE)))
    with suppress(FileNotFoundError, ValueError, TypeError, KeyError):
        return _read(json.loads(read_text(output / RUN_FILE))["computed_with"])
    return None


def _read(values: dict[str, Any]) -> ComputedWith:
    known = {field.name: values[field.name] for field in fields(ComputedWith) if field.name != "attributes"}
    found = ComputedWith(**known, attributes=tuple(values.get("attributes", ())))
    if min(found.threads, found.batch_size, found.rows_per_shard) < 1:
        raise ValueError("below 1")
    return found


def settled(output: Path, job: Job, workers: int, n_cells: int) -> ComputedWith:
    """What this run computes with: as it was decided for the data set, or, before its first row, as is decided now.

    What the job, or this machine, would have it otherwise is said and not done.

    Args:
        workers: processes that share this machine.
        n_cells: rows of the plan.
    """
    first = next(iter(listing(output / WORK_FOLDER / "generations", ".parquet")), None)
    asked = decided(job, workers, n_cells)
    if first is None:
        return asked
    found = kept(output)
    if found is None:  # rows of a version that noted nothing
        dtype = asked.dtype if job.model.dtype != "auto" else _dtype_of(output / WORK_FOLDER / "generations" / first)
        found = asked = replace(asked, dtype=dtype, regrouped=True)
        logger.warning(
            "it is not noted what the rows in %s were computed with; from now on: %s (ids and float32 texts are the "
            "same whatever it was; last digits of measured columns may differ)",
            output,
            _listed(found, _DECIDED),
        )
    if job.model.dtype != "auto":
        found = replace(found, dtype=job.model.dtype)  # rows of another dtype have ids of their own
    if job.rows_per_shard is None:
        asked = replace(asked, rows_per_shard=found.rows_per_shard)  # nobody asked for another
    other = [name for name in _DECIDED if getattr(found, name) != getattr(asked, name)]
    if other:
        logger.warning(
            "%s, as this data set was begun, and not %s: what its rows are computed with stays the same (to decide "
            "anew, give another output)",
            _listed(found, other),
            _listed(asked, other),
        )
    new = [name for name in job.attribute_names if name not in found.attributes]
    found = replace(found, attributes=(*found.attributes, *new))
    if found.threads * workers > cores():
        logger.warning(
            "%d worker%s x threads %d, where this machine (or OMP_NUM_THREADS) gives %d: slower, but the same digits",
            *(workers, "s" * (workers > 1), found.threads, cores()),
        )
    return found


def keep(output: Path, found: ComputedWith) -> None:
    """Note it for the runs that go on. Raises OSError."""
    write_bytes((json.dumps(asdict(found), indent=2) + "\n").encode(), output / WORK_FOLDER / FILE)


def _listed(values: ComputedWith, names: Sequence[str]) -> str:
    return ", ".join(f"{name} {getattr(values, name)}" for name in names)


def _dtype_of(shard: Path) -> str:
    return str(read_parquet(shard, ["dtype"]).column(0)[0])


# --------------------------------------------------------------------------- machines
