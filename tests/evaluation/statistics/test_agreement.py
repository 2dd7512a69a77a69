"""Agreement and quality: small cases by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.statistics.agreement import agreement, agreements, known_pairs, self_consistency
from evaluation.statistics.quality import distinct, quality, repetition, words


def test_agreement_by_hand() -> None:
    # Two of three agree; by chance (2 1 + 1 2) / 9 = 4/9 would: kappa = (2/3 - 4/9) / (1 - 4/9) = 0.4.
    found = agreement([0.9, 0.8, 0.1, None], [0.9, 0.2, 0.3, 0.5])
    assert (found.n, found.kappa) == (3, pytest.approx(0.4))
    assert found.spearman == pytest.approx(0.5)
    assert agreement([0.1, 0.2], [0.2, 0.4]).kappa is None  # neither ever says yes
    assert agreement([0.1, 0.2], [0.2, 0.4]).spearman == pytest.approx(1.0)
    assert agreement([None], [0.5]).n == 0
    assert set(agreements({"b": [0.1], "a": [0.1], "c": [0.1]})) == {("a", "b"), ("a", "c"), ("b", "c")}


def test_known_pairs() -> None:
    found = known_pairs([0.9, 0.6, 0.5, None], [0.1, 0.7, 0.5, 0.2])
    assert (found.n, found.n_unscored) == (3, 1)
    assert found.accuracy == pytest.approx(3 / 6)  # 0.5 is right for neither
    assert found.ranking == pytest.approx(1.5 / 3) and found.flagged
    assert not known_pairs([0.9] * 4, [0.1] * 4).flagged
    assert known_pairs([None], [0.1]).flagged


def test_a_judge_that_changes_its_mind() -> None:
    assert self_consistency([[0.0, 1.0, None], [0.0, 0.5, 0.3]]) == (0.25, 2)
    assert self_consistency([[None], [0.1]]) == (None, 0)


def test_quality_by_hand() -> None:
    assert words("It's a dog's life -- 3 of 4!") == ["it's", "a", "dog's", "life", "3", "of", "4"]
    assert distinct([["a", "b", "a"], ["a"]], 1) == 0.5 and distinct([["a"]], 2) == 0.0
    assert repetition(["a", "b", "c", "d", "a", "b", "c", "d"]) == pytest.approx(1 / 5)
    found = quality(["a b a b", "c d"])
    assert (found.n, found.words, found.diversity) == (2, 3.0, None)
    with pytest.raises(ValueError, match="texts: none given"):
        quality([])


def test_diversity_is_the_mean_over_pairs() -> None:
    class Fixed:
        def embed(self, texts):
            vectors = np.random.default_rng(0).normal(size=(len(texts), 8))
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    texts = ["x"] * 5
    vectors = Fixed().embed(texts)
    pairs = [1 - float(vectors[i] @ vectors[j]) for i in range(5) for j in range(i)]
    assert quality(texts, Fixed()).diversity == pytest.approx(np.mean(pairs))
