"""A table's files in a data set: Parquet as the Hub's viewer and its storage want it, written range by range.

A table is cut into consecutive *ranges* of rows by their size in memory. Each range writes its own part of the train
and of the test split, one file each, under a temporary name (:func:`write_range`); when all are there, the parts get
their final names (:func:`numbered`). A cut depends on the rows before it alone, so that of a table that has grown at
its end all files but the last have the bytes that they had; and so that rows can be handed over piece by piece
(:class:`TableWriter`), of which no more than two ranges are held.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.files import listing, read_parquet, sync_folder
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
        range_bytes: of a range; the last one has up to twice as many. So files have at most the 500 MB that the Hub
            advises, and fewer when compressed. A row that is larger stands alone.
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
        self._waiting: list[tuple[pa.Table, IsEach | None, np.ndarray]] = []  # rows, which are the test split, bits
        self._bits = 0

    def add(self, rows: pa.Table, is_test: IsTest | None = None) -> None:
        """The next rows. Raises OSError: as of any file."""
        if not rows.num_rows:
            return
        bits = row_bits(rows)
        self._waiting.append((rows, None if is_test is None else is_test(rows), bits))
        self._bits += int(bits.sum())
        while self._bits > 16 * self._sizes.range_bytes and sum(len(each) for _, _, each in self._waiting) > 1:
            waiting = np.concatenate([each for _, _, each in self._waiting])
            self._write(_cut(waiting, self._sizes.range_bytes))

    def close(self) -> list[Entry]:
        """Write what waits, and give all files their names.

        Returns:
            of each file what a manifest says: ``file``, ``rows``, ``bytes``, ``sha256``.

        Raises:
            OSError: as of any file.
        """
        if self._waiting:
            self._write(sum(len(each) for _, _, each in self._waiting))
        return numbered(self._folder, self._parts) if self._parts else []

    def _write(self, n: int) -> None:
        """The first so many rows of those that wait, as a range."""
        tables, tests = list[pa.Table](), list[IsEach | None]()
        while n:
            rows, test, bits = self._waiting.pop(0)
            if len(bits) > n:
                self._waiting.insert(0, (rows.slice(n), None if test is None else test.slice(n), bits[n:]))
                rows, test, bits = rows.slice(0, n), None if test is None else test.slice(0, n), bits[:n]
            tables.append(rows)
            tests.append(test)
            self._bits -= int(bits.sum())
            n -= len(bits)
        self._folder.mkdir(parents=True, exist_ok=True)
        is_test = None
        if any(test is not None for test in tests):
            each = (_none_of(rows) if test is None else test for rows, test in zip(tables, tests, strict=True))
            chosen = pa.chunked_array([c for a in each for c in (a.chunks if isinstance(a, pa.ChunkedArray) else [a])])
            is_test = lambda _: chosen  # noqa: E731
        self._parts.append(write_range(pa.concat_tables(tables), self._folder, len(self._parts), is_test, self._sizes))


def _none_of(rows: pa.Table) -> pa.BooleanArray:
    return pa.array(np.zeros(rows.num_rows, bool))


def ranges_of(table: pa.Table, sizes: Sizes) -> Iterator[tuple[int, int]]:
    """The first row and the number of rows of each range."""
    return _cuts(row_bits(table), sizes.range_bytes, 2 * sizes.range_bytes)


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


def write_range(rows: pa.Table, folder: Path, index: int, is_test: IsTest | None, sizes: Sizes) -> dict[str, Entry]:
    """Write one range's parts under temporary names; split -> what a manifest says of it, for those that have rows.

    Args:
        index: of the range. Ranges know nothing of each other: any process may write any of them.

    Raises:
        OSError: as of any file; nothing is left of the part then.
    """
    test = None if is_test is None else is_test(rows)
    sides = {"train": rows} if test is None else {"train": rows.filter(pc.invert(test)), "test": rows.filter(test)}
    return {
        split: _write(side, folder / f"part-{index:05d}-{split}.tmp", sizes)
        for split, side in sides.items()
        if side.num_rows
    }


def numbered(folder: Path, parts: Sequence[Mapping[str, Entry]]) -> list[Entry]:
    """Give the parts of all ranges, in their order, their names: each split counts its own. Raises OSError."""
    entries = []
    for split in SPLITS:
        mine = [part[split] for part in parts if split in part]
        for i, entry in enumerate(mine):
            name = f"{split}-{i:05d}-of-{len(mine):05d}.parquet"
            os.replace(folder / entry["file"], folder / name)
            entries.append(entry | {"file": name})
    sync_folder(folder)
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
    try:
        with path.open("wb") as file:
            with pq.ParquetWriter(file, rows.schema, use_content_defined_chunking=CHUNKING, **PARQUET) as writer:
                writer.add_key_value_metadata({CHUNKING_KEY: json.dumps(CHUNKING)})
                for first, n in _cuts(row_bits(rows), sizes.group_bytes, sizes.group_bytes):
                    writer.write_table(rows.slice(first, n).combine_chunks(), row_group_size=n)
            file.flush()
            os.fsync(file.fileno())
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return {"file": path.name, "rows": rows.num_rows, "bytes": path.stat().st_size, "sha256": digest}


def _cuts(bits: np.ndarray, target: int, last: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each piece: as many rows as ``target`` bytes hold, and at least one; what is left
    is one piece once ``last`` bytes hold it."""
    first = 0
    while len(bits) > 1 and bits.sum() > 8 * last:
        n = _cut(bits, target)
        yield first, n
        first, bits = first + n, bits[n:]
    if len(bits):
        yield first, len(bits)


def _cut(bits: np.ndarray, target: int) -> int:
    """How many of some rows so many bytes hold; at least one."""
    return max(1, int(np.searchsorted(np.cumsum(bits), 8 * target, side="right")))
