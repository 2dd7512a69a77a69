"""Files of shards that bear the plan's ranges in their names, so that a listing alone tells what is there of a plan.

A *range* is the cells of a plan that are decoded together: its ``index``-th so many. Its rows are in
``generations/<plan>-<index>-<n>-<hash>.parquet``, its dead letters in ``rejected/`` under such a name, where ``n``
counts the cells that are not to be tried again; what a judge has said of a file of rows is in ``judgments/`` under that
file's name and a hash of who judged what. Rows of a range that was stopped half way are in several files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

_NAME = re.compile(r"([0-9a-f]{16})-(\d{8,})-(\d+)-[0-9a-f]{12}(-[0-9a-f]{12})?\.parquet")
PLAN_DIGITS, _DIGITS = 16, 12


@dataclass(frozen=True)
class RangeFile:
    """What a file's name says.

    Attributes:
        name: of the file; of judgments that of the file of rows.
        n: cells of the range that are settled in it.
    """

    plan: str
    index: int
    n: int
    name: str


def range_name(plan: str, index: int) -> str:
    """What the names of a range's files begin with."""
    return f"{plan}-{index:08d}"


def file_name(of_range: str, n: int, row_ids: Iterable[str]) -> str:
    """Name of a file of rows, or of dead letters; the same rows never make a second file.

    Args:
        of_range: see :func:`range_name`. n: cells that it settles. row_ids: of all that is in it.
    """
    return f"{of_range}-{n}-{_hash(row_ids)}.parquet"


def judgments_name(rows: str, label: str, attributes: Iterable[str]) -> str | None:
    """Name of the file of what a judge says of a whole file of rows; ``None``: that one bears no range."""
    if parsed(rows) is None:
        return None
    return f"{rows.removesuffix('.parquet')}-{_hash([label, *attributes])}.parquet"


def parsed(name: str) -> RangeFile | None:
    """What a file's name says; ``None``: it bears no range."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    of_rows = name if found[4] is None else f"{name[: -len(found[4]) - len('.parquet')]}.parquet"
    return RangeFile(found[1], int(found[2]), int(found[3]), of_rows)


def index_in(name: str) -> int | None:
    """Which range a file is of; ``None``: it bears none."""
    found = parsed(name)
    return None if found is None else found.index


def _hash(words: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
