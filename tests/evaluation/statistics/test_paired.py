"""Paired differences, their correction, curves at equal perplexity and sizes: by hand, by scipy, by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import ttest_rel

from evaluation.statistics.paired import (
    Size,
    Spread,
    best_at,
    holm,
    paired_difference,
    power_of,
    spread_of,
    texts_needed,
)


def test_one_text_a_prompt_is_students_paired_test() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.6, 0.2, 12), rng.normal(0.5, 0.2, 12)
    found = paired_difference((a - b).tolist(), range(12))
    assert found.p_value == pytest.approx(ttest_rel(a, b).pvalue) and found.mean.value == pytest.approx((a - b).mean())


def test_texts_of_one_prompt_count_as_one() -> None:
    """The same differences ten times over say no more than once."""
    values = [0.1, -0.05, 0.2, 0.15]
    once = paired_difference(values, range(4))
    again = paired_difference(values * 10, [*range(4)] * 10)
    assert once.p_value == pytest.approx(again.p_value)


def test_where_nothing_scatters_or_nothing_is_known() -> None:
    assert paired_difference([0.25, 0.25], "ab").p_value == 0 and paired_difference([0.0, 0.0], "ab").p_value == 1
    assert paired_difference([0.2, None], "ab").p_value is None and paired_difference([], []).mean.value is None


def test_holm_by_hand() -> None:
    """Of three tested: 3 x .01, 2 x .04, and .045 not below what came before; the untested one counts for nothing."""
    assert holm([0.04, None, 0.01, 0.045]) == pytest.approx([0.08, None, 0.03, 0.08])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_between_two_strengths_the_log_of_perplexity_says_where() -> None:
    found = best_at([4.0, 16.0], [0.5, 0.7], 8.0)
    assert found.side == "equal" and dict(found.shares) == pytest.approx({0: 0.5, 1: 0.5})


@pytest.mark.parametrize(
    ("perplexities", "scores", "wanted", "shares", "side"),
    [
        ([4.0, 8.0], [0.5, 0.7], 20.0, {1: 1.0}, "lower"),  # its end
        ([4.0, 8.0], [0.7, 0.5], 6.0, {0: 1.0}, "lower"),  # better at a weaker strength: that is its best
        ([4.0, 8.0], [0.5, 0.7], 3.0, {0: 1.0}, "higher"),  # it has nothing so cheap
        ([4.0], [0.5], 4.0, {0: 1.0}, "equal"),
        ([8.0, 2.0, 8.0], [0.5, 0.4, 0.7], 4.0, {1: 0.5, 2: 0.5}, "equal"),  # of two places the better one
    ],
)
def test_a_baseline_stands_at_its_own_best(
    perplexities: list[float], scores: list[float], wanted: float, shares: dict[int, float], side: str
) -> None:
    found = best_at(perplexities, scores, wanted)
    assert dict(found.shares) == pytest.approx(shares) and found.side == side


def test_a_curve_without_points_is_named() -> None:
    with pytest.raises(ValueError, match="curve: 0 perplexities"):
        best_at([], [], 4.0)


def test_a_pilots_components_of_variance() -> None:
    """2,000 prompts with three texts a side: each component within 10 % of what it was drawn with."""
    rng = np.random.default_rng(2)
    own = rng.normal(0.1, 0.2, 2000)  # variance .04 between prompts
    one = (own[:, None] + rng.normal(0, 0.3, (2000, 3))).tolist()
    other = rng.normal(0, 0.1, (2000, 3)).tolist()
    found = spread_of(one, other)
    assert found.within == pytest.approx(0.09 + 0.01, rel=0.1) and found.between == pytest.approx(0.04, rel=0.1)


def test_components_that_one_text_a_prompt_can_not_tell_apart() -> None:
    found = spread_of([[0.5], [0.7], [0.9]], [[0.5], [0.5], [0.5]])
    assert found == Spread(pytest.approx(0.04), 0.0)
    with pytest.raises(ValueError, match="prompts: 1 with scores"):
        spread_of([[0.5], []], [[0.5], [0.5]])


def test_power_is_how_often_the_test_finds_it() -> None:
    """1,000 simulated comparisons: a share has an sd of at most .016, and 4 of them a probability of 6e-5."""
    spread, rng = Spread(0.02, 0.08), np.random.default_rng(3)
    said = power_of(spread, 20, 4, 0.1, 0.05)
    differences = rng.normal(0.1, math.sqrt(0.02 + 0.08 / 4), (1000, 20))
    found = [paired_difference(row.tolist(), range(20)).p_value for row in differences]
    share = np.mean([p is not None and p < 0.05 for p in found])
    assert abs(share - said) < 0.064 and 0.5 < said < 0.9


@pytest.mark.parametrize("n", [5, 20, 60, 400, 2000])
def test_a_difference_that_can_not_be_missed_has_power_1(n: int) -> None:
    """Where scipy has no number for the other tail."""
    for times in (12, 20, 37, 40, 100):
        assert power_of(Spread(float(n), 0.0), n, 1, times, 0.02) == pytest.approx(1.0, abs=1e-4)


def test_sizes_take_prompts_first_then_texts() -> None:
    asked = {"difference": 0.1, "power": 0.8, "level": 0.05}
    spread = Spread(0.01, 0.04)
    few = texts_needed(spread, most_prompts=200, most_texts=1000, **asked)
    assert few.enough and few.per_prompt == 1 and few.n_prompts < 60
    assert power_of(spread, few.n_prompts - 1, 1, 0.1, 0.05) < 0.8 <= few.power
    more = texts_needed(spread, most_prompts=20, most_texts=1000, **asked)
    assert more.enough and more.per_prompt > 1
    by_two = texts_needed(spread, most_prompts=20, most_texts=1000, step=2, **asked)
    assert by_two.enough and by_two.per_prompt % 2 == 0
    never = texts_needed(Spread(1.0, 0.0), most_prompts=5, most_texts=50, **asked)
    assert not never.enough and never.power < 0.8 and never.n_prompts == 5
    assert texts_needed(Spread(0.0, 0.0), most_prompts=5, most_texts=50, **asked) == Size(2, 1, 1.0, True)
