"""The draws of `accept` as places and ranges of them: how many candidates every cell has had, and in which round.

A *round* is what is drawn at once: every cell's first candidates, later the next few of those cells that fell short.
Its candidates, in the plan's order, are cut into ranges of the job's ``rows_per_shard``: so a late round, which draws
one here and one there, is decoded in full batches and not in a shard for each cell. A range's files bear its round in
their names, and a round's name is a hash of the plan and of all draws up to it. So a listing is the resume state here,
too, and no file can be taken for one of other draws.

What later rounds have drawn is a table in the work folder, written whole before anything of a round is decoded: 8 bytes
for each cell that is drawn for. In memory it is arrays: 4 bytes a cell, and 20 for each that a later round draws for.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.job.fields import Accept
from pipeline.store.files import read_bytes
from pipeline.store.ranges import PLAN_DIGITS, RangeFile, range_name
from pipeline.store.shards import write_table

DRAWS_FILE = "draws.parquet"  # in the work folder
_SCHEMA = pa.schema([("round", pa.int32()), ("cell", pa.int32()), ("more", pa.int32())])
_LAW = b"mpg.law"
Places = NDArray[np.int64]


class _Round(Protocol):
    """Candidates that are drawn at once, in the plan's order."""

    @property
    def n(self) -> int:
        """How many."""
        ...

    def places(self, first: int, end: int) -> Places:
        """Of its ``first``-th candidate to before its ``end``-th, in the grid of all that may be drawn."""
        ...

    def of_cells(self, first: int, end: int) -> tuple[int, int]:
        """Which of its candidates are of these cells: the first, and that after the last."""
        ...


class _First:
    """Every cell's first candidates."""

    def __init__(self, n_cells: int, rule: Accept) -> None:
        self._each, self._most, self.n = rule.rows_per_cell, rule.max_candidates, n_cells * rule.rows_per_cell

    def places(self, first: int, end: int) -> Places:
        cells, samples = np.divmod(np.arange(first, end, dtype=np.int64), self._each)
        return cells * self._most + samples

    def of_cells(self, first: int, end: int) -> tuple[int, int]:
        return first * self._each, end * self._each


class _Later:
    """Of some cells the next few.

    Args:
        cells: that ascend. more: how many of each. before: how many each has had. All: [cells drawn for], int32.
    """

    def __init__(self, cells: NDArray[np.int32], more: NDArray[np.int32], before: NDArray[np.int32], most: int) -> None:
        self.cells, self.more, self._before, self._most = cells, more, before, most
        self._ends = np.cumsum(more, dtype=np.int64)
        self.n = int(self._ends[-1])

    def places(self, first: int, end: int) -> Places:
        candidates = np.arange(first, end, dtype=np.int64)
        i = np.searchsorted(self._ends, candidates, side="right")
        samples = self._before[i] + candidates - (self._ends[i] - self.more[i])
        return self.cells[i].astype(np.int64) * self._most + samples

    def of_cells(self, first: int, end: int) -> tuple[int, int]:
        low, high = np.searchsorted(self.cells, [first, end])
        return int(self._ends[low - 1]) if low else 0, int(self._ends[high - 1]) if high else 0


class Rounds:
    """See the module. Its ranges are numbered through, round by round.

    Args:
        plan: a name of all that candidates are made of, and of the ranges' ``size``.
        law: a name of all that decides how many are drawn.
    """

    def __init__(self, plan: str, law: str, n_cells: int, rule: Accept, size: int) -> None:
        self._rule, self._size, self._law = rule, size, _name(plan, law)
        self.drawn = np.full(n_cells, rule.rows_per_cell, dtype=np.int32)
        self._rounds: list[_Round] = [_First(n_cells, rule)]
        self._later: list[_Later] = []
        self.names = [_name(plan, str(rule.rows_per_cell), str(rule.max_candidates))]
        self._starts = [0]  # of each round its first range
        self._n_ranges = self._ranges_of(self._rounds[0])

    @property
    def n_cells(self) -> int:
        return len(self.drawn)

    @property
    def n(self) -> int:
        """Candidates drawn so far."""
        return sum(each.n for each in self._rounds)

    def draw(self, more: NDArray[np.int32]) -> str:
        """Begin another round; returns its name.

        Args:
            more: how many further candidates each cell gets: [cells], not all 0.
        """
        cells = np.flatnonzero(more).astype(np.int32)
        some = more[cells]
        drawn = _Later(cells, some, self.drawn[cells], self._rule.max_candidates)
        self.names.append(_name(self._law, self.names[-1], *(each.astype("<i4").tobytes() for each in (cells, some))))
        self._rounds.append(drawn)
        self._later.append(drawn)
        self._starts.append(self._n_ranges)
        self._n_ranges += self._ranges_of(drawn)
        self.drawn[cells] += some
        return self.names[-1]

    # ------------------------------------------------------------------ ranges

    def __len__(self) -> int:
        return self._n_ranges

    def name(self, index: int) -> str:
        which = self.round_of(index)
        return range_name(self.names[which], index - self._starts[which])

    def places(self, index: int) -> Sequence[int]:
        which = self.round_of(index)
        drawn, first = self._rounds[which], (index - self._starts[which]) * self._size
        found: list[int] = drawn.places(first, min(first + self._size, drawn.n)).tolist()
        return found

    def index_of(self, file: RangeFile) -> int | None:
        """Which range a file is of; ``None``: of none of these."""
        if file.plan not in self.names:
            return None
        which = self.names.index(file.plan)
        return self._starts[which] + file.index if file.index < self._ranges_of(self._rounds[which]) else None

    def round_of(self, index: int) -> int:
        """Which round a range is of; the first is 0."""
        return bisect_right(self._starts, index) - 1

    def of_cells(self, first: int, end: int) -> Iterator[int]:
        """The ranges that hold candidates of some neighbours among the cells."""
        for start, drawn in zip(self._starts, self._rounds, strict=True):
            low, high = drawn.of_cells(first, end)
            if high > low:
                yield from range(start + low // self._size, start + -(-high // self._size))

    def _ranges_of(self, drawn: _Round) -> int:
        return -(-drawn.n // self._size)

    # ------------------------------------------------------------------ on storage

    def keep(self, work: Path) -> None:
        """Write the table, whole; there is one from the second round on. Raises OSError."""
        columns = [
            np.concatenate([np.full(len(each.cells), i, dtype=np.int32) for i, each in enumerate(self._later)]),
            np.concatenate([each.cells for each in self._later]),
            np.concatenate([each.more for each in self._later]),
        ]
        table = pa.table(list(map(pa.array, columns)), schema=_SCHEMA.with_metadata({_LAW: self._law}))
        write_table(table, work / DRAWS_FILE)

    def take_up(self, work: Path) -> None:
        """Draw what the table says; nothing where there is none, or where it is not as it was written for these draws.

        Raises:
            OSError
        """
        try:
            content = read_bytes(work / DRAWS_FILE)
        except FileNotFoundError:
            return
        try:
            table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
        except (pa.ArrowException, OSError):
            return
        if table.schema.equals(_SCHEMA.with_metadata({_LAW: self._law}), check_metadata=True):
            which, cells, more = (column.to_numpy() for column in table.columns)
            for of_round in np.split(np.arange(len(which)), np.flatnonzero(np.diff(which)) + 1):
                dense = np.zeros(self.n_cells, dtype=np.int32)
                dense[cells[of_round]] = more[of_round]
                self.draw(dense)


def _name(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update((part.encode() if isinstance(part, str) else part) + b"\n")
    return digest.hexdigest()[:PLAN_DIGITS]
