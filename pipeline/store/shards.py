"""Parquet shards: a reader sees a whole file or none, and knows from a manifest that it is the file that was written.

Each folder of shards has a ``manifest.jsonl``: a line for each shard as it was finished, with its rows, bytes and
SHA-256. Lines are appended in one write each, so that several processes may; a line that a killed one left half is
no line. A shard without a line (its writer was killed between the two) is taken up if every page of it is sound. In a
store (``s3://``) nothing can be appended and a put is whole or not there: no shard has a line, all are looked at so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from personas.text import one_line, storable
from pipeline.events import FIELDS, event
from pipeline.store.errors import TooNew
from pipeline.store.files import exists, listing, move, read_bytes, read_parquet, write_bytes
from pipeline.store.places import is_local
from pipeline.store.schema import TABLES, NewerSchema, as_of_today

logger = logging.getLogger(__name__)

# What all Parquet files here have in common: pages with checksums, and an index of them.
PARQUET = {"compression": "zstd", "write_page_index": True, "write_page_checksum": True}
MANIFEST = "manifest.jsonl"


def shard_name(row_ids: Iterable[str], *more: str) -> str:
    """A shard's file name: a hash of what is in it, so the same rows never make a second file."""
    digest = hashlib.sha256("\n".join([*more, *row_ids]).encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f"{digest}.parquet"


def write_table(table: pa.Table, path: Path) -> dict[str, Any]:
    """Write it whole: a killed writer leaves no half a file.

    Returns:
        what a manifest says of it: ``file``, ``rows``, ``bytes``, ``sha256``.

    Raises:
        OSError: a full disk, a folder that is read-only or gone; nothing is left of the file then.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, row_group_size=max(1, table.num_rows), **PARQUET)
    content = sink.getvalue()
    write_bytes(content, path)
    return {
        "file": path.name,
        "rows": table.num_rows,
        "bytes": content.size,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def write_rows(rows: Sequence[dict[str, Any]], table_name: str, path: Path) -> None:
    """Write rows under the table's own schema, as a shard that the folder's manifest knows. Raises OSError.

    What UTF-8 can't hold of a text is spelled out; a row that can't be had otherwise is left out, and that is said.
    """
    schema = TABLES[table_name]
    try:
        table = _table_of(rows, schema)
    except _UNSTORABLE:  # seldom: only then is each row looked at
        table = _table_of([row for row in map(storable, rows) if _is_row(row, schema, table_name)], schema)
    append_entry(path.parent, write_table(table, path))


# What Arrow raises for a text that is no UTF-8, a number out of its type's range, a value of another type.
_UNSTORABLE = (UnicodeError, pa.ArrowException, OverflowError, TypeError, ValueError)


def _table_of(rows: Sequence[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    table = pa.Table.from_pylist(list(rows), schema=schema)
    for field in schema:
        if not field.nullable and table.column(field.name).null_count:
            raise ValueError(f"{field.name} is null")
    return table


def _is_row(row: dict[str, Any], schema: pa.Schema, table_name: str) -> bool:
    try:
        _table_of([row], schema)
    except _UNSTORABLE as error:
        row_id, why = row.get("row_id"), type(error).__name__
        fields = {"event": "row_left_out", "table": table_name, "row": row_id, "reason": why}
        logger.error("row %s can't be stored and is left out: %s", row_id, why, extra={FIELDS: fields})
        event(logger, "row_left_out", level=logging.DEBUG, row=row_id, message=one_line(error)[:300])
        return False
    return True


def append_entry(folder: Path, entry: dict[str, Any]) -> None:
    """A line for a finished shard in its folder's manifest, on a disk. Raises OSError."""
    if not is_local(folder):
        return
    # It begins a line, too: what a killed process left half of spoils only itself.
    line = f"\n{json.dumps(entry)}\n".encode()
    descriptor = os.open(folder / MANIFEST, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def manifest_of(folder: Path) -> dict[str, dict[str, Any]]:
    """File name -> its last line in the folder's manifest; lines that are not whole are left out."""
    try:
        lines = (folder / MANIFEST).read_bytes().split(b"\n") if is_local(folder) else []
    except FileNotFoundError:
        return {}
    entries: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            entry = json.loads(line)
            entries[entry["file"]] = {name: entry[name] for name in ("file", "rows", "bytes", "sha256")}
        except (ValueError, KeyError, TypeError):
            continue
    return entries


def shard_tables(
    folder: Path, table_name: str, columns: Sequence[str] | None = None
) -> Iterator[tuple[Path, pa.Table]]:
    """Every sound shard of a folder, by name, with its table.

    One that is not what the manifest says, or can't be read, is set aside as ``*.corrupt`` (never deleted) and said
    so: its rows are made again. One of an older schema is read under today's.

    Raises:
        TooNew: one that a later version of this project wrote.
    """
    known = manifest_of(folder)
    for path in (folder / name for name in listing(folder, ".parquet")):
        table = sound_table(path, table_name, known.get(path.name))
        if table is not None:
            yield path, table if columns is None else table.select(list(columns))


def sound_table(path: Path, table_name: str, entry: Mapping[str, Any] | None) -> pa.Table | None:
    """A shard's table; ``None``: it was set aside, see :func:`shard_tables`.

    Args:
        entry: its line in the folder's manifest, if it has one.

    Raises:
        TooNew: as there. FileNotFoundError: there is none. OSError: it can't be read now.
    """
    content, problem = read_bytes(path), None
    digest = hashlib.sha256(content).hexdigest()
    if entry is not None and (entry["bytes"], entry["sha256"]) != (len(content), digest):
        of_size = f"has {len(content)} bytes and not the {entry['bytes']} that were written"
        problem = of_size if entry["bytes"] != len(content) else "is not as it was written, by its checksum"
    else:
        try:
            read = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
            table = as_of_today(read, table_name)
        except NewerSchema as error:
            raise TooNew(f"output: {path} {error}") from error
        except (ValueError, pa.ArrowException, OSError) as error:
            problem = f"is no sound Parquet file ({' '.join(str(error).split())})"
    if problem is not None:
        set_aside(path, problem)
        return None
    if entry is None:
        append_entry(path.parent, {"file": path.name, "rows": table.num_rows, "bytes": len(content), "sha256": digest})
    return table


def set_aside(path: Path, problem: str) -> None:
    """Keep a shard that is not as it should be under another name, as none. Raises OSError."""
    said = "shard %s %s: set aside, its rows are made again"
    logger.warning(said, path, problem, extra={FIELDS: {"event": "shard_set_aside", "file": path.name}})
    move(path, free_name(path.with_suffix(".corrupt")))


def read_shard(path: Path, table_name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One file of a table under today's schema. Raises OSError, NewerSchema, ValueError: no such table."""
    table = as_of_today(read_parquet(path), table_name)
    return table if columns is None else table.select(list(columns))


def free_name(path: Path) -> Path:
    """The path, or the first of ``path-1``, ``path-2``, ... that is not there."""
    names = (path if n == 0 else path.with_name(f"{path.name}-{n}") for n in range(10**6))
    return next(name for name in names if not exists(name))


def read_shards(folder: Path, table_name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a folder's sound shards, in the order of their names; empty where there are none."""
    tables = [table for _, table in shard_tables(folder, table_name, columns)]
    schema = TABLES[table_name]
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
    return pa.concat_tables(tables) if tables else schema.empty_table()
