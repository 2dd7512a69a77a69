"""The Beam graph that puts a data set's files together: blocks -> measures -> parts -> files, and sums over all."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
from apache_beam.utils.shared import Shared

from pipeline.beam.worker_logs import log_as_worker
from pipeline.events import event
from pipeline.publish.gather import RangeOfRows
from pipeline.publish.join.blocks import Block, Joiner, Joining, Measured, Part, Written, parts_of
from pipeline.publish.sums import to_json
from pipeline.store.copies import here
from pipeline.store.errors import output_errors
from pipeline.store.files import write_bytes
from pipeline.store.places import expanded
from pipeline.store.schema import TABLES

logger = logging.getLogger(__name__)

# In the folder of a join, in the work folder: what is to be put together, and what has come of it.
BLOCKS, METADATA, BROKEN, FOUND = "blocks.parquet", "metadata.parquet", "broken.parquet", "found.json"
_NOTHING = {"generations": TABLES["generations"].empty_table()}  # the driver looks at the rows that are shown


@dataclass(frozen=True)
class JoinGraph:
    """The graph, see :class:`pipeline.beam.work.Graph`. Args: folder: of the join."""

    joining: Joining
    folder: Path

    @property
    def last(self) -> Path:
        return self.folder / FOUND

    def build(self, pipeline: beam.Pipeline, hints: Mapping[str, str]) -> None:
        """Add it to a pipeline; no step needs what the hints ask for, a device."""
        folder, joining = str(self.folder), self.joining.packed()
        measured = (
            pipeline
            | "Data set to come" >> beam.Create([f"{folder}/{BLOCKS}"])
            | "Blocks of ranges" >> beam.FlatMap(blocks_in)
            | "Spread blocks over workers" >> beam.Reshuffle()
            | "Measure every block" >> beam.ParDo(MeasureFn(joining, folder))
            | "Sum up the measures" >> beam.CombineGlobally(together)
        )
        written = (
            measured
            | "Parts of the files" >> beam.FlatMap(parts_of, joining.sizes)
            | "Spread parts over workers" >> beam.Reshuffle()
            | "Write every part" >> beam.ParDo(WritePartFn(joining, folder))
            | "All that was written" >> beam.combiners.ToList()
        )
        _ = measured | "Note what was found" >> beam.Map(
            note_found, written=beam.pvalue.AsSingleton(written), path=f"{folder}/{FOUND}"
        )


class _JoinerFn(beam.DoFn):
    def __init__(self, joining: Joining, folder: str) -> None:
        self._joining, self._folder, self._shared = joining, folder, Shared()

    def setup(self) -> None:
        log_as_worker()
        with output_errors(expanded(self._joining.work)):
            self._joiner: Joiner = self._shared.acquire(self._made)

    def _made(self) -> Joiner:
        return Joiner(self._joining, StoredBlocks(f"{self._folder}/{BLOCKS}"))


class MeasureFn(_JoinerFn):
    """Measure blocks."""

    def process(self, block: Block) -> Iterator[Measured]:
        began = time.monotonic()
        with output_errors(expanded(self._joining.work)):
            found = self._joiner.measured(block)
        ranges = [each.index for each in block.ranges[:1] + block.ranges[-1:]]
        seconds = round(time.monotonic() - began, 3)
        event(logger, "block_measured", ranges=ranges, rows=found.sums.n_rows, seconds=seconds)
        yield found


class WritePartFn(_JoinerFn):
    """Write parts."""

    def process(self, part: Part) -> Iterator[Written]:
        began = time.monotonic()
        with output_errors(expanded(self._joining.work)):
            found = self._joiner.written(part)
        rows = sum(entry["rows"] for piece in found.pieces for entry in piece.values())
        seconds = round(time.monotonic() - began, 3)
        event(logger, "part_written", table=part.table, part=part.index, rows=rows, seconds=seconds)
        yield found


def together(measured: Iterable[Measured | None]) -> Measured | None:
    """Measures of other blocks as one; associative, as CombineGlobally asks."""
    result: Measured | None = None
    for each in measured:
        if result is None:
            result = each
        elif each is not None:
            result.merge(each)
    return result


def note_found(measured: Measured | None, written: Sequence[Written], path: str) -> None:
    """Write what has come of a join, last."""
    assert measured is not None  # one block is always there
    found = {
        "damaged": sorted({*measured.damaged, *(index for each in written for index in each.damaged)}),
        "lost": sorted({*measured.lost, *(name for each in written for name in each.lost)}),
        "digest": to_json(measured.sums.result(_NOTHING, measured.n_rejected)),
        "n_unjudged": measured.n_unjudged,
        "n_new": measured.n_new,
        "new_tokens": measured.new_tokens,
        "written": [[e.table, e.pieces] for e in sorted(written, key=lambda each: (each.table, each.index))],
    }
    place = expanded(path)
    with output_errors(place.parent):
        write_bytes(json.dumps(found).encode(), place)


class StoredBlocks(Sequence[Block]):
    """Blocks in a file, of which only those are read that are asked for. Raises OSError."""

    def __init__(self, path: str) -> None:
        self._file = pq.ParquetFile(here(expanded(path)), memory_map=True)

    def __len__(self) -> int:
        return self._file.metadata.num_rows

    def __getitem__(self, index: Any) -> Any:
        rows = self._file.metadata.row_group(0).num_rows
        return _block_of(self._file.read_row_group(index // rows).column(0)[index % rows].as_py())


def blocks_in(path: str) -> Iterator[Block]:
    """All blocks in a file. Raises OSError."""
    blocks = StoredBlocks(path)
    for index in range(len(blocks)):
        yield blocks[index]


def block_text(block: Block) -> str:
    """A block as its file has it."""
    return json.dumps([block.index, [asdict(each) for each in block.ranges]])


def _block_of(text: str) -> Block:
    index, ranges = json.loads(text)
    return Block(index, tuple(RangeOfRows(**each) for each in ranges))
