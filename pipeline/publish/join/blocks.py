"""The files of a data set made by several workers: what each of them reads, measures and writes.

A *block* is some consecutive ranges of the plan. Workers measure every block (what its rows take, and sums over them),
in any order; then what is before each block is known, and so which blocks every file is of, and workers write the
files, in any order. A block is read twice or thrice, and no more than one file's rows are held.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from mpg.models.pretrained import load_tokenizer
from pipeline.beam.travel import packed_plan, unpacked_sources
from pipeline.job.split import Split
from pipeline.judging.asked import Asked
from pipeline.plan.split import test_ids
from pipeline.plan.stored import StoredPlan
from pipeline.publish.gather import RangeOfRows, ReadRange, read_range, with_broken
from pipeline.publish.of_source import Metadata
from pipeline.publish.sums import Sums
from pipeline.store.dataset import FOLDERS
from pipeline.store.files import copy, read_parquet
from pipeline.store.layout import Entry, Sizes, among, last_range, range_of, row_bits, which_are_test, write_range
from pipeline.store.places import expanded, is_local

# Of a row's place, for the number of its block: more rows than a block has.
_ROWS_BITS = 40


@dataclass(frozen=True)
class Joining:
    """What all workers know of a data set that they put together.

    Attributes:
        plan: of its rows. size: cells of a range. work: its work folder.
        to: folder of the files to come, of this attempt alone: workers of another may be alive.
        metadata: Parquet file of :func:`pipeline.publish.of_source.metadata_of` its prompts. broken: of their source's
            rows that are no prompts, as rows of the table `rejected`.
        attributes, judges, panel_rule: see :func:`pipeline.publish.digest.digest_of`. asked: its judges.
    """

    plan: StoredPlan
    size: int
    work: str
    to: str
    metadata: str
    broken: str
    split: Split | None
    attributes: tuple[str, ...]
    judges: frozenset[str]
    panel_rule: str
    asked: Asked
    sizes: Sizes = field(default_factory=Sizes)

    def packed(self) -> Joining:
        """As it travels."""
        return replace(self, plan=packed_plan(self.plan))


@dataclass(frozen=True)
class Block:
    """Consecutive ranges, numbered from 0 in the plan's order; of the last, which has none, are the rows that are no
    prompts."""

    index: int
    ranges: tuple[RangeOfRows, ...]


@dataclass
class Measured:
    """Of some blocks.

    Attributes:
        bits: block -> table -> what its rows take, see :func:`pipeline.store.layout.row_bits`.
        damaged: ranges that have less than their files' names say. lost: files that were set aside.
        n_unjudged: rows that some judge has not looked at. n_rejected: dead letters that were cells.
        n_new, new_tokens: rows that this run has written.
    """

    bits: dict[int, dict[str, int]]
    sums: Sums
    damaged: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    n_unjudged: int = 0
    n_rejected: int = 0
    n_new: int = 0
    new_tokens: int = 0

    def merge(self, other: Measured) -> None:
        """All of another's, of other blocks."""
        self.bits |= other.bits
        self.sums.merge(other.sums)
        self.damaged += other.damaged
        self.lost += other.lost
        self.n_unjudged += other.n_unjudged
        self.n_rejected += other.n_rejected
        self.n_new += other.n_new
        self.new_tokens += other.new_tokens


@dataclass(frozen=True)
class Part:
    """One range of a table's rows, by what they take: a file of each split, or more where rows stand alone.

    Attributes:
        blocks: that it has rows of, each with what the table's rows before it take, in bits.
        last: whether it is the table's last.
    """

    table: str
    index: int
    last: bool
    blocks: tuple[tuple[int, int], ...]


