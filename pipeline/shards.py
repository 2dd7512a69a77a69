"""Parquet shards, written so that a reader sees a whole file or none."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.schema import TABLES

# The Hub's own advice for datasets: files of at most 500 MB, here measured before compression.
MAX_FILE_BYTES = 500_000_000


def shard_name(row_ids: Iterable[str], *more: str) -> str:
    """A shard's file name: a hash of what is in it, so the same rows never make a second file."""
    digest = hashlib.sha256("\n".join([*more, *row_ids]).encode()).hexdigest()[:24]
    return f"{digest}.parquet"


def write_table(table: pa.Table, path: Path) -> None:
    """Write to a temporary name, sync, rename: a killed writer leaves no half a shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with scratch.open("wb") as sink:
            pq.write_table(
                table,
                sink,
                compression="zstd",
                write_page_index=True,
                row_group_size=max(1, table.num_rows),
            )
            sink.flush()
            os.fsync(sink.fileno())
        os.replace(scratch, path)
    finally:
        scratch.unlink(missing_ok=True)


def write_rows(rows: Sequence[dict[str, Any]], table_name: str, path: Path) -> None:
    """Write rows under the table's own schema."""
    write_table(pa.Table.from_pylist(list(rows), schema=TABLES[table_name]), path)


def read_shards(folder: Path, table_name: str) -> pa.Table:
    """All rows of a folder's shards, in the order of their names; empty where there are none."""
    schema = TABLES[table_name]
    tables = []
    for path in sorted(folder.glob("*.parquet")):
        try:
            tables.append(pq.read_table(path, schema=schema))
        except (pa.ArrowInvalid, OSError):
            # Not a whole Parquet file: out of the way, never deleted, its rows are made again.
            path.rename(path.with_suffix(".corrupt"))
    return pa.concat_tables(tables) if tables else schema.empty_table()


def write_dataset(table: pa.Table, folder: Path, split: str = "train") -> list[Path]:
    """Replace a folder's files by ``train-00000-of-0000N.parquet``; no file for no rows.

    Returns the files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_files = -(-table.nbytes // MAX_FILE_BYTES) if table.num_rows else 0
    rows_per_file = -(-table.num_rows // n_files) if n_files else 0
    paths = [folder / f"{split}-{i:05d}-of-{n_files:05d}.parquet" for i in range(n_files)]
    for i, path in enumerate(paths):
        write_table(table.slice(i * rows_per_file, rows_per_file).combine_chunks(), path)
    for stale in set(folder.glob("*.parquet")) - set(paths):
        stale.unlink()
    return paths
