"""Control tokens in other people's texts.

A *control token* is what a tokenizer reads as one token wherever it stands, before it looks at the text around it:
``<|im_end|>``, ``<s>``. A chat template writes them between messages. In a message they would be read just the same,
and the model would see other messages than the row says. Control tokens are here

- all that the tokenizer calls special;
- of the others that were added to its vocabulary (``<think>``, ``<tool_call>``, ``[INST]``) those with a character that
  is not of ordinary words: a bracket, a bar, a slash, ... Runs of blanks, words and emoji that were added are text.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

# General categories of what an added token that is ordinary text is made of: letters, marks, digits, blanks, emoji.
_OF_WORDS = ("L", "M", "N", "Z", "So", "Sk", "Cc")


class ControlTokenError(ValueError):
    """A text with control tokens that this tokenizer can't read as text."""


class ControlTokens:
    """Those of a tokenizer; see the module."""

    def __init__(self, tokenizer: Any) -> None:
        added = dict(tokenizer.added_tokens_decoder)
        self._normalizer = getattr(getattr(tokenizer, "backend_tokenizer", None), "normalizer", None)
        special = set(tokenizer.all_special_tokens)
        found = {t.content: t for t in added.values() if t.special or t.content in special or not _is_text(t.content)}
        self.tokens = frozenset(token for token in {*found, *special} if token)
        self._first = {token[0] for token in self.tokens}
        self._lengths = sorted({len(token) for token in self.tokens})
        # Those that are looked for in the text as the tokenizer normalises it, where other characters may become them.
        self._normalised = frozenset(
            self._normalizer.normalize_str(name) for name, token in found.items() if token.normalized
        ) - {""} if self._normalizer is not None else frozenset()  # fmt: skip
        self.in_text = lru_cache(maxsize=4096)(self._in_text)

    def _in_text(self, text: str) -> bool:
        return self._written_in(text) or self.hidden_in(text)

    def _written_in(self, text: str) -> bool:
        return any(
            text[start : start + length] in self.tokens
            for start, character in enumerate(text)
            if character in self._first
            for length in self._lengths
        )

    def hidden_in(self, text: str) -> bool:
        """Whether the text as the tokenizer normalises it holds one that the text as it is written does not."""
        if self._normalizer is None or not self._normalised:
            return False
        try:
            shown = self._normalizer.normalize_str(text)
        except (UnicodeError, TypeError):  # half a surrogate pair: the row is refused for that
            return False
        return any(token in shown and token not in text for token in self._normalised)


@lru_cache(maxsize=8)
def control_tokens_of(tokenizer: Any) -> ControlTokens:
    """The control tokens of a tokenizer, looked up once."""
    return ControlTokens(tokenizer)


def _is_text(token: str) -> bool:
    return all(char == "\u2581" or unicodedata.category(char).startswith(_OF_WORDS) for char in token)
