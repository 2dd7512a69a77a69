"""Weights inferred from texts and pairs that were drawn from known weights, and the scores they rest on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.score.texts import component_log_probs
from mpg.score.weights import (
    PRIOR_MEAN,
    PRIOR_SD,
    draws_from_pairs,
    draws_from_segments,
    from_pairs,
    from_texts,
    segment_sums,
)
from tests.fakes import tabular_bank

TRUE = {"a": 0.6, "b": 0.1, "c": 0.3}
PROMPT = [1, 2]


@pytest.fixture(scope="module")
def bank() -> ModelBank:
    return tabular_bank(["a", "b", "c"], vocab_size=4)


def reference_texts(bank: ModelBank, n: int) -> list[tuple[int, ...]]:
    settings = DecoderSettings(name="reference", max_new_tokens=12)
    return [c.token_ids for c in decode(bank, [Request(PROMPT, {}, seed=i) for i in range(n)], settings)]


def margins(bank: ModelBank, texts: Sequence[tuple[int, ...]]) -> np.ndarray:
    """``log r_i`` of the first text of two less the second's, ``[texts / 2, attributes]``."""
    scored = component_log_probs(bank, [(PROMPT, text) for text in texts], batch_size=64)
    totals = np.stack([log_probs.sum(0).numpy() for _, log_probs in scored])
    ratios = totals[:, list(bank.layout.policy)] - totals[:, list(bank.layout.reference)]
    return ratios[::2] - ratios[1::2]


def liked_first(difference: np.ndarray, seed: int) -> np.ndarray:
    """Whether a Bradley-Terry user with the weights TRUE prefers the first of each two, ``[pairs]``."""
    chance = 1 / (1 + np.exp(-2 * difference @ np.array(list(TRUE.values()))))
    return np.random.default_rng(seed).random(len(chance)) < chance


def differences(bank: ModelBank, n: int) -> np.ndarray:
    """Log-ratio differences, preferred less other, of n pairs."""
    difference = margins(bank, reference_texts(bank, 2 * n))
    return np.where(liked_first(difference, 0)[:, None], difference, -difference)


