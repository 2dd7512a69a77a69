"""A table's files in a data set: Parquet as the Hub's viewer and its storage want it, written range by range.

A table is cut into consecutive *ranges* of rows by their size in memory: what begins in its k-th so many bytes is its
k-th range (:func:`range_of`). Each range writes its own part of the train and of the test split, under a temporary name
(:func:`write_range`); when all are there, the parts get their final names (:func:`numbered`). Where a row belongs
depends on the sizes of those before it alone, so that of a table that has grown at its end all files but the last have
the bytes that they had; so that rows can be handed over piece by piece (:class:`TableWriter`), of which little more
than two ranges are held; and so that several processes write a table, each some ranges, of which they know the sums
before.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.files import listing, move, read_parquet, sync_folder
from pipeline.store.shards import PARQUET

SPLITS = ("train", "test")
# Rows -> whether each belongs to the test split: bool [rows].
IsEach: TypeAlias = pa.BooleanArray | pa.ChunkedArray
IsTest = Callable[[pa.Table], IsEach]
Entry = dict[str, Any]
# Pages end where the content says so, not after so many rows: rows that are put in or taken out change the pages around
# them, and the Hub's storage keeps the others. These are `datasets`' own bounds in bytes (its DEFAULT_CDC_OPTIONS), and
# the key below is where it notes them.
CHUNKING = {"min_chunk_size": 256 * 1024, "max_chunk_size": 1024 * 1024, "norm_level": 0}
CHUNKING_KEY = "content_defined_chunking"


@dataclass(frozen=True)
class Sizes:
    """How a table is cut, in bytes of Arrow's memory, which those of Parquet before compression do not exceed by much.

    Attributes:
        range_bytes: of a range, and its last row may go beyond; the last one has up to twice as many. So files have at
            most the 500 MB that the Hub advises, and fewer when compressed. A row that is larger has a file of its own.
        group_bytes: of a row group: `datasets`' own choice. The Hub's viewer reads a page of 100 rows only if all row
            groups that they stand in have at most 300,000,000 bytes together (286 MiB), and they stand in two where
            groups have 100 rows or more. A row that is larger stands alone.
    """

    range_bytes: int = 250_000_000
    group_bytes: int = 100_000_000


def write_dataset(
    table: pa.Table, folder: Path, is_test: IsTest | None = None, sizes: Sizes | None = None
) -> list[Entry]:
    """Write a table into a folder as ``train-00000-of-0000N.parquet`` and ``test-...``; no file for no rows.

    Args:
        is_test: which rows are the test split; ``None``: none.

    Returns:
        of each file what a manifest says: ``file``, ``rows``, ``bytes``, ``sha256``.

    Raises:
        OSError: as of any file.
    """
    writer = TableWriter(folder, sizes)
    writer.add(table, is_test)
    return writer.close()


class TableWriter:
    """Writes a table that is handed over piece by piece; the files are those of the whole.

    Args:
        folder: made with the first row.
    """

    def __init__(self, folder: Path, sizes: Sizes | None = None) -> None:
        self._folder, self._sizes = folder, sizes or Sizes()
        self._parts: list[dict[str, Entry]] = []
        self._waiting: list[tuple[pa.Table, np.ndarray, np.ndarray]] = []  # rows, whether in test, range of each
        self._bits = 0

    def add(self, rows: pa.Table, is_test: IsTest | None = None) -> None:
        """The next rows. Raises OSError: as of any file."""
        if not rows.num_rows:
            return
        bits = row_bits(rows)
        self._waiting.append((rows, which_are_test(rows, is_test), range_of(bits, self._bits, self._sizes)))
        self._bits += int(bits.sum())
        while self._waiting and (first := int(self._waiting[0][2][0])) < last_range(self._bits, self._sizes):
            self._write(first)

    def close(self) -> list[Entry]:
        """Write what waits, and give all files their names.

        Returns:
            of each file what a manifest says: ``file``, ``rows``, ``bytes``, ``sha256``.

        Raises:
            OSError: as of any file.
        """
        if self._waiting:
            self._write(int(self._waiting[-1][2][-1]))
        return numbered(self._folder, self._parts) if self._parts else []

    def _write(self, last: int) -> None:
        """The rows of all ranges up to one, as one range; some wait always behind it, unless it is the last."""
        taken, waiting = [], []
        for rows, test, ranges in self._waiting:
            n = int(np.searchsorted(ranges, last, side="right"))
            if n:
                taken.append((rows.slice(0, n), test[:n]))
            if n < len(ranges):
                waiting.append((rows.slice(n), test[n:], ranges[n:]))
        self._waiting = waiting
        self._folder.mkdir(parents=True, exist_ok=True)
        rows, test = pa.concat_tables([rows for rows, _ in taken]), np.concatenate([test for _, test in taken])
        self._parts += write_range(rows, self._folder, f"{len(self._parts):05d}", test, self._sizes)


def which_are_test(rows: pa.Table, is_test: IsTest | None) -> np.ndarray:
    """Whether each row belongs to the test split: bool ``[rows]``."""
    if is_test is None:
        return np.zeros(rows.num_rows, bool)
    return np.asarray(is_test(rows).to_numpy(zero_copy_only=False), bool)


def range_of(bits: np.ndarray, before: int, sizes: Sizes) -> np.ndarray:
    """Which range each row begins in ``[rows]``; those from :func:`last_range` on are one.

    Args:
        bits: of each row, see :func:`row_bits`. before: of all rows before these.
    """
    return (before + np.cumsum(bits) - bits) // (8 * sizes.range_bytes)


def last_range(bits: int, sizes: Sizes) -> int:
    """The last range of so many bits: the others are full, and this one has more than one of them has, up to two."""
    return max(0, -(-bits // (8 * sizes.range_bytes)) - 2)


def row_bits(table: pa.Table) -> np.ndarray:
    """Arrow's memory of each row, in bits ``[rows]``: a sum over its values, whatever rows stand beside it."""
    bits = np.zeros(table.num_rows, np.int64)
    for column in table.columns:
        if column.num_chunks:
            bits += np.concatenate([_bits_of(chunk) for chunk in column.chunks])
    return bits


