"""How far a data set is, told from its folder alone: from any machine that reaches it, whoever works on it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.store.dataset import RUN_FILE, WORK_FOLDER, is_complete
from pipeline.store.detached import Detached, noted
from pipeline.store.files import exists, listing, read_bytes, read_text, write_bytes
from pipeline.store.look import holder
from pipeline.store.ranges import parsed
from pipeline.store.shards import manifest_of
from pipeline.store.stop import StopFile

PLANNED_FILE = "planned.json"  # in the work folder


@dataclass(frozen=True)
class State:
    """See the module.

    Attributes:
        rows: of the data set; ``None``: none is complete. ended: when the run that completed it did (ISO 8601).
        planned: rows that the last run planned; with ``accept``, those wanted; ``None``: nobody noted it.
        written, rejected: rows and dead letters in the work folder, of earlier plans too. shards: files of rows there.
        at_work: who works there now; ``None``: nobody.
        stop: why whoever works there is to stop, or has stopped; ``None``: nobody asked.
        detached: the job that was detached there and is not finished yet; ``None``: there is none.
    """

    rows: int | None
    ended: str | None
    planned: int | None
    written: int
    rejected: int
    shards: int
    at_work: str | None
    stop: str | None
    detached: Detached | None


def state_of(output: Path) -> State:
    """How far a data set is. A store's answer to who works there takes as long as a beat of the lease, if anybody does.

    Raises:
        OSError: the folder can't be read.
    """
    work = output / WORK_FOLDER
    complete = is_complete(output)
    run: dict[str, Any] = {}
    if complete:
        with suppress(FileNotFoundError, ValueError):
            run = dict(json.loads(read_text(output / RUN_FILE)))
    (written, shards), (rejected, _) = (_rows(work / name) for name in ("generations", "rejected"))
    return State(
        rows=run.get("counts", {}).get("rows") if complete else None,
        ended=run.get("timings", {}).get("ended"),
        planned=_planned(work),
        written=written,
        rejected=rejected,
        shards=shards,
        at_work=holder(output),
        stop=StopFile.of(work).reason(),
        detached=noted(work),
    )


def note_planned(work: Path, rows: int) -> None:
    """Note how many rows a run plans. Raises OSError."""
    write_bytes(json.dumps({"rows": rows}).encode(), work / PLANNED_FILE)


def is_output(output: Path) -> bool:
    """Whether it is the output of a run. Raises OSError."""
    return exists(output / WORK_FOLDER) or is_complete(output)


def _planned(work: Path) -> int | None:
    with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
        return int(json.loads(read_text(work / PLANNED_FILE))["rows"])
    return None


def _rows(folder: Path) -> tuple[int, int]:
    """Rows and files of a folder of shards: by its manifest, else by the files' names, else by their own last words."""
    known, n = manifest_of(folder), 0
    names = listing(folder, ".parquet")
    for name in names:
        named = parsed(name)
        if name in known:
            n += known[name]["rows"]
        elif named is not None:
            n += named.n
        else:
            with suppress(FileNotFoundError):  # just moved
                content = pa.BufferReader(read_bytes(folder / name))
                with suppress(pa.ArrowException, OSError):  # half a file: a run looks after it
                    n += pq.read_metadata(content).num_rows
    return n, len(names)
