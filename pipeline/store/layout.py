"""A table's files in a data set: Parquet as the Hub's viewer and its storage want it, written range by range.

A table is cut into consecutive *ranges* of rows by their size in memory. Each range writes its own part of the train
and of the test split, one file each, under a temporary name (:func:`write_range`); when all are there, the parts get
their final names (:func:`numbered`). A cut depends on the rows before it alone, so that of a table that has grown at
its end all files but the last have the bytes that they had.
"""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.store.files import listing, read_parquet, sync_folder
from pipeline.store.shards import PARQUET

SPLITS = ("train", "test")
# Rows -> whether each belongs to the test split: bool [rows].
IsTest = Callable[[pa.Table], pa.BooleanArray]
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
    folder.mkdir(parents=True, exist_ok=True)
    table, sizes = table.combine_chunks(), sizes or Sizes()  # chunks have a size of their own: no cut depends on them
    parts = [
        write_range(table.slice(first, n), folder, index, is_test, sizes)
        for index, (first, n) in enumerate(ranges_of(table, sizes))
    ]
    return numbered(folder, parts)


def ranges_of(table: pa.Table, sizes: Sizes) -> Iterator[tuple[int, int]]:
    """The first row and the number of rows of each range."""
    return _cuts(table, sizes.range_bytes, 2 * sizes.range_bytes)


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


def in_order_of_files(table: pa.Table, is_test: IsTest | None) -> pa.Table:
    """A table's rows as they are read from :func:`files_in`."""
    if is_test is None:
        return table
    test = is_test(table)
    return pa.concat_tables([table.filter(pc.invert(test)), table.filter(test)])


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
                for first, n in _cuts(rows, sizes.group_bytes, sizes.group_bytes):
                    writer.write_table(rows.slice(first, n).combine_chunks(), row_group_size=n)
            file.flush()
            os.fsync(file.fileno())
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return {"file": path.name, "rows": rows.num_rows, "bytes": path.stat().st_size, "sha256": digest}


def _cuts(table: pa.Table, target: int, last: int) -> Iterator[tuple[int, int]]:
    """First row and number of rows of each piece: as many rows as ``target`` bytes hold, and at least one; what is left
    is one piece once ``last`` bytes hold it."""
    first, left = 0, table
    while left.num_rows > 1 and left.nbytes > last:
        # nbytes knows what a slice is worth, and grows with it: the longest beginning is found by halving
        n = bisect_right(range(1, left.num_rows + 1), target, key=lambda n: left.slice(0, n).nbytes)
        yield first, max(1, n)
        first += max(1, n)
        left = table.slice(first)
    if left.num_rows:
        yield first, left.num_rows
