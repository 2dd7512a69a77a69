"""How values and places are written in messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from personas.secrets import HIDDEN, masked, names_a_secret

# Longest form of a value in a message; beyond it the middle gives way to an ellipsis.
MAX_VALUE_CHARS = 80
MAX_WORD_CHARS = 20  # of what is taken for a word, and may be said in a log


@dataclass(frozen=True)
class Unshown:
    """A value that may be a secret."""

    value: object


def dotted(location: Sequence[str | int]) -> str:
    """``("attributes", 1, "name")`` as ``attributes[1].name``; empty for no location."""
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def show(value: object) -> str:
    """A value as its author wrote it, more or less, shortened to fit into a line; what looks like a key is hidden."""
    text = _yaml_like(value)
    if len(text) > MAX_VALUE_CHARS:
        half = (MAX_VALUE_CHARS - 3) // 2
        text = f"{text[:half]}...{text[-half:]}"
    return text


def kind(value: object) -> str:
    """A JSON value's type in a user's words."""
    if isinstance(value, bool):
        return "true or false"
    for of_kind, word in ((str, "text"), (int | float, "a number"), (Mapping, "an object")):
        if isinstance(value, of_kind):
            return word
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    return "null" if value is None else type(value).__name__


def word(value: object) -> str:
    """A value in whose place a word or number belongs, as it is written; what may be somebody's text is not quoted."""
    if isinstance(value, str) and (len(value) > MAX_WORD_CHARS or any(map(str.isspace, value))):
        return f"a text of {len(value)} characters"
    return kind(value) if isinstance(value, Mapping | list | bytes) else repr(value)


def _yaml_like(value: object) -> str:
    if isinstance(value, Unshown):
        return "what stands there"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_member(key, each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_yaml_like, value)) + "]"
    return masked(repr(value))


def _member(key: object, value: object) -> str:
    return HIDDEN if names_a_secret(str(key)) and isinstance(value, str) else _yaml_like(value)
