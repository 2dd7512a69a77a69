"""The one reader of tables: JSON lines, JSON, CSV, TSV and Parquet, each also compressed, row by row.

What kind of table a file is, its name says: ``p.jsonl`` (or ``.ndjson``), ``p.json``, ``p.csv``, ``p.tsv``,
``p.parquet``, and any of them with ``.gz``, ``.zst``, ``.bz2`` or ``.xz`` behind.

- JSON lines: one object a line. JSON: a list of objects, alone or as ``data``, ``rows``, ``prompts`` or ``personas`` of
  one object; a file of lines is read as such.
- CSV and TSV: the first line names the columns; every cell is the text that stands there, an empty one is null. They
  are read by Python's own ``csv``, which knows on which line a row begins and where a quotation mark is never closed.
- Parquet: columns have their types.

Texts are UTF-8, or UTF-16 or UTF-32 with their mark, or what ``encoding`` says.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from personas.errors import TableError, why_unreadable
from personas.text_files import COMPRESSED, bytes_of, no_text, shown, text_of
from personas.words import kind, word

if TYPE_CHECKING:
    import pyarrow as pa

_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
FORMATS_SAID = f"{', '.join(_FORMATS)} (each also {', '.join(COMPRESSED)})"
# Keys under which a JSON file's one object may hold the rows.
_HOLDS_ROWS = ("data", "rows", "prompts", "personas")
# Of a row that is no good, so much is shown to its author, in characters.
_MOST_RAW = 2000
# Rows of a Parquet file that are read at a time.
_ROWS_A_BATCH = 1024


@dataclass(frozen=True)
class Row:
    """One row of a table, or what stands in the place of one.

    Attributes:
        place: where it stands: ``line 3`` of a file of text (its first line is 1), ``row 3`` of another.
        values: by column; a column that a row of JSON does not have is not there.
        problem: why it is no row; ``None``: it is one.
        text: of one that is no row, as it stands in the file.
    """

    place: str
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    text: str = ""

    @property
    def raw(self) -> str:
        """The row as text that can be stored, cut where it is very long."""
        text = self.text or json.dumps(self.values, ensure_ascii=False, default=str)
        return text[:_MOST_RAW].encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Table:
    """A table that is read as its rows are asked for, once.

    Attributes:
        source: the file, as it was named.
        columns: their names; ``None``: each row has its own.
        rows: in their order. Asking for one raises TableError where the file can't be read on.
        all_text: whether its cells are text whatever they mean (CSV, TSV).
    """

    source: str
    columns: tuple[str, ...] | None
    rows: Iterator[Row]
    all_text: bool = False


def is_table(name: str | Path) -> bool:
    """Whether a file's name says that it is a table."""
    return _format(Path(name))[0] is not None


def read_table(path: str | Path, *, encoding: str | None = None, otherwise: str | None = None) -> Table:
    """Open a table.

    Args:
        path: the file; whatever its name holds is its name, and no pattern.
        encoding: of its text; ``None``: UTF-8, or what its first bytes mark.
        otherwise: kind of a file whose name says none; ``None``: such a file is refused.

    Raises:
        TableError: no such file, no table by its name, not of the kind that its name says, a column that stands twice.
            A single row that is no row is no error, see :class:`Row`.
    """
    path = Path(path)
    of_kind, compressed = _format(path)
    of_kind = of_kind or otherwise
    if of_kind is None or path.is_dir() or not path.exists():
        problem = "no such file" if not path.exists() else "is a directory" if path.is_dir() else ""
        raise TableError(str(path), problem or f"is no table by its name; give one of {FORMATS_SAID}")
    source = str(path)
    rows = _opened(path, source, of_kind, compressed, encoding)
    columns = next(rows)  # the first thing that a reader says
    assert not isinstance(columns, Row)
    return Table(source, columns, (row for row in rows if isinstance(row, Row)), all_text=of_kind in ("csv", "tsv"))


