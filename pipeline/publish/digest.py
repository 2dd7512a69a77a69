"""What a card and a record say of a data set's rows, read from its files batch by batch: sums, and the first rows.

What is held grows with personas, prompts and judges, not with rows. What can't be had of sums (examples, pictures, near
repeats) is had of the first rows alone; a card says so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evaluation.statistics.aggregate import ExactSum
from pipeline.publish.summary import Summariser, Summary
from pipeline.store.dataset import FOLDERS
from pipeline.store.layout import files_in
from pipeline.store.schema import TABLES, as_of_today, without_tokens

# Rows of which examples and pictures are.
MOST_SHOWN = 100_000
_BATCH = 8192
# The rows of a batch, and all judgments of them.
Seen = Callable[[pa.Table, pa.Table], object]


@dataclass(frozen=True)
class Bound:
    """Of an approximate decoder's texts: the measured bounds on their law's distance from the target.

    Attributes:
        n: texts that have one, ``of`` those that are not exact.
    """

    n: int = 0
    of: int = 0
    mean: float | None = None
    largest: float | None = None


@dataclass(frozen=True)
class Digest:
    """See the module.

    Attributes:
        n_cut: texts that were cut off at their longest.
        n_rejected: dead letters that were cells.
        judges: label -> judgments, and those of them with a score.
        first_rows: of each persona, in the order in which they appear.
        shown: the first rows of ``generations``, with their ``judgments``.
    """

    summary: Summary
    n_rows: int
    n_prompts: int
    n_tokens: int
    n_cut: int
    n_rejected: int
    judges: Mapping[str, tuple[int, int]]
    bound: Bound
    first_rows: Sequence[Mapping[str, Any]]
    shown: Mapping[str, pa.Table]

    @property
    def n_judgments(self) -> int:
        return sum(n for n, _ in self.judges.values())

    @property
    def n_unscored(self) -> int:
        return sum(n - n_scored for n, n_scored in self.judges.values())

    @property
    def is_cut(self) -> bool:
        """Whether there are more rows than are shown."""
        return self.n_rows > self.shown["generations"].num_rows


def digest_of(
    folder: Path,
    attributes: Sequence[str],
    judges: Collection[str],
    *,
    panel_rule: str = "mean",
    elsewhere: Mapping[str, Path] = MappingProxyType({}),
    seen: Seen | None = None,
) -> Digest:
    """Read a data set's files once.

    Args:
        attributes: of its job. judges: labels of those that count. panel_rule: of their panel.
        elsewhere: folder in the data set, ``judgments`` say -> where its files are now, instead of below ``folder``.
        seen: is told of each piece.

    Raises:
        OSError, ValueError, pa.ArrowException: a file that can't be read, or of a later schema.
    """
    n_rejected = n_rejected_in(folder, elsewhere)
    pieces = _pieces(folder, elsewhere)
    return digest_of_pieces(pieces, attributes, judges, panel_rule=panel_rule, seen=seen, n_rejected=n_rejected)


def digest_of_pieces(
    pieces: Iterable[tuple[pa.Table, pa.Table]],
    attributes: Sequence[str],
    judges: Collection[str],
    *,
    panel_rule: str = "mean",
    seen: Seen | None = None,
    n_rejected: int = 0,
) -> Digest:
    """The same of rows that come in pieces, each with all judgments of it."""
    found, prompts, judged = Summariser(attributes, judges, panel_rule=panel_rule), set[str](), Counter[str]()
    scored, bounds, shown = Counter[str](), _Bounds(), list[tuple[pa.Table, pa.Table]]()
    n_rows = n_tokens = n_cut = 0
    for rows, judgments in pieces:
        found.add(rows, judgments)
        prompts.update(pc.unique(rows.column("prompt_id")).to_pylist())
        for row in judgments.group_by("judge").aggregate([("score", "count"), ("judge", "count")]).to_pylist():
            judged[row["judge"]] += row["judge_count"]
            scored[row["judge"]] += row["score_count"]
        bounds.add(rows)
        if n_rows < MOST_SHOWN:
            shown.append((rows, judgments))
        n_rows += rows.num_rows
        n_tokens += pc.sum(rows.column("n_tokens")).as_py() or 0
        n_cut += pc.sum(pc.equal(rows.column("finish_reason"), "length")).as_py() or 0
        if seen is not None:
            seen(rows, judgments)
    return Digest(
        summary=found.result(),
        n_rows=n_rows,
        n_prompts=len(prompts),
        n_tokens=n_tokens,
        n_cut=n_cut,
        n_rejected=n_rejected,
        judges={label: (n, scored[label]) for label, n in judged.items()},
        bound=bounds.found(),
        first_rows=found.first_rows,
        shown={name: _joined(name, [each[i] for each in shown]) for i, name in enumerate(("generations", "judgments"))},
    )


def n_rejected_in(folder: Path, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> int:
    """Of a data set's dead letters: how many were cells. Raises OSError, pa.ArrowException."""
    place = FOLDERS["rejected"]
    tables = (pq.read_table(path, columns=["row_id"]) for path in files_in(elsewhere.get(place, folder / place)))
    return sum(table.num_rows - table.column("row_id").null_count for table in tables)


