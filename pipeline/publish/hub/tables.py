"""Texts of machines in a data set's tables: what they say of this one can't be taken out without another manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.publish.hub.portable import Machine
from pipeline.store.dataset import FOLDERS

# Table -> its columns in which libraries and services have their say; of judgments, where there is no score.
_COLUMNS = {"rejected": ("message", "source"), "judgments": ("rationale",)}


def telling_columns(folder: Path, machine: Machine) -> Iterator[str]:
    """Files and columns that name places of this machine, or its job's hosts. Raises OSError, pa.ArrowException."""
    for table, columns in _COLUMNS.items():
        for path in sorted((folder / FOLDERS[table]).glob("*.parquet")):
            for column in set(columns) & set(pq.read_schema(path).names):
                n = sum(map(machine.is_told_in, _texts(path, table, column)))
                if n:
                    yield f"{path.relative_to(folder)}: {column} ({n} texts)"


def _texts(path: Path, table: str, column: str) -> list[str]:
    if table == "judgments":
        read = pq.read_table(path, columns=[column, "score"])
        read = read.filter(pc.is_null(read.column("score")))
    else:
        read = pq.read_table(path, columns=[column])
    return [text for text in pc.unique(read.column(column)).to_pylist() if text]