def whole(table: Table) -> tuple[tuple[str, ...], list[Row]]:
    """All columns and rows. Raises TableError: where it can't be read, or the first row that is none."""
    rows = list(table.rows)
    for row in rows:
        if row.problem is not None:
            raise TableError(table.source, f"{row.place}: {row.problem}")
    if table.columns is not None:
        return table.columns, rows
    return tuple(dict.fromkeys(key for row in rows for key in row.values)), rows


def no_column(name: str, columns: tuple[str, ...], remedy: str) -> str:
    """What is said of a column that is not there."""
    return f"has no column {name!r} (columns: {', '.join(columns) or 'none'}); {remedy}"


def id_text(value: object) -> str | None:
    """An id as text, ``None`` where there is none: ``0`` is ``"0"``, and a whole number that stands as 7.0 is ``"7"``.

    Raises:
        ValueError: something that is no id.
    """
    if isinstance(value, float) and value != value:  # NaN: how some tools write that a number is missing
        return None
    if isinstance(value, str) or value is None:
        return value if value is not None and value.strip() else None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(int(value)) if value == value // 1 else repr(value)
    raise ValueError(f"{word(value)} is no id; give text or a number")


def _format(path: Path) -> tuple[str | None, str]:
    """Kind of table and of compression by a file's name."""
    suffix, compressed = path.suffix.lower(), ""
    if suffix in COMPRESSED:
        compressed, suffix = suffix, Path(path.stem).suffix.lower()
    return _FORMATS.get(suffix), compressed


def _opened(
    path: Path, source: str, of_kind: str, compressed: str, encoding: str | None
) -> Iterator[tuple[str, ...] | Row | None]:
    """First the columns, then the rows; the file is closed with the iterator."""
    import pyarrow as pa

    what = f"is no {of_kind if not compressed else compressed.removeprefix('.')} file"
    try:
        with bytes_of(path, compressed) as stream:
            if of_kind == "parquet":
                what = "is no .parquet table"
                yield from _parquet(stream if not compressed else pa.BufferReader(stream.read()), source)
            else:
                text = text_of(stream, source, encoding, newline="\n" if of_kind == "jsonl" else "")
                yield from _READERS[of_kind](text, source)
    except (gzip.BadGzipFile, EOFError, lzma.LZMAError, zlib.error, pa.ArrowException) as error:
        raise TableError(source, f"{what}, or is cut off ({' '.join(str(error).split())})") from error
    except UnicodeDecodeError as error:
        problem = f"is no text in {error.encoding} ({error.reason}); name its encoding, or save it as UTF-8"
        raise TableError(source, problem) from error
    except OSError as error:
        if compressed and error.errno is None:  # how bz2 and pyarrow say that it is another kind of file
            raise TableError(source, f"{what} ({error})") from error
        raise TableError(source, why_unreadable(error)) from error


# --------------------------------------------------------------------------- kinds of tables


def _json_lines(text: IO[str], source: str) -> Iterator[Row | None]:
    yield None
    for number, line in enumerate(text, start=1):
        if line.strip():
            yield _json_line(line.rstrip("\r\n"), f"line {number}")


def _json_line(line: str, place: str) -> Row:
    problem = no_text(line)
    if problem is None:
        try:
            return _json_row(_loads(line), place)
        except json.JSONDecodeError as error:
            problem = f"not JSON ({error.msg} at column {error.colno}); write one object a line"
        except ValueError as error:
            problem = str(error)
    return Row(place, problem=problem, text=shown(line))


def _json_row(value: object, place: str) -> Row:
    if isinstance(value, dict):
        return Row(place, value)
    problem = f'{kind(value)} in place of an object; write {{"column": ...}}'
    return Row(place, problem=problem, text=json.dumps(value, ensure_ascii=False))


