"""Chats as they stand in tables: text, messages, ShareGPT turns, text in parts; and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from personas.words import kind, word

ROLES = ("system", "user", "assistant")
# What other formats call them. `developer` is what some endpoints call the system.
_ROLE_NAMES = {role: role for role in ROLES} | {"developer": "system"}
_SHAREGPT_NAMES = _ROLE_NAMES | {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
# Kinds of a content's parts that are text.
_TEXT_PARTS = ("text", "input_text")
# Keys of a message that say more than its content does, which a prompt of text can't keep.
_MORE_THAN_TEXT = (
    "tool_calls",
    "function_call",
    "tool_call_id",
    "images",
    "image",
    "audio",
    "video",
    "videos",
    "files",
)
# Text that was meant as a list of messages.
_LOOKS_LIKE_CHAT = re.compile(r"\s*\[\s*\{\s*(['\"])(?:role|from|content|value)\1\s*:")


@dataclass(frozen=True)
class Message:
    """One turn of a chat; ``role`` is system, user or assistant."""

    role: str
    content: str


def chat_messages(value: object, *, drop_answer: bool = False) -> tuple[Message, ...]:
    """Chat messages from text or from a list of messages; raises ValueError with what is wrong.

    What a text says is not looked at: one that is empty or that no tokenizer takes (half a surrogate pair) costs its
    own rows and no others, see the data set's ``rejected``.

    Args:
        value: text; or messages: ``{"role", "content"}`` or ShareGPT's ``{"from", "value"}``, a content in text or in
            parts of text, which are joined by line breaks.
        drop_answer: whether a chat may end with the assistant's turns, which are then left out: they are the answer
            that somebody else gave.
    """
    if isinstance(value, str):
        return (Message("user", value),)
    if not isinstance(value, list) or not value:
        raise ValueError(f"{kind(value)} in place of text or a list of messages")
    messages = [_message(each, f"message {number}") for number, each in enumerate(value, start=1)]
    while drop_answer and len(messages) > 1 and messages[-1].role == "assistant":
        messages.pop()
    if messages[-1].role != "user":
        raise ValueError(f"the last message is the {messages[-1].role}'s; end with one of the user's")
    return tuple(messages)


def chat_in_text(text: str) -> object:
    """What a cell of text holds: a list of messages written as JSON, or the text itself.

    Raises:
        ValueError: what looks like a list of messages and is no JSON.
    """
    if not _LOOKS_LIKE_CHAT.match(text):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"looks like a list of messages, and is no JSON ({error}); write it as JSON") from error


def last_user_text(value: object) -> str:
    """What was asked: a text, or the last user's message of a chat; empty where there is none.

    Raises:
        ValueError: neither text nor a list of messages.
    """
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
        raise ValueError(f"{kind(value)} in place of text or a list of messages")
    for message in reversed(value):
        role = _SHAREGPT_NAMES.get(str(message.get("role") or message.get("from")))
        if role == "user":
            return _message(message, "the last message of the user").content
    return ""


def _message(message: object, where: str) -> Message:
    if not isinstance(message, Mapping):
        raise ValueError(f'{where} is {kind(message)}; give {{"role": ..., "content": ...}}')
    role_key, content_key, names = "role", "content", _ROLE_NAMES
    if message.get("role") is None and message.get("from") is not None:
        role_key, content_key, names = "from", "value", _SHAREGPT_NAMES
    role = message.get(role_key)
    known = names.get(role) if isinstance(role, str) else None
    more = next((key for key in _MORE_THAN_TEXT if message.get(key)), None)
    if more is not None:
        raise ValueError(f"{where} has {more!r}, which a prompt of text can't keep; leave this chat out")
    if known is None:
        raise ValueError(f"{where} has the role {word(role)}; choose from {', '.join(ROLES)}")
    return Message(known, _content(message.get(content_key), where))


def _content(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ValueError(f"{where} has {kind(content)} as its content; give text")
    texts = []
    for part in content:
        of_kind = part.get("type") if isinstance(part, Mapping) else kind(part)
        text = part.get("text") if isinstance(part, Mapping) and of_kind in _TEXT_PARTS else None
        if not isinstance(text, str):
            raise ValueError(f"{where} has a part of type {of_kind!r}; only parts of text are read")
        texts.append(text)
    return "\n".join(texts)