def pairs_of(bank: ModelBank, n: int) -> list[tuple[list[int], tuple[int, ...], tuple[int, ...]]]:
    """The same as tokens: prompt, preferred, other."""
    texts = reference_texts(bank, 2 * n)
    first = liked_first(margins(bank, texts), 0)
    return [(PROMPT, *(texts[i : i + 2] if first[i // 2] else texts[i : i + 2][::-1])) for i in range(0, 2 * n, 2)]


def test_scores_are_the_engines_own_books(bank: ModelBank) -> None:
    own = tabular_bank(["a", "b", "c"], vocab_size=4, own_reference=True)
    for each, strength in ((bank, 1.0), (own, 1.7)):
        requests = [Request(PROMPT[: 1 + i % 2], TRUE, seed=i) for i in range(5)]
        done = list(decode(each, requests, DecoderSettings(max_new_tokens=7, strength=strength)))
        texts = [(r.prompt_ids, c.token_ids) for r, c in zip(requests, done, strict=True)]
        scored = component_log_probs(each, texts, strengths=[strength] * 3, batch_size=2)
        for completion, (log_q, log_probs) in zip(done, scored, strict=True):
            total, layout = log_probs.sum(0), each.layout
            assert float(total[0]) == pytest.approx(completion.log_prob_reference)
            for i, name in enumerate(layout.attributes):
                ratio = total[layout.policy[i]] - total[layout.reference[i]]
                assert float(ratio) == pytest.approx(completion.log_ratios[name])
            if strength == 1.0:
                assert torch.allclose(log_q, log_probs[:, list(layout.policy)])


def test_pairs_give_their_weights_back_the_better_the_more_there_are(bank: ModelBank) -> None:
    errors = {}
    truth, everything = np.array(list(TRUE.values())), differences(bank, 900)
    for n in (5, 50, 300):
        fits = [draws_from_pairs(some).mean(axis=0) for some in everything[: n * 3].reshape(3, n, -1)]
        errors[n] = np.mean([np.abs(w - truth).max() for w in fits])
    assert errors[300] < 0.12 and errors[300] < errors[50] < errors[5]


def test_the_interval_holds_the_weights_and_narrows(bank: ModelBank) -> None:
    few, many = from_pairs(bank, pairs_of(bank, 20)), from_pairs(bank, pairs_of(bank, 300))
    assert all(many.low[name] <= TRUE[name] <= many.high[name] for name in TRUE)
    width = [sum(r.high[name] - r.low[name] for name in TRUE) for r in (few, many)]
    assert width[1] < 0.6 * width[0]
    assert math.isclose(sum(many.weights.values()), 1) and many.n == 300 and 0.5 < many.fit <= 1


@pytest.mark.parametrize("horizon", [4, None])
def test_texts_give_the_weights_back_that_wrote_them(bank: ModelBank, horizon: int | None) -> None:
    settings = DecoderSettings(max_new_tokens=16, horizon=horizon, strength=1.5)
    requests = [Request(PROMPT, TRUE, seed=i) for i in range(600)]
    texts = [(PROMPT, c.token_ids) for c in decode(bank, requests, settings)]
    found = from_texts(bank, texts, settings, batch_size=64)
    assert max(abs(found.weights[name] - TRUE[name]) for name in TRUE) < 0.12
    assert found.fit > 0
    # Another law's horizon or strength explains them less well.
    wrong = from_texts(bank, texts[:100], DecoderSettings(horizon=1, strength=1.5), batch_size=64)
    assert wrong.weights != found.weights


def test_draws_are_the_posteriors() -> None:
    """Means and spreads of two attributes' weights, against integration over a grid."""
    generator = np.random.default_rng(0)
    d = generator.normal([0.8, 0.2], 1, size=(12, 2))
    w = np.stack(np.meshgrid(*[np.linspace(0, 6, 601)] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    scaled = d / np.sqrt(np.mean(d**2))
    density = np.exp(-np.logaddexp(0, -(w @ scaled.T)).sum(1) - ((w - PRIOR_MEAN) ** 2).sum(1) / (2 * PRIOR_SD**2))
    share = np.divide(w[:, 0], w.sum(1), out=np.full(len(w), 0.5), where=w.sum(1) > 0)
    check_moments(draws_from_pairs(d)[:, 0], share, density)

    segments = generator.normal([1.0, 0.0], 1, size=(9, 2))
    alpha = np.linspace(0, 1, 2001)
    both = np.stack([alpha, 1 - alpha], axis=1)
    check_moments(draws_from_segments(segments)[:, 0], alpha, np.prod(np.exp(segments) @ both.T, axis=0))


def check_moments(draws: np.ndarray, values: np.ndarray, density: np.ndarray) -> None:
    mean = (values * density).sum() / density.sum()
    spread = math.sqrt(((values - mean) ** 2 * density).sum() / density.sum())
    assert draws.mean() == pytest.approx(mean, abs=0.12 * spread)  # a few hundred independent draws at least
    assert draws.std() == pytest.approx(spread, rel=0.1)


def test_separable_pairs_are_bounded_and_silent_ones_give_equal_weights() -> None:
    agree = np.array([[3.0, 0.1], [2.0, -0.1], [4.0, 0.0]])
    few, many = draws_from_pairs(agree).mean(axis=0), draws_from_pairs(np.repeat(agree, 30, axis=0)).mean(axis=0)
    assert 0.5 < few[0] < many[0] < 1
    assert draws_from_pairs(np.zeros((2, 2))).mean(axis=0) == pytest.approx([0.5, 0.5], abs=0.03)
    assert segment_sums(np.ones((5, 2)), 2).tolist() == [[2, 2], [2, 2], [1, 1]]
    assert segment_sums(np.ones((5, 2)), None).tolist() == [[5, 5]]


def test_each_mistake_has_its_line(bank: ModelBank) -> None:
    with pytest.raises(ValueError, match="pairs: none given"):
        from_pairs(bank, [])
    with pytest.raises(ValueError, match="text 1: response has no tokens"):
        from_pairs(bank, [(PROMPT, [1], [])])
    with pytest.raises(ValueError, match="texts: none given"):
        from_texts(bank, [], DecoderSettings())
