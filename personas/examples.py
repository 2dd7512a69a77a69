"""Examples in tables: preference pairs, or texts that a user liked.

A table is Parquet, JSONL or CSV, or a data set of the Hub (its split ``train``). Columns:

- ``prompt``, ``chosen``, ``rejected``: pairs;
- ``prompt``, ``response``: texts.

A prompt is text or a list of chat messages; an answer is text, or a list of one message of the assistant.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.chats import Message, chat_messages
from personas.errors import SourceError

FILES = (".parquet", ".jsonl", ".csv")


@dataclass(frozen=True)
class Example:
    """A prompt and answers to it, in the order of the columns asked for."""

    messages: tuple[Message, ...]
    answers: tuple[str, ...]

    def as_chat(self) -> list[dict[str, str]]:
        """The prompt as chat templates want it."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def chosen(self) -> str:
        """Of a pair, the preferred answer."""
        return self.answers[0]

    @property
    def rejected(self) -> str:
        """Of a pair, the other answer."""
        return self.answers[1]


class ExampleError(SourceError):
    """Examples that can't be used."""


def load_pairs(source: str | Path) -> list[Example]:
    """Pairs: ``answers`` are chosen and rejected.

    Raises:
        ExampleError: a table that can't be read, a column that is missing, a row that is no pair (with its
            number, from 1), one whose sides are equal, or no row at all.
    """
    pairs = _load(source, ("chosen", "rejected"))
    for number, pair in enumerate(pairs, start=1):
        chosen, rejected = pair.answers
        if chosen.strip() == rejected.strip():
            raise ExampleError(str(source), f"row {number}: chosen and rejected are equal ({chosen[:40]!r}); remove it")
    return pairs


def load_texts(source: str | Path) -> list[Example]:
    """Texts: ``answers`` is the response alone. Raises ExampleError as :func:`load_pairs` does."""
    return _load(source, ("response",))


def columns_of(source: str | Path) -> tuple[str, ...]:
    """Names of a table's columns. Raises ExampleError: it can't be read."""
    return _read(source)[0]


def read_table(path: Path) -> tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]:
    """Column names and rows of a Parquet, JSONL or CSV file. Raises ExampleError: it can't be read."""
    return _read_jsonl(path) if path.suffix == ".jsonl" else _read_table(path)


def _load(source: str | Path, answers: Sequence[str]) -> list[Example]:
    columns, rows = _read(source)
    for column in ("prompt", *answers):
        if column not in columns:
            known = ", ".join(columns) or "none"
            raise ExampleError(str(source), f"has no column {column!r} (columns: {known}); rename one, or add it")
    examples = []
    for number, row in enumerate(rows, start=1):
        try:
            messages = chat_messages(row["prompt"])
            examples.append(Example(messages, tuple(_answer(column, row[column]) for column in answers)))
        except ValueError as error:
            raise ExampleError(str(source), f"row {number}: {error}") from error
    if not examples:
        raise ExampleError(str(source), "holds no row; give at least one")
    return examples


def _answer(column: str, value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        (message,) = value
        if isinstance(message, Mapping) and message.get("role") == "assistant":
            value = message.get("content")
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{column}: {value!r} is no answer; give text, or a list of one assistant's message")
    return value


def _read(source: str | Path) -> tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]:
    path = Path(source)
    if path.suffix in FILES or path.exists():
        if path.suffix not in FILES or not path.is_file():
            what = "no such file" if not path.exists() else f"is no {', '.join(FILES)} file"
            raise ExampleError(str(source), f"{what}; give one, or a Hub id")
        return read_table(path)
    from datasets import load_dataset

    try:
        data = load_dataset(str(source), split="train")
    except Exception as error:  # whatever the Hub, the network or a file format comes up with
        reason = " ".join(str(error).split())
        problem = f"is no file here, and as a Hub id can't be opened ({type(error).__name__}: {reason})"
        raise ExampleError(str(source), problem) from error
    return tuple(data.column_names), iter(data)


def _read_table(path: Path) -> tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    quoted = pyarrow.csv.ParseOptions(newlines_in_values=True)
    try:
        table = pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path, parse_options=quoted)
    except (pa.ArrowInvalid, OSError) as error:
        raise ExampleError(str(path), f"is no {path.suffix} table ({' '.join(str(error).split())})") from error
    return tuple(table.column_names), iter(table.to_pylist())


def _read_jsonl(path: Path) -> tuple[tuple[str, ...], Iterator[Mapping[str, Any]]]:
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise ExampleError(str(path), f"line {number}: not JSON in UTF-8 ({error})") from error
        if not isinstance(row, dict):
            raise ExampleError(str(path), f"line {number}: no object; write one object a line")
        rows.append(row)
    columns = tuple(dict.fromkeys(key for row in rows for key in row))
    return columns, iter([{column: row.get(column) for column in columns} for row in rows])
