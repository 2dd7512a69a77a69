"""Prompts: chat messages with an id that stays, from a table (`personas.tables`) or a data set (`personas.data_sets`).

A row's column ``prompt``, ``messages`` or ``conversations`` holds text or a chat (`personas.chats`); its ``id``, if it
has one, names it. All other columns come along as the prompt's metadata.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from personas.chats import Message, chat_in_text, chat_messages
from personas.data_sets import DataSet, open_data_set
from personas.errors import SourceError, TableError
from personas.tables import Row, Table, id_text, no_column, read_table

# Columns that hold prompts, where none is named.
COLUMNS = ("prompt", "messages", "conversations")
ID_COLUMN = "id"
# Hex digits of a prompt id made from its messages: 64 bits, a collision in a billion prompts is
# improbable (n^2 / 2^65 = 0.03), and it is reported as a duplicate id if it happens.
ID_DIGITS = 16


class PromptError(SourceError):
    """Prompts that can't be used."""


@dataclass(frozen=True)
class Prompt:
    """A chat that waits for an answer, and an id that is unique among a job's prompts.

    ``metadata`` is what else its row holds, by column; it is no part of what the prompt is.
    """

    prompt_id: str
    messages: tuple[Message, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def as_chat(self) -> list[dict[str, str]]:
        """The messages as chat templates want them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, ASCII only (lone surrogates too), floats by repr.

    Raises:
        ValueError: a float that is not finite. TypeError: a type that JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def prompt_id_of(messages: Iterable[Message]) -> str:
    """The id of a prompt that names none: the first digits of the SHA-256 of its messages."""
    chat = [[message.role, message.content] for message in messages]
    return hashlib.sha256(canonical_json(chat).encode()).hexdigest()[:ID_DIGITS]


@dataclass(frozen=True)
class BrokenRow:
    """A row of a source that is no prompt.

    Attributes:
        source: the source's name and the row's place in it.
        reason: a word: ``broken_row``, ``bad_prompt`` or ``repeated_id``.
        problem: what is wrong, and the remedy.
        raw: the row as text, cut where it is very long.
    """

    source: str
    place: str
    reason: str
    problem: str
    raw: str


@dataclass(frozen=True)
class PromptTable:
    """What a source of prompts holds.

    Attributes:
        source: its name, without the path of any machine.
        prompts: once each, in their order.
        broken: rows that are none.
        repeated: places of prompts that stood there before, and are left out.
        skipped: how many prompts were left out at the beginning, as asked for.
    """

    source: str
    prompts: tuple[Prompt, ...]
    broken: tuple[BrokenRow, ...] = ()
    repeated: tuple[str, ...] = ()
    skipped: int = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What its author should know, in a line each."""
        lines = []
        if self.broken:
            n, first = len(self.prompts) + len(self.broken), self.broken[0]
            what = f"{len(self.broken)} of {n} rows can't be used and are listed in the table `rejected`"
            lines.append(f"{self.source}: {what}; the first: {first.place}: {first.problem}")
        if self.repeated:
            what = f"{len(self.repeated)} rows repeat an earlier prompt and are left out"
            lines.append(f"{self.source}: {what}; the first: {self.repeated[0]}")
        return tuple(lines)


def read_prompts(
    path: str | Path,
    *,
    column: str | None = None,
    id_column: str | None = None,
    encoding: str | None = None,
    skip: int = 0,
    limit: int | None = None,
) -> PromptTable:
    """Prompts of a table; a file whose name says no kind of table is taken for JSON lines.

    Args:
        path: the file.
        column: of the prompts; ``None``: ``prompt``, ``messages`` or ``conversations``, whichever a row has.
        id_column: of their ids; ``None``: ``id``, where a row has one; a prompt without one is named by its messages.
        encoding: of the file's text, see :func:`personas.tables.read_table`.
        skip: prompts left out at the beginning, with the rows between them that are none.
        limit: how many prompts are read at most; rows after them are not looked at.

    Raises:
        PromptError: no such file, no table, no such column.
    """
    try:
        table = read_table(path, encoding=encoding, otherwise="jsonl")
        return _prompts_of(table, Path(path).name, column, id_column, skip, limit)
    except TableError as error:
        raise PromptError(error.source, error.problem) from error


def read_prompts_of(
    data: DataSet, *, column: str | None = None, id_column: str | None = None, skip: int = 0, limit: int | None = None
) -> PromptTable:
    """Prompts of a data set, as of a table; without ``id_column`` their ids come from the messages.

    Raises:
        PromptError: it can't be opened, or has no such split or column.
    """
    try:
        table = open_data_set(data, few=limit is not None)
        if column is None and table.columns is not None:
            column = next((name for name in COLUMNS if name in table.columns), COLUMNS[0])
        return _prompts_of(table, data.label, column, id_column or "", skip, limit)
    except TableError as error:
        raise PromptError(error.source, error.problem) from error


def load_prompts_jsonl(path: str | Path, limit: int | None = None) -> list[Prompt]:
    """Prompts of a file that has nothing else: JSON lines, or any other table.

    Raises:
        PromptError: as :func:`read_prompts` does; a row that is no prompt, by its place; an id or a prompt that is
            given twice; no prompt at all.
    """
    found = read_prompts(path, limit=limit)
    if found.broken:
        raise PromptError(str(path), f"{found.broken[0].place}: {found.broken[0].problem}")
    if found.repeated:
        raise PromptError(str(path), f"{found.repeated[0]}; remove one")
    if not found.prompts:
        raise PromptError(str(path), NO_PROMPT)
    return list(found.prompts)


def load_prompts_dataset(
    dataset: str | Path, split: str = "train", column: str | None = None, limit: int | None = None
) -> list[Prompt]:
    """Prompts of a data set; repeated ones are dropped.

    Args:
        dataset: a Hub id, or a folder that ``datasets`` opens.
        split: name of the split.
        column: see :func:`read_prompts`.
        limit: how many distinct prompts to read at most.

    Raises:
        PromptError: as :func:`read_prompts_of` does; a row that is no prompt, or no prompt at all.
    """
    found = read_prompts_of(DataSet(str(dataset), split=split), column=column, limit=limit)
    if found.broken:
        raise PromptError(str(dataset), f"{found.broken[0].place}: {found.broken[0].problem}")
    if not found.prompts:
        raise PromptError(str(dataset), f"split {split!r} holds no prompt")
    return list(found.prompts)


NO_PROMPT = 'holds no prompt; give it rows with a prompt, e.g. a line {"prompt": "Hello!"} of a .jsonl file'


def _prompts_of(
    table: Table, name: str, column: str | None, id_column: str | None, skip: int, limit: int | None
) -> PromptTable:
    """The rows of a table as prompts. ``id_column``: ``None``: ``id``, if a row has one; empty: none is looked for."""
    if table.columns is not None:
        _check_columns(table.source, table.columns, column, id_column)
    prompts: list[Prompt] = []
    broken: list[BrokenRow] = []
    repeated: list[str] = []
    ids: dict[str, str] = {}
    texts: dict[tuple[Message, ...], str] = {}
    for row in table.rows:
        try:
            if row.problem is not None:
                raise _Unfit("broken_row", row.problem)
            prompt = _prompt(row, column, id_column, all_text=table.all_text)
            if prompt.messages in texts:
                repeated += [f"{row.place}: the same prompt as {_on(texts[prompt.messages])}"] * (len(prompts) >= skip)
                continue
            if prompt.prompt_id in ids:
                what = f"id {prompt.prompt_id!r} is taken by {ids[prompt.prompt_id]}; give another"
                raise _Unfit("repeated_id", what)
        except _Unfit as unfit:
            if len(prompts) >= skip:  # else it stands in the part that is left out
                broken.append(BrokenRow(f"{name}: {row.place}", row.place, unfit.reason, str(unfit), row.raw))
            continue
        ids[prompt.prompt_id] = texts[prompt.messages] = row.place
        prompts.append(prompt)
        if limit is not None and len(prompts) == skip + limit:
            break
    return PromptTable(name, tuple(prompts[skip:]), tuple(broken), tuple(repeated), min(skip, len(prompts)))


class _Unfit(Exception):
    """A row that is no prompt; ``reason`` is a word, the text says why."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(problem)
        self.reason = reason


def _on(place: str) -> str:
    return f"on {place}" if place.startswith("line") else f"in {place}"


def _check_columns(source: str, columns: tuple[str, ...], column: str | None, id_column: str | None) -> None:
    remedy = "name the prompts' with prompts.column"
    if column is not None and column not in columns and not (column == COLUMNS[0] and set(columns) & set(COLUMNS)):
        raise TableError(source, no_column(column, columns, remedy))
    if column is None and not set(columns) & set(COLUMNS):
        raise TableError(source, no_column(COLUMNS[0], columns, remedy))
    if id_column and id_column not in columns:
        raise TableError(source, no_column(id_column, columns, "name the ids' with prompts.id_column, or leave it out"))


def _prompt(row: Row, column: str | None, id_column: str | None, *, all_text: bool) -> Prompt:
    values = row.values
    column = _column_of(values, column)
    try:
        value = values[column]
        if isinstance(value, str) and (all_text or column in COLUMNS[1:]):
            value = chat_in_text(value)
        if isinstance(value, str) and column in COLUMNS[1:]:
            raise ValueError("text in place of a list; give one, or use 'prompt'")
        messages = chat_messages(value, drop_answer=True)
    except ValueError as error:
        raise _Unfit("bad_prompt", f"{column!r}: {error}") from error
    except RecursionError as error:
        raise _Unfit("bad_prompt", f"{column!r}: nested too deeply") from error
    given = ID_COLUMN if id_column is None else id_column
    used = (column, given) if given in values else (column,)
    metadata = {key: each for key, each in values.items() if key not in used and each is not None}
    return Prompt(_id_of(values, given, messages, wanted=bool(id_column)), messages, metadata)


def _id_of(values: Mapping[str, Any], column: str, messages: tuple[Message, ...], *, wanted: bool) -> str:
    value = values.get(column)
    try:
        prompt_id = id_text(value)
        if prompt_id is None:
            if value is None and not wanted:
                return prompt_id_of(messages)
            raise ValueError(f"{value!r}; give text, or leave it out")
        return _storable(prompt_id)
    except ValueError as error:
        raise _Unfit("bad_prompt", f"{column!r}: {error}") from error


def _column_of(values: Mapping[str, Any], column: str | None) -> str:
    """The column of a row's prompt; of those that are not asked for by name, the only one that is filled."""
    if column is not None and (column in values or column != COLUMNS[0]):
        if column not in values:
            raise _Unfit("bad_prompt", f"has no {column!r}, but {', '.join(map(repr, values)) or 'nothing'}")
        return column
    there = [key for key in COLUMNS if key in values]
    filled = [key for key in there if values[key] is not None] or there[:1]
    if len(filled) == 1:
        return filled[0]
    if filled:
        has = f"{' and '.join(map(repr, filled))}; keep one, or name it with prompts.column"
        raise _Unfit("bad_prompt", f"needs one of {', '.join(map(repr, COLUMNS))} and has both {has}")
    has = f"neither, but {', '.join(map(repr, values)) or 'nothing'}; name another with prompts.column"
    raise _Unfit("bad_prompt", f"needs 'prompt' or 'messages' and has {has}")


def _storable(text: str) -> str:
    """The text itself, if UTF-8 (and so Parquet and every tokenizer) can hold it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a surrogate pair ({text[error.start]!r}); remove it") from error
    return text
