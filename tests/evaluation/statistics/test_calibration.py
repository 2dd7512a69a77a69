"""Temperature and reliability: found back from simulated judges."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.statistics.calibration import calibration_error, reliability, temperature


def simulated(scale: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Log odds that are `scale` times too large, and the labels that follow the true ones."""
    generator = np.random.default_rng(0)
    honest = generator.normal(0, 2, n)
    return honest * scale, (generator.random(n) < 1 / (1 + np.exp(-honest))).astype(int)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_an_overconfident_judge_is_cooled(scale: float) -> None:
    logits, labels = simulated(scale)
    assert temperature(logits, labels) == pytest.approx(scale, rel=0.05)


def test_reliability_tells_an_honest_judge_from_a_boastful_one() -> None:
    logits, labels = simulated(1.0)
    honest = reliability(1 / (1 + np.exp(-logits)), labels)
    boastful = reliability(1 / (1 + np.exp(-3 * logits)), labels)
    assert sum(each.n for each in honest) == len(labels) and len(honest) == 5
    assert calibration_error(honest) < 0.02 < 0.08 < calibration_error(boastful)
    (single,) = reliability([1.0, 1.0], [1, 0])  # the last bin holds its upper edge
    assert (single.low, single.high, single.n, single.share) == (0.8, 1.0, 2, 0.5)
    assert calibration_error([]) == 0.0


def test_few_texts_that_are_all_right_make_no_score_certain() -> None:
    logits, labels = np.array([0.5] * 20 + [-0.5] * 20), np.repeat([1, 0], 20)
    bold, cautious = temperature(logits, labels), temperature(logits, labels, cautious=True)
    assert 1 / (1 + np.exp(-0.5 / bold)) > 0.999
    assert 1 / (1 + np.exp(-0.5 / cautious)) == pytest.approx(21 / 22, abs=1e-3)  # Platt's target
    many = np.random.default_rng(0).normal(size=20000) * 2
    coins = (np.random.default_rng(1).random(20000) < 1 / (1 + np.exp(-many))).astype(int)
    assert temperature(many, coins, cautious=True) == pytest.approx(temperature(many, coins), rel=1e-2)
