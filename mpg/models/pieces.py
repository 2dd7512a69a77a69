"""A response's text divided among its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpg.models.ends import said_of

# Tokens decoded anew for each token at most twice so many, so that the time grows with the text and not with its
# square; any number does, as long as a tokenizer looks no further back for what it writes between two tokens.
_WINDOW = 16
_HALF = "\ufffd"  # what stands for the bytes of a character that has not all of them


def answer_pieces(tokenizer: Any, token_ids: Sequence[int], ids: frozenset[int]) -> list[str]:
    """The pieces of :func:`mpg.models.ends.answer_text`, one a token, which join to it exactly.

    A character belongs to the token that completes it; tokens that hold a part of one before have empty pieces, and so
    have special tokens, the end token, and blanks that the text is stripped of.
    """
    said = list(said_of(token_ids, ids))

    def decode(tokens: Sequence[int]) -> str:
        return str(tokenizer.decode(tokens, skip_special_tokens=True))

    text = decode(said)
    first, last = len(text) - len(text.lstrip()), len(text.rstrip())
    ends = [min(max(end, first), last) for end in _ends(decode, said, text)]
    pieces = [text[start:end] for start, end in zip([first, *ends], ends, strict=False)]
    return pieces + [""] * (len(token_ids) - len(said))


def _ends(decode: Callable[[Sequence[int]], str], tokens: Sequence[int], text: str) -> list[int]:
    """How much of the text is there with each token: as much as it and those before it were found to begin with.

    Every token is decoded with those before it, since what it writes may depend on them (bytes of one character, a
    blank that only a text's first word lacks), from the last but one place on where the text was found to be whole.
    """
    ends = [0]
    context, anchor, done, before = 0, 0, 0, ""  # text[:done] is of tokens[:anchor]; before: tokens[context:anchor]
    for n in range(1, len(tokens) + 1):
        now = decode(tokens[context:n])
        same = _agreement(now, before + text[done : done + len(now)])
        # What is there may go for a while: half a character undoes the bytes before it with some tokenizers.
        ends.append(max(ends[-1], done + same - len(before)))
        if n - anchor >= _WINDOW and same == len(now) >= len(before) and not now.endswith(_HALF):
            context, anchor, done = anchor, n, ends[-1]
            before = decode(tokens[context:anchor])
    ends[-1] = len(text)
    return ends[1:]


def _agreement(one: str, other: str) -> int:
    """How many characters two texts begin with together."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))
