"""What a corpus is like as text, whatever it says: variety, repetition, length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.features.embedding import Embedder

_WORD = re.compile(r"\w+(?:'\w+)?")
# Length of the pieces that a text is searched for more than once.
REPEATED_WORDS = 4
MOST_EMBEDDED = 200


@dataclass(frozen=True)
class Quality:
    """Of a set of texts.

    Attributes:
        n: texts.
        words: mean length.
        distinct_1, distinct_2: different words (pairs of neighbours) as a share of all (Li et al. 2016).
        repetition: mean share of a text's 4-word pieces that stand in it before.
        diversity: mean of 1 - cosine similarity between sentence embeddings of two texts, of at most
            :data:`MOST_EMBEDDED` of them, evenly spaced; ``None`` without an embedder or with fewer than two texts.
    """

    n: int
    words: float
    distinct_1: float
    distinct_2: float
    repetition: float
    diversity: float | None


def words(text: str) -> list[str]:
    """Lower-case words."""
    return _WORD.findall(text.lower())


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams as a share of all; 0 where there are none. Falls with the amount of text."""
    grams = Counter(tuple(text[i : i + n]) for text in texts for i in range(len(text) - n + 1))
    return len(grams) / grams.total() if grams else 0.0


def repetition(text: Sequence[str], n: int = REPEATED_WORDS) -> float:
    """Share of a text's n-grams that stand in it before; 0 for a shorter text."""
    grams = [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def quality(texts: Sequence[str], embedder: Embedder | None = None) -> Quality:
    """Measure texts.

    Raises:
        ValueError: no texts.
    """
    if not texts:
        raise ValueError("texts: none given; give at least one")
    split = [words(text) for text in texts]
    diversity = None
    if embedder is not None and len(texts) > 1:
        some = texts[:: -(-len(texts) // MOST_EMBEDDED)]
        vectors = embedder.embed(some).astype(np.float64)
        n, total = len(some), vectors.sum(axis=0)
        # The mean cosine of two different texts, from the sum of all: no n x n table.
        diversity = 1 - float((total @ total - (vectors**2).sum()) / (n * (n - 1)))
    return Quality(
        n=len(texts),
        words=float(np.mean([len(each) for each in split])),
        distinct_1=distinct(split, 1),
        distinct_2=distinct(split, 2),
        repetition=float(np.mean([repetition(each) for each in split])),
        diversity=diversity,
    )
