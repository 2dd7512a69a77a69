"""Self-BLEU by hand and by definition, the spread of embeddings pair by pair."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest

from evaluation.statistics.diversity import embedding_spread, self_bleu


def by_definition(texts: list[list[str]]) -> float:
    """BLEU-4 of each text against all others, with every reference looked at."""
    found = []
    for k, text in enumerate(texts):
        others = [other for i, other in enumerate(texts) if i != k]
        orders, log = min(4, len(text)), 0.0
        for n in range(1, orders + 1):
            grams = [Counter(tuple(each[i : i + n]) for i in range(len(each) - n + 1)) for each in (text, *others)]
            shared = sum(min(c, max(other[gram] for other in grams[1:])) for gram, c in grams[0].items())
            log += math.log(max(shared, 0.1) / grams[0].total())
        nearest = min((abs(len(o) - len(text)), len(o)) for o in others)[1]
        found.append(math.exp(log / orders + min(0.0, 1 - nearest / len(text))))
    return float(np.mean(found))


def test_self_bleu_is_bleu_against_the_others() -> None:
    rng = np.random.default_rng(1)
    texts = [[str(w) for w in rng.integers(0, 6, rng.integers(1, 15))] for _ in range(12)]
    assert self_bleu(texts) == pytest.approx(by_definition(texts))


def test_self_bleu_of_one_text_again_and_of_strangers() -> None:
    text = ["one", "two", "three", "four", "five"]
    assert self_bleu([text, text, text]) == pytest.approx(1.0)
    strangers = self_bleu([text, ["a", "b", "c", "d", "e"]])
    assert strangers is not None and strangers < 0.1
    assert self_bleu([text, []]) is None and self_bleu([]) is None


def test_spread_pair_by_pair() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(9, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    groups = ["a"] * 4 + ["b"] * 3 + ["c"] * 2
    pairs = [(i, j) for i, j in product(range(9), range(9)) if i != j]
    within = [1 - vectors[i] @ vectors[j] for i, j in pairs if groups[i] == groups[j]]
    between = [1 - vectors[i] @ vectors[j] for i, j in pairs if groups[i] != groups[j]]
    found = embedding_spread(vectors, groups)
    assert found.within == pytest.approx(np.mean(within)) and found.between == pytest.approx(np.mean(between))


def test_spread_of_what_has_no_pairs() -> None:
    vector = np.array([[1.0, 0.0]])
    assert vars(embedding_spread(vector, ["a"])) == {"within": None, "between": None}
    assert vars(embedding_spread(np.zeros((0, 2)), [])) == {"within": None, "between": None}
    assert embedding_spread(np.repeat(vector, 2, axis=0), ["a", "b"]).within is None