def parts_of(measured: Measured, sizes: Sizes) -> Iterator[Part]:
    """The parts of all tables; of damaged blocks none."""
    for table in FOLDERS if not measured.damaged else ():
        taken = [(index, measured.bits[index][table]) for index in sorted(measured.bits)]
        ends = list(accumulate(bits for _, bits in taken))
        last, width = last_range(ends[-1], sizes), 8 * sizes.range_bytes
        found: dict[int, list[tuple[int, int]]] = {}
        for (block, bits), end in zip(taken, ends, strict=True):
            if bits:
                for index in range(min(last, (end - bits) // width), min(last, (end - 1) // width) + 1):
                    found.setdefault(index, []).append((block, end - bits))
        for index, blocks in found.items():
            yield Part(table, index, index == last, tuple(blocks))


@dataclass
class Written:
    """What came of a part.

    Attributes:
        pieces: see :func:`pipeline.store.layout.write_range`; none where ranges were found damaged only now.
        damaged, lost: see :class:`Measured`.
    """

    table: str
    index: int
    pieces: list[dict[str, Entry]] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Joiner:
    """A worker's side. Args: blocks: by index."""

    def __init__(self, joining: Joining, blocks: Sequence[Block]) -> None:
        self._joining, self._blocks, self._work = joining, blocks, expanded(joining.work)
        self._one = Lock()

    def measured(self, block: Block) -> Measured:
        """One block, measured. Raises OSError, TooNew."""
        joining = self._joining
        tables, found = self._rows(block)
        rows, judgments = tables["generations"], tables["judgments"]
        sums = Sums(joining.attributes, joining.judges, panel_rule=joining.panel_rule)
        ids = test_ids(joining.split, rows)
        for side, (mine, theirs) in enumerate(zip(_sides(rows, ids), _sides(judgments, ids), strict=True)):
            sums.add(mine, theirs, (side, block.index << _ROWS_BITS))
        prompts = rows.column("prompt_id")
        # All rows to one prompt are neighbours in the plan: only the first and the last have others in other blocks.
        sums.close({prompts[0].as_py(), prompts[-1].as_py()} if rows.num_rows else ())
        dead = tables["rejected"].column("row_id")
        return Measured(
            bits={block.index: {name: int(row_bits(table).sum()) for name, table in tables.items()}},
            sums=sums,
            damaged=[each.of.index for each in found if each.is_damaged],
            lost=[name for each in found for name in each.lost],
            n_unjudged=joining.asked.unjudged(judgments, rows.column("row_id").to_pylist()),
            n_rejected=len(dead) - dead.null_count,
            n_new=sum(each.n_new for each in found),
            new_tokens=sum(each.new_tokens for each in found),
        )

    def written(self, part: Part) -> Written:
        """Write a part's files. Raises OSError, TooNew.

        One at a time in a process, however many threads it has: a part is held whole.
        """
        with self._one:
            return self._written(part)

    def _written(self, part: Part) -> Written:
        result = Written(part.table, part.index)
        sizes, taken, tests = self._joining.sizes, list[pa.Table](), list[np.ndarray]()
        for index, before in part.blocks:
            tables, found = self._rows(self._blocks[index], {"generations", part.table})
            result.damaged += [each.of.index for each in found if each.is_damaged]
            result.lost += [name for each in found for name in each.lost]
            rows = tables[part.table]
            ids = test_ids(self._joining.split, tables["generations"]) if part.table != "rejected" else frozenset[str]()
            ranges = range_of(row_bits(rows), before, sizes)
            mine = ranges >= part.index if part.last else ranges == part.index
            taken.append(rows.filter(pa.array(mine)))
            tests.append(which_are_test(rows, among(ids))[mine])
        if result.damaged:
            return result
        folder, name = expanded(self._joining.to) / FOLDERS[part.table], f"{part.index:07d}"
        if is_local(folder):
            folder.mkdir(parents=True, exist_ok=True)
            result.pieces = write_range(pa.concat_tables(taken), folder, name, np.concatenate(tests), sizes)
            return result
        with tempfile.TemporaryDirectory(prefix="mpg-join-") as scratch:
            result.pieces = write_range(pa.concat_tables(taken), Path(scratch), name, np.concatenate(tests), sizes)
            for entry in (each for piece in result.pieces for each in piece.values()):
                copy(Path(scratch) / entry["file"], folder / entry["file"])
        return result

    def _rows(
        self, block: Block, wanted: Collection[str] = tuple(FOLDERS)
    ) -> tuple[dict[str, pa.Table], list[ReadRange]]:
        """A block's tables as the data set has them, and its ranges as they were read.

        Args:
            wanted: tables; the others are empty then. What is said of rows is read with these.
        """
        if not block.ranges:
            return self._with_metadata(with_broken(read_parquet(expanded(self._joining.broken)))), []
        found = [read_range(self._work, each, wanted) for each in block.ranges]
        pieces = [each.arranged(partial(self._places, each.of.index)) for each in found]
        return self._with_metadata({name: pa.concat_tables([each[name] for each in pieces]) for name in FOLDERS}), found

    def _with_metadata(self, tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        return {**tables, "generations": self._metadata.beside(tables["generations"])}

    @cached_property
    def _metadata(self) -> Metadata:
        return Metadata(read_parquet(expanded(self._joining.metadata)))

    def _places(self, index: int) -> dict[str, int]:
        """Row ids of a range's cells, in their order."""
        (grid, tokenizer), size = self._plan, self._joining.size
        cells = self._joining.plan.cells(grid, range(len(grid))[size * index : size * (index + 1)], tokenizer)
        return {cell.row_id: i for i, cell in enumerate(cells)}

    @cached_property
    def _plan(self) -> tuple[Sequence[Any], Any]:
        plan = self._joining.plan
        return plan.grid(), load_tokenizer(unpacked_sources(plan.rule.sources).model)


def _sides(rows: pa.Table, ids: frozenset[str]) -> tuple[pa.Table, pa.Table]:
    """Those of train and those of test."""
    if not ids:
        return rows, rows.slice(0, 0)
    test = which_are_test(rows, among(ids))
    return rows.filter(pa.array(~test)), rows.filter(pa.array(test))
