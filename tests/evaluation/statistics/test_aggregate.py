"""Panels, means and their intervals: against definitions and by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from evaluation.items import is_independent
from evaluation.statistics.aggregate import PANEL_RULES, Mean, clustered_mean, panel


def test_panels() -> None:
    assert panel([0.2, 0.9, None]) == pytest.approx(0.55)
    assert panel([0.2, 0.9, 0.8], "median") == 0.8
    assert panel([0.2, 0.9, 0.8], "majority") == 1.0
    assert panel([0.2, 0.9, None, 0.5], "majority") == 0.5
    assert panel([None, None]) is None
    with pytest.raises(ValueError, match="panel: 'best' is no rule; choose from mean"):
        panel([0.5], "best")


@pytest.mark.parametrize("rule", PANEL_RULES)
def test_no_panel_depends_on_the_order_of_its_judges(rule: str) -> None:
    scores = [0.1, 0.7, None, 0.30000000000000004, 0.2]
    assert len({panel(order, rule) for order in itertools.permutations(scores)}) == 1


def test_unscored_texts_are_counted_and_never_averaged() -> None:
    mean = clustered_mean([1.0, None, 0.0, None], ["a", "a", "b", "b"])
    assert (mean.value, mean.n, mean.n_unscored) == (0.5, 2, 2)
    assert mean.shown == "0.50±? (2 unscored)"
    assert clustered_mean([None], ["a"]).shown == "- (1 unscored)"
    assert clustered_mean([], []) == Mean(None, 0, 0)
    assert clustered_mean([0.25, 0.75], ["a", "a"]).half_width is None  # one prompt says nothing of others


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.5], "0.50±?"),  # one prompt
        ([0.4, 0.4], "0.40±?"),  # two that happen to agree: no width, and no knowledge
        ([0.2, 0.8], "0.50±?"),
        ([0.0, 1.0, 1.0, 0.0], "0.50±?"),  # wider than half the scale
        ([0.4, 0.5, 0.6], "0.50±.25"),
        ([0.4, 0.4, 0.4], "0.40±.00"),
        ([0.5, None, None, 0.5], "0.50±? (2 unscored)"),  # prompts that were scored count
    ],
)
def test_an_interval_that_says_nothing_is_not_shown(values: list[float | None], shown: str) -> None:
    mean = clustered_mean(values, range(len(values)))
    assert mean.shown == shown and ".99" not in mean.shown


def test_the_interval_covers_the_truth_where_texts_of_a_prompt_are_alike() -> None:
    """Twenty prompts of ten texts, prompts differing twice as much as texts: 95 % where an unclustered one has 50."""
    generator = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 10)
    covered = naive = 0
    for _ in range(600):
        values = 0.5 + generator.normal(0, 0.1, 20)[clusters] + generator.normal(0, 0.05, 200)
        mean = clustered_mean(values.tolist(), clusters.tolist())
        assert mean.value is not None and mean.half_width is not None
        covered += abs(mean.value - 0.5) < mean.half_width
        naive += abs(mean.value - 0.5) < 1.96 * values.std() / np.sqrt(200)
    # Binomial(600, .95) lies in 549..591 but for a probability below 1e-4.
    assert 549 <= covered <= 591
    assert naive < 420


def test_the_preference_models_are_no_judges() -> None:
    assert is_independent("classifier@1") and not is_independent("log-ratio@1")
