"""What a card and a record say of a data set's rows, read from its files batch by batch: sums, and the first rows.

What can't be had of sums (examples, pictures, near repeats) is had of the first rows alone; a card says so.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.publish.sums import Digest, Sums
from pipeline.store.dataset import FOLDERS
from pipeline.store.files import parquet_file
from pipeline.store.layout import files_in
from pipeline.store.schema import TABLES, as_of_today, without_tokens

# Rows of which examples and pictures are.
MOST_SHOWN = 100_000
_BATCH = 8192
# The rows of a batch, and all judgments of them.
Seen = Callable[[pa.Table, pa.Table], object]


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
    sums, shown = Sums(attributes, judges, panel_rule=panel_rule), list[tuple[pa.Table, pa.Table]]()
    for rows, judgments in pieces:
        if sums.n_rows < MOST_SHOWN:
            shown.append((rows, judgments))
        sums.add(rows, judgments)
        if seen is not None:
            seen(rows, judgments)
    return sums.result(_shown(shown), n_rejected)


def first_rows(folder: Path) -> dict[str, pa.Table]:
    """The rows of a data set's files that are shown, see :attr:`Digest.shown`; judgments stand in the rows' order.

    Raises:
        As :func:`digest_of`.
    """
    places = {name: folder / FOLDERS[name] for name in ("generations", "judgments")}
    judgments, found = (
        _Beside(_tables(places["judgments"], "judgments"), in_order=True),
        list[tuple[pa.Table, pa.Table]](),
    )
    n_rows = 0
    for rows in _tables(places["generations"], "generations"):
        found.append((rows, judgments.of(rows.column("row_id"))))
        n_rows += rows.num_rows
        if n_rows >= MOST_SHOWN:
            break
    return _shown(found)


def _shown(pieces: Sequence[tuple[pa.Table, pa.Table]]) -> dict[str, pa.Table]:
    names = ("generations", "judgments")
    return {name: _joined(name, [piece[i] for piece in pieces]) for i, name in enumerate(names)}


def n_rejected_in(folder: Path, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> int:
    """Of a data set's dead letters: how many were cells. Raises OSError, pa.ArrowException."""
    place = FOLDERS["rejected"]
    tables = (pq.read_table(path, columns=["row_id"]) for path in files_in(elsewhere.get(place, folder / place)))
    return sum(table.num_rows - table.column("row_id").null_count for table in tables)


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
    with parquet_file(path) as file:
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
        with parquet_file(path) as file:
            schema = file.schema_arrow
            for batch in file.iter_batches(_BATCH, columns=[each for each in schema.names if each in known]):
                yield as_of_today(pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata), name)


def _joined(name: str, tables: Sequence[pa.Table]) -> pa.Table:
    return pa.concat_tables(tables) if tables else TABLES[name].empty_table()