def _loads(text: str) -> Any:
    """Raises ValueError: no JSON, a key twice in one object, or nested too deeply."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is given twice; keep one")
        return found

    try:
        return json.loads(text, object_pairs_hook=once)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _json(text: IO[str], source: str) -> Iterator[Row | None]:
    content = text.read()
    problem = no_text(content)
    if problem is not None:
        raise TableError(source, problem)
    try:
        value = _loads(content)
    except json.JSONDecodeError as error:
        first, _, rest = content.lstrip().partition("\n")
        if first.startswith("{") and first.rstrip().endswith("}") and rest.strip():
            yield from _json_lines(io.StringIO(content), source)
            return
        problem = f"line {error.lineno}: not JSON ({error.msg} at column {error.colno}); write a list of objects"
        raise TableError(source, problem) from error
    except ValueError as error:
        raise TableError(source, str(error)) from error
    if isinstance(value, dict) and len(value) == 1:
        ((key, held),) = value.items()
        value = held if key in _HOLDS_ROWS and isinstance(held, list) else value
    yield None
    for number, each in enumerate(value if isinstance(value, list) else [value], start=1):
        yield _json_row(each, f"row {number}")


def _csv(text: IO[str], source: str, delimiter: str = ",") -> Iterator[tuple[str, ...] | Row]:
    csv.field_size_limit(2**31 - 1)  # a cell may hold a book
    lines: list[str] = []  # of the row that is being read

    def read_lines() -> Iterator[str]:
        for line in text:
            lines.append(line)
            yield line

    reader = csv.reader(read_lines(), delimiter=delimiter, strict=True)
    columns: tuple[str, ...] | None = None
    while True:
        place = f"line {reader.line_num + 1}"
        lines.clear()
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if columns is None or "unexpected end" in str(error):  # all that follows is inside of that cell
                problem = f"{place}: a quotation mark is opened there and not closed; close it, or double it"
                raise TableError(source, problem) from error
            problem = f"{error}; put the cell into quotation marks, and double those in it"
            yield Row(place, problem=problem, text=shown("".join(lines)))
            continue
        if columns is None and cells:
            columns = _header(cells, source, place)
            yield columns
        elif columns is not None and cells:
            yield _csv_row(columns, cells, place, "".join(lines))
    if columns is None:
        raise TableError(source, "is empty; its first line names the columns")


_READERS: Mapping[str, Callable[[IO[str], str], Iterator[tuple[str, ...] | Row | None]]] = {
    "jsonl": _json_lines,
    "json": _json,
    "csv": _csv,
    "tsv": partial(_csv, delimiter="\t"),
}


def _header(cells: list[str], source: str, place: str) -> tuple[str, ...]:
    problem = no_text("".join(cells))
    twice = next((cell for cell in cells if cells.count(cell) > 1), None)
    other = next((mark for mark in ("\t", ";") if len(cells) == 1 and mark in cells[0]), None)
    if twice is not None:
        problem = f"column {twice!r} stands twice; rename one"
    if other is not None:
        problem = f"its columns seem to be separated by {other!r}; separate them by commas, or by tabs in a .tsv file"
    if problem is not None:
        raise TableError(source, f"{place}: {problem}")
    return tuple(cells)


def _csv_row(columns: tuple[str, ...], cells: list[str], place: str, text: str) -> Row:
    problem = no_text(text)
    if len(cells) != len(columns):
        count = f"{len(cells)} cell{'s' if len(cells) > 1 else ''} under {len(columns)} columns"
        problem = f"{count}; give each column one, and put text with commas into quotation marks"
    if problem is not None:
        return Row(place, problem=problem, text=shown(text))
    return Row(place, {column: cell or None for column, cell in zip(columns, cells, strict=True)})


def _parquet(stream: IO[bytes] | pa.BufferReader, source: str) -> Iterator[tuple[str, ...] | Row]:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(stream)
    columns = tuple(file.schema_arrow.names)
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise TableError(source, f"column {twice!r} stands twice; rename one")
    yield columns
    number = 0
    for batch in file.iter_batches(batch_size=_ROWS_A_BATCH):
        for values in batch.to_pylist():
            number += 1
            yield Row(f"row {number}", values)
