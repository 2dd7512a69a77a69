"""Examples in tables: preference pairs, or texts that a user liked.

A table is any that `personas.tables` reads, or a data set of the Hub (its split ``train``). Columns:

- ``prompt``, ``chosen``, ``rejected``: pairs;
- ``prompt``, ``response``: texts.

A prompt is text or a list of chat messages; an answer is text, or a list of one message of the assistant, which the
prompt's own messages may precede.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from personas.chats import Message, chat_in_text, chat_messages
from personas.data_sets import DataSet, open_data_set
from personas.errors import SourceError, TableError
from personas.tables import Row, Table, is_table, no_column, read_table, whole
from personas.text import is_storable


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


def load_pairs(source: str | Path, columns: Mapping[str, str] | None = None) -> list[Example]:
    """Pairs: ``answers`` are chosen and rejected.

    Args:
        source: a table, or an id of the Hub.
        columns: ``prompt``, ``chosen``, ``rejected`` -> the columns that hold them; left out: the column of that name.

    Raises:
        ExampleError: a table that can't be read, a column that is missing, a row that is no pair (by its place), one
            whose sides are equal, or no row at all.
    """
    return _load(source, ("chosen", "rejected"), columns or {})


def load_texts(source: str | Path, columns: Mapping[str, str] | None = None) -> list[Example]:
    """Texts: ``answers`` is the response alone. Raises ExampleError as :func:`load_pairs` does."""
    return _load(source, ("response",), columns or {})


def columns_of(source: str | Path) -> tuple[str, ...]:
    """Names of a table's columns. Raises ExampleError: it can't be read."""
    table = _open(source)
    return table.columns if table.columns is not None else _whole(table)[0]


def _load(source: str | Path, answers: Sequence[str], columns: Mapping[str, str]) -> list[Example]:
    table = _open(source)
    given, rows = _whole(table)
    wanted = [columns.get(name, name) for name in ("prompt", *answers)]
    for column in wanted:
        if column not in given:
            raise ExampleError(str(source), no_column(column, given, "rename one, or add it"))
    examples = []
    for row in rows:
        try:
            examples.append(_example(row, wanted, all_text=table.all_text))
        except ValueError as error:
            raise ExampleError(str(source), f"{row.place}: {error}") from error
    if not examples:
        raise ExampleError(str(source), "holds no row; give at least one")
    return examples


def _example(row: Row, columns: Sequence[str], *, all_text: bool) -> Example:
    """Raises ValueError with what is wrong."""
    values = {name: row.values.get(name) for name in columns}
    if all_text:
        values = {name: chat_in_text(value) if isinstance(value, str) else value for name, value in values.items()}
    prompt, *others = columns
    messages = chat_messages(values[prompt])
    answers = tuple(_answer(name, values[name], messages) for name in others)
    told = [(prompt, message.content) for message in messages] + list(zip(others, answers, strict=True))
    for name, text in told:
        if not is_storable(text):
            raise ValueError(f"{name} holds half a surrogate pair; remove it")
    if len(answers) == 2 and answers[0].strip() == answers[1].strip():
        raise ValueError(f"{others[0]} and {others[1]} are equal ({answers[0][:40]!r}); remove it")
    return Example(messages, answers)


def _answer(column: str, value: object, prompt: tuple[Message, ...]) -> str:
    text = value
    if isinstance(value, list) and value:
        *before, message = value
        if isinstance(message, Mapping) and message.get("role") == "assistant" and not message.get("tool_calls"):
            if before and chat_messages(before) != prompt:
                raise ValueError(f"{column}: its messages before the answer are not the prompt's; leave them out")
            text = message.get("content")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{column}: {value!r} is no answer; give text, or a list of one assistant's message")
    return text


def _open(source: str | Path) -> Table:
    path = Path(source)
    try:
        if path.is_dir() or not (is_table(path) or path.exists()):
            return open_data_set(DataSet(str(source)))
        return read_table(path)
    except TableError as error:
        hub = not path.exists() and not is_table(path)
        problem = f"is no file here, and as a Hub id {error.problem}" if hub else error.problem
        remedy = "; give one, or a Hub id" if error.problem == "no such file" else ""
        raise ExampleError(str(source), problem + remedy) from error


def _whole(table: Table) -> tuple[tuple[str, ...], list[Row]]:
    try:
        return whole(table)
    except TableError as error:
        raise ExampleError(error.source, error.problem) from error