class _Bounds:
    def __init__(self) -> None:
        self._n = self._of = 0
        self._sum, self._largest = ExactSum(), -math.inf

    def add(self, rows: pa.Table) -> None:
        steered = rows.filter(pc.invert(rows.column("exact")))
        bounds = steered.column("tv_bound").drop_null().to_pylist()
        self._n, self._of = self._n + len(bounds), self._of + steered.num_rows
        self._largest = max(self._largest, *bounds) if bounds else self._largest
        for bound in bounds:
            self._sum.add(bound)

    def found(self) -> Bound:
        return Bound(self._n, self._of, self._sum.total / self._n, self._largest) if self._n else Bound(of=self._of)


def _pieces(folder: Path, elsewhere: Mapping[str, Path]) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Rows, and the judgments of them; at the end judgments of no row, if there are any."""
    places = {name: elsewhere.get(FOLDERS[name], folder / FOLDERS[name]) for name in ("generations", "judgments")}
    judgments = _Beside(_tables(places["judgments"], "judgments"), in_order=_is_in_order(**places))
    for rows in _tables(places["generations"], "generations"):
        yield rows, judgments.of(rows.column("row_id"))
    if judgments.left.num_rows:
        yield TABLES["generations"].empty_table(), judgments.left


def _is_in_order(generations: Path, judgments: Path) -> bool:
    """Whether all judgments are of rows that are there, and stand in their order, as a run and a judging write them."""
    rows = (row_id for path in files_in(generations) for row_id in _ids(path))
    judged = (row_id for path in files_in(judgments) for row_id in _ids(path))
    return all(row_id in rows for row_id, _ in groupby(judged))  # looks on from where it has found the one before


def _ids(path: Path) -> Iterator[str]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(_BATCH, columns=["row_id"]):
            yield from batch.column(0).to_pylist()


class _Beside:
    """Judgments of some rows after others; read as far as rows ask for them, or, in no order, all at once."""

    def __init__(self, tables: Iterator[pa.Table], *, in_order: bool) -> None:
        self._tables = tables if in_order else iter([_joined("judgments", list(tables))])
        self._waiting: list[pa.Table] = []

    def of(self, row_ids: pa.ChunkedArray) -> pa.Table:
        """Those of some rows, in the order of the files."""
        found, waiting, ids = list[pa.Table](), list[pa.Table](), row_ids.combine_chunks()
        for table in chain(self._waiting, self._tables):
            mine = pc.is_in(table.column("row_id"), value_set=ids)
            found.append(table.filter(mine))
            if found[-1].num_rows < table.num_rows:  # the others are of later rows, and so are all tables behind it
                waiting.append(table.filter(pc.invert(mine)))
                break
        self._waiting = waiting
        return _joined("judgments", found)

    @property
    def left(self) -> pa.Table:
        return _joined("judgments", self._waiting)


def _tables(folder: Path, name: str) -> Iterator[pa.Table]:
    known = set(without_tokens(TABLES[name].empty_table()).column_names)
    for path in files_in(folder):
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            for batch in file.iter_batches(_BATCH, columns=[each for each in schema.names if each in known]):
                yield as_of_today(pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata), name)


def _joined(name: str, tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables) if tables else TABLES[name].empty_table()