def _bits_of(array: pa.Array) -> np.ndarray:
    """Of each value: itself, its offset where it has one, and the bit that says whether it is null."""
    kind = array.type
    if pa.types.is_struct(kind):
        return sum((_bits_of(child) for child in array.flatten()), np.ones(len(array), np.int64))
    if pa.types.is_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        within = np.concatenate([[0], np.cumsum(_bits_of(array.flatten()))])
        ends = np.cumsum(lengths)
        return within[ends] - within[ends - lengths] + 33
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        lengths = pc.fill_null(pc.binary_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
        return 8 * lengths + 33
    return np.full(len(array), (0 if pa.types.is_null(kind) else kind.bit_width) + 1, np.int64)


def write_range(rows: pa.Table, folder: Path, name: str, test: np.ndarray, sizes: Sizes) -> list[dict[str, Entry]]:
    """Write one range's parts under temporary names.

    Args:
        name: of the range in these. Ranges know nothing of each other: any process may write any of them.
        test: whether each row belongs to the test split ``[rows]``.

    Returns:
        of each piece (one, but for rows that stand alone) split -> what a manifest says of its part, where it has rows.

    Raises:
        OSError: as of any file; nothing is left of the part then.
    """
    found = []
    for i, (first, n) in enumerate(_apart(row_bits(rows), sizes.range_bytes)):
        mine, in_test = rows.slice(first, n), test[first : first + n]
        sides = {"train": ~in_test, "test": in_test}
        parts = dict[str, Entry]()
        for split, side in sides.items():
            if side.any():
                rows_of_side = mine if side.all() else mine.filter(pa.array(side))  # not copied for nothing
                parts[split] = _write(rows_of_side, folder / f"part-{name}-{i:05d}-{split}.tmp", sizes)
        found.append(parts)
    return found


def _apart(bits: np.ndarray, most: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each piece: rows of more bytes than ``most`` stand alone."""
    large = [int(i) for i in np.flatnonzero(bits > 8 * most)]
    for first, end in pairwise([0, *(end for i in large for end in (i, i + 1)), len(bits)]):
        if end > first:
            yield first, end - first


def numbered(folder: Path, parts: Sequence[Mapping[str, Entry]], to: Path | None = None) -> list[Entry]:
    """Give the parts of all ranges, in their order, their names: each split counts its own. Raises OSError.

    Args:
        folder: they are in. to: the one that they go to, which is there; ``None``: the same.
    """
    entries, to = list[Entry](), folder if to is None else to
    for split in SPLITS:
        mine = [part[split] for part in parts if split in part]
        for i, entry in enumerate(mine):
            name = f"{split}-{i:05d}-of-{len(mine):05d}.parquet"
            move(folder / entry["file"], to / name)
            entries.append(entry | {"file": name})
    sync_folder(to)
    return entries


def files_in(folder: Path) -> list[Path]:
    """A table's files: those of the train split before those of the test split, each in the order of their rows."""
    return [folder / name for name in sorted(listing(folder, ".parquet"), key=lambda n: (n.startswith("test-"), n))]


def among(row_ids: AbstractSet[str], column: str = "row_id") -> IsTest | None:
    """The rows that have one of these in a column are the test split; of none ``None``."""
    if not row_ids:
        return None
    known = pa.array(sorted(row_ids), pa.string())
    return lambda rows: pc.is_in(rows.column(column), value_set=known)


def ids_in_test(folder: Path) -> frozenset[str]:
    """Row ids in the files of the test split. Raises OSError, pa.ArrowException: a file that can't be read."""
    files = [path for path in files_in(folder) if path.name.startswith("test-")]
    return frozenset(i for path in files for i in read_parquet(path, ["row_id"]).column(0).to_pylist())


def _write(rows: pa.Table, path: Path, sizes: Sizes) -> Entry:
    scratch = path.with_name(f"{path.name}.{uuid.uuid4().hex}")  # its own, were another at work on the same part
    try:
        with scratch.open("wb") as file:
            with pq.ParquetWriter(file, rows.schema, use_content_defined_chunking=CHUNKING, **PARQUET) as writer:
                writer.add_key_value_metadata({CHUNKING_KEY: json.dumps(CHUNKING)})
                for first, n in _groups(row_bits(rows), sizes.group_bytes):
                    writer.write_table(rows.slice(first, n).combine_chunks(), row_group_size=n)
            file.flush()
            os.fsync(file.fileno())
        with scratch.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = scratch.stat().st_size
        os.replace(scratch, path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    return {"file": path.name, "rows": rows.num_rows, "bytes": size, "sha256": digest}


def _groups(bits: np.ndarray, target: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each group: as many rows as ``target`` bytes hold, and at least one."""
    first = 0
    while len(bits):
        n = max(1, int(np.searchsorted(np.cumsum(bits), 8 * target, side="right")))
        yield first, n
        first, bits = first + n, bits[n:]
