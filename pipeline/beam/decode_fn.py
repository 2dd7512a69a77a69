"""The decode stage: the DoFns that turn planned cells into shards of rows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.utils.shared import Shared

from pipeline.beam.progress import Ticker
from pipeline.beam.work import DecodedShard, Shard, WrittenShard
from pipeline.decode.bank import BATCH_SIZES, ProcessBank
from pipeline.decode.cells import decode_cells
from pipeline.decode.loading import LoadBank
from pipeline.decode.machine import note_machine
from pipeline.decode.rows import to_dead_letter
from pipeline.plan.cells import Sources
from pipeline.plan.computed_with import ComputedWith
from pipeline.plan.errors import RunError
from pipeline.store.errors import output_errors, refused
from pipeline.store.places import expanded
from pipeline.store.shards import shard_name, write_rows
from pipeline.store.stop import StopFile


class DecodeFn(beam.DoFn):
    """Decode every cell of a shard; a cell that can't be goes to the dead letters, alone.

    After a stop was asked for, the rows in flight are finished and no others are begun.
    """

    def __init__(
        self, sources: Sources, computed_with: ComputedWith, load: LoadBank | None, *, folder: str, ticks: str
    ) -> None:
        self._sources, self._with, self._load = sources, computed_with, load
        self._folder, self._ticks = folder, Path(ticks)
        self._shared = Shared()

    def setup(self) -> None:
        work = expanded(self._folder)

        def make() -> ProcessBank:
            threads, batch_size = self._with.threads, self._with.batch_size
            try:
                return ProcessBank(
                    self._sources, threads=threads, batch_size=batch_size, memory=work / BATCH_SIZES, load=self._load
                )
            except RunError as error:
                raise refused(str(error)) from error

        self._handle: ProcessBank = self._shared.acquire(make, tag=self._sources)
        note_machine(work, self._handle.device)
        self._decoded, self._rejected = Ticker(self._ticks / "decode"), Ticker(self._ticks / "rejected")
        self._stop = StopFile.of(work).watcher()

    def teardown(self) -> None:
        self._decoded.close()
        self._rejected.close()

    def process(self, shard: Shard) -> Iterator[DecodedShard]:
        if not self._stop():
            yield self._decode(shard)

    def _decode(self, shard: Shard) -> DecodedShard:
        result = DecodedShard(started_s=time.time())
        rows: dict[str, dict[str, Any]] = {}
        with self._handle.lock:
            for cell, outcome in decode_cells(
                self._handle, shard.cells, self._sources, stop=self._stop, on_done=self._decoded.tick
            ):
                if isinstance(outcome, dict):
                    rows[cell.row_id] = outcome
                else:
                    result.rejected.append(to_dead_letter(cell, outcome.reason, outcome.message))
                    self._rejected.tick()
        result.rows = [rows[cell.row_id] for cell in shard.cells if cell.row_id in rows]
        order = [cell.row_id for cell in shard.cells]
        result.rejected.sort(key=lambda row: order.index(row["row_id"]))
        result.ended_s = time.time()
        return result


class WriteFn(beam.DoFn):
    """Write a decoded shard's rows and dead letters; only then does the shard count as done."""

    def __init__(self, work: str) -> None:
        self._work = work

    def process(self, shard: DecodedShard) -> Iterator[WrittenShard]:
        work = expanded(self._work)
        ids = tuple(row["row_id"] for row in shard.rows)
        path = None
        with output_errors(work):
            if shard.rows:
                path = str(work / "generations" / shard_name(ids))
                write_rows(shard.rows, "generations", expanded(path))
            # After the rows: killed between the two, the next run makes dead letters again and no row in another batch.
            if shard.rejected:
                name = shard_name(row["row_id"] for row in shard.rejected)
                write_rows(shard.rejected, "rejected", work / "rejected" / name)
        yield WrittenShard(
            path=path,
            row_ids=ids,
            n_rejected=len(shard.rejected),
            n_tokens=sum(row["n_tokens"] for row in shard.rows),
            started_s=shard.started_s,
            ended_s=shard.ended_s,
        )
