"""Text that can be kept: whatever a file, a model or a server says, in a form that UTF-8 and a line can hold."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any


def is_storable(text: str) -> bool:
    """Whether UTF-8 can hold the text: it has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable(value: Any) -> Any:
    """The value with what UTF-8 can't hold (half a surrogate pair) spelled out, in lists and mappings, too.

    A value that can be held as it is comes back as it is.
    """
    if isinstance(value, str):
        return value if is_storable(value) else value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {storable(name): storable(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(storable(each) for each in value) if type(value) in (list, tuple) else value
    return value


def one_line(text: object) -> str:
    """The text on one line, with control characters and halves of surrogate pairs spelled out."""
    line = " ".join(str(text).split())
    if line.isprintable():
        return line
    return "".join(char if _is_harmless(char) else char.encode("unicode_escape").decode() for char in line)


def _is_harmless(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Cf"  # joins emoji, breaks words
