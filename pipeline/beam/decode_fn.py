"""The decode stage: the DoFns that turn planned cells into shards of rows."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

import mpg
from personas import Cell
from pipeline.beam.metrics import count_shard
from pipeline.beam.progress import Ticker
from pipeline.beam.travel import packed_plan, unpacked_sources
from pipeline.beam.work import DecodedShard, Places, Shard, WrittenShard
from pipeline.beam.worker_logs import log_as_worker
from pipeline.decode.bank import BATCH_SIZES, ProcessBank
from pipeline.decode.cells import decode_cells
from pipeline.decode.devices import Device, devices_here, named
from pipeline.decode.leases import LeaseError
from pipeline.decode.loading import LoadBank, units_for
from pipeline.decode.machine import note_machine
from pipeline.decode.per_device import PerDevice
from pipeline.decode.rows import to_dead_letter
from pipeline.events import event
from pipeline.plan.cells import Sources
from pipeline.plan.computed_with import ComputedWith
from pipeline.plan.errors import RunError
from pipeline.plan.stored import StoredPlan
from pipeline.store.dataset import TRANSIENT
from pipeline.store.errors import output_errors, refused
from pipeline.store.places import expanded
from pipeline.store.ranges import file_name
from pipeline.store.shards import shard_name, write_rows
from pipeline.store.stop import StopFile

logger = logging.getLogger(__name__)


class DecodeFn(beam.DoFn):
    """Decode every cell of a shard, given by places; a cell that can't be goes to the dead letters, alone.

    After a stop was asked for, the rows in flight are finished and no others are begun.
    Where the machine has devices, it is done on whichever is free, by the process that has loaded there
    (:mod:`pipeline.decode.per_device`); where it has none, by this process.
    """

    def __init__(
        self, plan: StoredPlan, computed_with: ComputedWith, load: LoadBank | None, *, folder: str, ticks: str
    ) -> None:
        self._plan, self._with, self._load = packed_plan(plan), computed_with, load
        self._folder, self._ticks = folder, Path(ticks)
        self._shared, self._shared_grid = Shared(), Shared()

    def setup(self) -> None:
        log_as_worker()
        self._stop = StopFile.of(expanded(self._folder)).watcher()
        self._decode: Callable[[Shard], DecodedShard | None]
        with output_errors(expanded(self._folder)):
            self._here = unpacked_sources(self._plan.rule.sources)
            self._grid: Grid = self._shared_grid.acquire(self._open, tag=self._plan.folder)
        try:
            devices = devices_here()
            if devices:
                units = {named(unit): unit for unit in units_for(self._here, devices)}
                self._decode = PerDevice(
                    lambda name: self._decoder(self._bank(units[name])), list(units), tag=self._tag(), stop=self._stop
                )
            else:
                handle = self._shared.acquire(lambda: self._bank(()), tag=self._plan.rule.sources)
                self._decode = self._decoder(handle)
        except (RunError, LeaseError) as error:
            raise refused(str(error)) from error

    def _open(self) -> Grid:
        from mpg.models.pretrained import load_tokenizer

        return Grid(self._plan.grid(), load_tokenizer(self._here.model))

    def _bank(self, unit: Sequence[Device]) -> ProcessBank:
        threads, batch_size, memory = self._with.threads, self._with.batch_size, expanded(self._folder) / BATCH_SIZES
        try:
            return ProcessBank(
                self._here, threads=threads, batch_size=batch_size, memory=memory, load=self._load, unit=unit
            )
        except RunError as error:
            raise refused(str(error)) from error

    def _decoder(self, handle: ProcessBank) -> ShardDecoder:
        return ShardDecoder(handle, self._here, expanded(self._folder), self._ticks)

    def _tag(self) -> str:
        """Runs of one tag decode the same with the same."""
        return hashlib.sha256(repr((self._plan.rule.sources, self._with, self._folder)).encode()).hexdigest()

    def process(self, places: Places) -> Iterator[DecodedShard]:
        if not self._stop():
            decoded = self._decode(self._shard(places))
            if decoded is not None:
                yield decoded

    def _shard(self, places: Places) -> Shard:
        with output_errors(expanded(self._folder)):
            cells = self._plan.cells(self._grid.cells, places.all(), self._grid.tokenizer)
        if cells[0].row_id != places.first_id:
            raise refused(
                f"plan: this worker (mpg-scr {mpg.__version__}) makes other rows of it than the process that planned "
                "them: install the same version of this project, transformers and the model's files on both"
            )
        return Shard(tuple(cells), places.of_range)


@dataclass(frozen=True)
class Grid:
    """What a process makes planned cells with."""

    cells: Sequence[Cell]
    tokenizer: Any


class ShardDecoder:
    """Decodes shards on a bank, one at a time; it may outlive the graph that it was made in."""

    def __init__(self, handle: ProcessBank, sources: Sources, work: Path, ticks: Path) -> None:
        self._handle, self._sources, self._work, self._ticks = handle, sources, work, ticks
        note_machine(work, handle.device, handle.on)

    def close(self) -> None:
        """Give the bank back, and its memory with it where nobody else has it."""
        from mpg.decoding.resilient import give_memory_back

        del self._handle
        give_memory_back()

    def __call__(self, shard: Shard) -> DecodedShard:
        result = DecodedShard(of_range=shard.of_range, started_s=time.time())
        rows: dict[str, dict[str, Any]] = {}
        stop = StopFile.of(self._work).watcher()
        with (
            self._handle.lock,
            closing(Ticker(self._ticks / "decode")) as decoded,
            closing(Ticker(self._ticks / "rejected")) as rejected,
        ):
            for cell, outcome in decode_cells(
                self._handle, shard.cells, self._sources, stop=stop, on_done=decoded.tick
            ):
                if isinstance(outcome, dict):
                    rows[cell.row_id] = outcome
                else:
                    result.rejected.append(to_dead_letter(cell, outcome.reason, outcome.message))
                    rejected.tick()
        result.rows = [rows[cell.row_id] for cell in shard.cells if cell.row_id in rows]
        order = [cell.row_id for cell in shard.cells]
        result.rejected.sort(key=lambda row: order.index(row["row_id"]))
        result.ended_s = time.time()
        return result


class WriteFn(beam.DoFn):
    """Write a decoded shard's rows and dead letters; only then does the shard count as done."""

    def __init__(self, work: str) -> None:
        self._work = work

    def setup(self) -> None:
        log_as_worker()

    def process(self, shard: DecodedShard) -> Iterator[WrittenShard]:
        work = expanded(self._work)
        path = None
        with output_errors(work):
            if shard.rows:
                path = str(work / "generations" / _name(shard, shard.rows, len(shard.rows)))
                write_rows(shard.rows, "generations", expanded(path))
            # After the rows: killed between the two, the next run makes dead letters again and no row in another batch.
            if shard.rejected:
                n = sum(row["reason"] not in TRANSIENT for row in shard.rejected)
                write_rows(shard.rejected, "rejected", work / "rejected" / _name(shard, shard.rejected, n))
        count_shard(shard)
        _tell(shard, path)
        yield WrittenShard(
            path=path,
            n_rows=len(shard.rows),
            n_rejected=len(shard.rejected),
            n_tokens=sum(row["n_tokens"] for row in shard.rows),
            started_s=shard.started_s,
            ended_s=shard.ended_s,
        )


def _tell(shard: DecodedShard, path: str | None) -> None:
    """Log that a shard is written, and which of its rows are dead letters; what a dead letter says may quote it."""
    for row in shard.rejected:
        event(logger, "row_rejected", row=row["row_id"], reason=row["reason"])
        event(logger, "row_rejected", level=logging.DEBUG, row=row["row_id"], message=row["message"])
    ids = [row["row_id"] for row in shard.rows]
    event(
        logger,
        "shard_written",
        range=shard.of_range or None,
        file=path and expanded(path).name,
        first=ids[0] if ids else None,
        last=ids[-1] if ids else None,
        rows=len(ids),
        rejected=len(shard.rejected),
        tokens=sum(row["n_tokens"] for row in shard.rows),
        seconds=round(shard.ended_s - shard.started_s, 3),
    )


def _name(shard: DecodedShard, rows: Sequence[Mapping[str, Any]], n: int) -> str:
    ids = [row["row_id"] for row in rows]
    return file_name(shard.of_range, n, ids) if shard.of_range else shard_name(ids)
