"""Prompts: chat messages with an id that stays, from a JSONL file or a ``datasets`` data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas.errors import SourceError, why_unreadable

ROLES = ("system", "user", "assistant")
# Hex digits of a prompt id made from its messages: 64 bits, a collision in a billion prompts is
# improbable (n^2 / 2^65 = 0.03), and it is reported as a duplicate id if it happens.
ID_DIGITS = 16


class PromptError(SourceError):
    """Prompts that can't be used."""


@dataclass(frozen=True)
class Message:
    """One turn of a chat; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A chat that waits for an answer, and an id that is unique among a job's prompts."""

    prompt_id: str
    messages: tuple[Message, ...]

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


def load_prompts_jsonl(path: str | Path, limit: int | None = None) -> list[Prompt]:
    """Prompts of a UTF-8 file with one JSON object a line; empty lines are skipped.

    A line has ``"prompt": "text"`` or ``"messages": [{"role", "content"}, ...]``, and may have an
    ``"id"``; other keys are left alone.

    Args:
        path: the file.
        limit: how many to read at most; lines after them are not looked at.

    Raises:
        PromptError: no such file, a bad line (with its number), an id or a text given twice, or
            no prompt at all.
    """
    path = Path(path)
    source = str(path)
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        raise PromptError(source, why_unreadable(error)) from error
    prompts: list[Prompt] = []
    ids: dict[str, int] = {}
    texts: dict[tuple[Message, ...], int] = {}
    for number, line in enumerate(lines, start=1):
        if limit is not None and len(prompts) == limit:
            break
        if not line.strip():
            continue
        try:
            prompt = _parse_line(line)
        except ValueError as error:
            raise PromptError(source, f"line {number}: {error}") from error
        if prompt.messages in texts:
            first = texts[prompt.messages]
            raise PromptError(source, f"line {number}: the same prompt as on line {first}; remove one")
        if prompt.prompt_id in ids:
            first = ids[prompt.prompt_id]
            raise PromptError(source, f"line {number}: id {prompt.prompt_id!r} is taken by line {first}; give another")
        ids[prompt.prompt_id] = texts[prompt.messages] = number
        prompts.append(prompt)
    if not prompts:
        raise PromptError(source, 'holds no prompt; write one JSON object a line, e.g. {"prompt": "Hello!"}')
    return prompts


def load_prompts_dataset(
    dataset: str | Path, split: str = "train", column: str = "prompt", limit: int | None = None
) -> list[Prompt]:
    """Prompts of one column of a data set; ids come from the messages, repeated prompts are dropped.

    Args:
        dataset: a Hub id, or a folder that ``datasets`` opens.
        split: name of the split.
        column: holds text, or lists of chat messages.
        limit: how many distinct prompts to read at most.

    Raises:
        PromptError: the data set can't be opened, has no such split or column, a row that is no
            prompt (with its number, from 0), or no prompt at all.
    """
    from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

    source = str(dataset)
    saved = any((Path(source) / name).is_file() for name in ("dataset_dict.json", "state.json"))
    try:
        data = load_from_disk(source) if saved else load_dataset(source)
    except Exception as error:  # whatever the Hub, the network or a file format comes up with
        reason = " ".join(str(error).split())
        raise PromptError(source, f"can't be opened ({type(error).__name__}: {reason})") from error
    splits = data if isinstance(data, DatasetDict) else {"train": data}
    if split not in splits:
        raise PromptError(source, f"has no split {split!r}; choose from {', '.join(map(str, splits))}")
    rows = splits[split]
    assert isinstance(rows, Dataset)
    if column not in rows.column_names:
        raise PromptError(source, f"has no column {column!r}; choose from {', '.join(rows.column_names)}")
    prompts: dict[tuple[Message, ...], Prompt] = {}
    for number, row in enumerate(rows.select_columns([column])):
        if limit is not None and len(prompts) == limit:
            break
        try:
            messages = chat_messages(row[column])
        except ValueError as error:
            raise PromptError(source, f"split {split!r}, column {column!r}, row {number}: {error}") from error
        prompts.setdefault(messages, Prompt(prompt_id_of(messages), messages))
    if not prompts:
        raise PromptError(source, f"split {split!r} holds no prompt")
    return list(prompts.values())


def _parse_line(line: bytes) -> Prompt:
    """The prompt of one line; raises ValueError with what is wrong."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno}); write one object a line") from error
    except RecursionError as error:
        raise ValueError("nested too deeply for a prompt") from error
    if not isinstance(row, dict):
        raise ValueError(f'{_kind(row)} in place of an object; write {{"prompt": "..."}}')
    given = [key for key in ("prompt", "messages") if key in row]
    if len(given) != 1:
        has = "both" if given else f"neither, but {', '.join(map(repr, row)) or 'nothing'}"
        raise ValueError(f"needs 'prompt' or 'messages' and has {has}; keep one of the two")
    if given == ["prompt"] and not isinstance(row["prompt"], str):
        raise ValueError(f"'prompt' is {_kind(row['prompt'])}; give text, or use 'messages'")
    if given == ["messages"] and isinstance(row["messages"], str):
        raise ValueError("'messages' is text; give a list, or use 'prompt'")
    messages = chat_messages(row[given[0]])
    prompt_id = row.get("id")
    if prompt_id is None:
        return Prompt(prompt_id_of(messages), messages)
    if isinstance(prompt_id, bool) or not isinstance(prompt_id, str | int) or not str(prompt_id).strip():
        raise ValueError(f"'id' is {prompt_id!r}; give text, or leave it out")
    return Prompt(_storable(str(prompt_id), "id"), messages)


def chat_messages(value: object) -> tuple[Message, ...]:
    """Chat messages from text or from a list of messages; raises ValueError with what is wrong.

    What a text says is not looked at: one that is empty or that no tokenizer takes (half a surrogate pair) costs its
    own rows and no others, see the data set's ``rejected``.
    """
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise ValueError(f"{_kind(value)} in place of text or a list of messages")
    messages = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, dict):
            raise ValueError(f'message {number} is {_kind(message)}; give {{"role": ..., "content": ...}}')
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            raise ValueError(f"message {number} has the role {role!r}; choose from {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise ValueError(f"message {number} has {_kind(content)} as its content; give text")
        messages.append(Message(role, content))
    if messages[-1].role != "user":
        raise ValueError(f"the last message is the {messages[-1].role}'s; end with one of the user's")
    return tuple(messages)


def _storable(text: str, where: str) -> str:
    """The text itself, if UTF-8 (and so Parquet and every tokenizer) can hold it."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} holds half a surrogate pair ({text[error.start]!r}); remove it") from error
    return text


def _kind(value: object) -> str:
    """A JSON value's type in a user's words."""
    if isinstance(value, bool):
        return "true or false"
    for kind, word in ((str, "text"), (int | float, "a number"), (dict, "an object")):
        if isinstance(value, kind):
            return word
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "null" if value is None else type(value).__name__
