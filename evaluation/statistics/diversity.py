"""How far texts differ: from others of their persona, and personas from each other. "Persona collapse" is neither."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

BLEU_ORDER = 4
# Counted for n-grams of which none is shared, or a text without one would be unlike all whatever else it shares
# (Chen & Cherry 2014, smoothing 1).
_SMOOTHING = 0.1


def self_bleu(texts: Sequence[Sequence[str]]) -> float | None:
    """Mean BLEU of each text against all others as its references (Zhu et al. 2018, Texygen): 1 is one text again.

    BLEU-4 (Papineni et al. 2002): the geometric mean of clipped n-gram precisions, n = 1 to 4 (or as many words as the
    text has), times the brevity penalty against the reference of the nearest length.

    Args:
        texts: in words. One without words is left out.

    Returns:
        ``None`` for fewer than two.
    """
    found = [text for text in texts if text]
    if len(found) < 2:
        return None
    logs = np.zeros(len(found))
    orders = np.array([min(BLEU_ORDER, len(text)) for text in found])
    for n in range(1, BLEU_ORDER + 1):
        counts = [Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for text in found]
        most = _two_largest(counts)
        for k, mine in enumerate(counts):
            if mine:
                # Ours may be the largest count: the second is the others' then, and equal to it if another has as many.
                shared = sum(min(count, most[gram][count == most[gram][0]]) for gram, count in mine.items())
                logs[k] += math.log(max(shared, _SMOOTHING) / mine.total())
    lengths = sorted(len(text) for text in found)
    penalties = [_penalty(len(text), lengths) for text in found]
    return float(np.mean(np.exp(logs / orders + penalties)))


def _two_largest(counts: Sequence[Counter[tuple[str, ...]]]) -> dict[tuple[str, ...], tuple[int, int]]:
    """Of each n-gram the largest count in any text, and the next one (0: no other text has it)."""
    most: dict[tuple[str, ...], tuple[int, int]] = {}
    for each in counts:
        for gram, count in each.items():
            first, second = most.get(gram, (0, 0))
            most[gram] = (count, first) if count > first else (first, max(second, count))
    return most


def _penalty(length: int, lengths: Sequence[int]) -> float:
    """Logarithm of the brevity penalty against the nearest of the other lengths, the shorter of two as near.

    Args:
        lengths: of all texts, this one's included, rising.
    """
    place = bisect_left(lengths, length)
    others = [*lengths[max(0, place - 1) : place], *lengths[place + 1 : place + 2]]
    nearest = min(others, key=lambda other: (abs(other - length), other))
    return min(0.0, 1 - nearest / length)


@dataclass(frozen=True)
class EmbeddingSpread:
    """Mean of 1 - cosine similarity of two different texts' embeddings.

    Attributes:
        within: of two texts of one group, over all such pairs; ``None``: there are none.
        between: of two texts of different groups; likewise.
    """

    within: float | None
    between: float | None


def embedding_spread(vectors: np.ndarray, groups: Sequence[Hashable]) -> EmbeddingSpread:
    """See :class:`EmbeddingSpread`; from sums over groups, without a table of pairs.

    Args:
        vectors: of length 1, ``[texts, dimension]``. groups: one each a text (its persona).
    """
    if not len(groups):
        return EmbeddingSpread(None, None)
    names = list(dict.fromkeys(groups))
    which = np.array([names.index(group) for group in groups])
    wide = vectors.astype(np.float64)
    sums = np.zeros((len(names), wide.shape[1]))
    np.add.at(sums, which, wide)
    sizes = np.bincount(which).astype(np.float64)
    own = float((wide**2).sum())  # a text's cosine with itself
    inside, n_inside = float((sums**2).sum()), float((sizes**2).sum())
    total = sums.sum(axis=0)
    across, n_across = float(total @ total) - inside, len(groups) ** 2 - n_inside
    n_within = n_inside - len(groups)
    return EmbeddingSpread(
        1 - (inside - own) / n_within if n_within else None,
        1 - across / n_across if n_across else None,
    )
