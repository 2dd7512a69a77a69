"""Responses to strength and the choice among them, on scores that are made up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from evaluation.statistics.dose import Response, Unscored, choose, fit, shown_ratio
from evaluation.statistics.linear import Effect

GRID = (0.0, 0.5, 1.0, 2.0)


def made(curve: Callable[[float], float], *, noise: float = 0.01, prompts: int = 8, seed: int = 0) -> Response:
    """Scores on a curve: each prompt has its own level, the same at all strengths, and each text its own noise."""
    random = np.random.default_rng(seed)
    levels = random.normal(0.5, 0.1, prompts)
    texts = [(s, levels[p] + curve(s) + random.normal(0, noise), p) for s in GRID for p in range(prompts)]
    return fit(*zip(*texts, strict=True))


def test_a_lift_is_paired_by_prompt() -> None:
    """Levels of prompts differ by ten times the noise, and are no part of a difference's interval."""
    response = made(lambda s: 0.2 * s)
    assert response.strengths == GRID
    for strength in (0.5, 0.7, 2.0):
        found = response.at(strength)
        assert found.value == pytest.approx(0.2 * strength, abs=0.015)
        assert found.half_width is not None and found.half_width < 0.02
    assert [each.value for each in response.measured] == pytest.approx([0.1, 0.2, 0.4], abs=0.015)
    assert response.reference.half_width is not None and response.reference.half_width > 0.04


def test_what_falls_is_pooled_and_both_ways_agree() -> None:
    values = {0.0: [0.4, 0.6], 0.5: [0.3, 0.5], 1.0: [0.7, 0.9], 2.0: [0.6, 0.8]}  # means .5 .4 .8 .7
    response = fit(*zip(*[(s, v, p) for s, each in values.items() for p, v in enumerate(each)], strict=True))
    assert response.fitted == pytest.approx([-0.05, -0.05, 0.25, 0.25])
    assert response.at(1.5).value == pytest.approx(0.25) and response.at(0.75).value == pytest.approx(0.1)
    assert [each.value for each in response.measured] == pytest.approx([-0.1, 0.3, 0.2])
    assert response.least(0.1) == pytest.approx(0.75) and response.most(0.1) == pytest.approx(0.75)
    assert response.least(0.25) == 1.0 and response.most(0.25) == 2.0  # flat: either end
    assert response.least(0.3) is None and response.most(-0.06) is None and response.least(-0.05) == 0.0
    with pytest.raises(ValueError, match=r"2\.5 was not measured; give one from 0 to 2"):
        response.at(2.5)


def test_by_tokens_it_is_the_perplexity_of_all_texts_together() -> None:
    log_probs, tokens = np.array([-10.0, -40.0, -12.0, -60.0]), np.array([10, 20, 6, 20])
    response = fit([0, 0, 1, 1], (-log_probs / tokens).tolist(), [0, 1, 0, 1], tokens.tolist())
    assert response.reference.value == pytest.approx(50 / 30)
    assert response.at(1.0).value == pytest.approx(72 / 26 - 50 / 30)
    assert shown_ratio(Effect(math.log(1.1), 0.02)) == "x1.10±.02" and shown_ratio(Effect(None)) == "-"


def test_without_any_score_there_is_no_curve() -> None:
    assert fit([0, 0, 1], [0.5, math.nan, 0.6], [0, 1, 0]).measured[0].value == pytest.approx(0.1)
    with pytest.raises(Unscored, match="strength 1"):
        fit([0, 1], [0.5, math.nan], [0, 0])
    with pytest.raises(Unscored, match="reference alone"):
        fit([1], [0.5], [0])


def responses(slopes: Sequence[float], **how: float) -> dict[str, Response]:
    return {name: made(lambda s, k=k: k * s, seed=i, **how) for i, (name, k) in enumerate(zip("abc", slopes))}  # type: ignore[misc,arg-type]  # noqa: B905


def lifts_at(lifts: Mapping[str, Response], of: Mapping[str, float]) -> list[float]:
    return [lifts[name].at(strength).value or 0.0 for name, strength in of.items()]


NOW = dict.fromkeys("abc", 1.0)


def test_all_are_lifted_as_the_one_that_has_least_within_the_budget() -> None:
    lifts, costs = responses([0.1, 0.2, 0.3], noise=0.001), responses([0.05, 0.05, 0.2], noise=0.001)
    choice = choose(lifts, costs, NOW, budget=0.05)  # most: 1, 1, .25; lifts there .1, .2, .075
    assert choice.limit == "c" and choice.lift == pytest.approx(0.075, abs=0.005)
    strengths = {name: each.strength for name, each in choice.of.items()}
    assert strengths == pytest.approx({"a": 0.75, "b": 0.375, "c": 0.25}, abs=0.03)
    assert lifts_at(lifts, strengths) == pytest.approx([choice.lift] * 3, abs=0.004)  # strengths have two decimals
    assert max(costs[name].at(s).value or 0 for name, s in strengths.items()) < 0.052
    assert np.ptp(lifts_at(lifts, NOW)) > 0.15  # as it was


def test_a_lift_that_is_asked_for_is_had_where_the_budget_lets() -> None:
    lifts, costs = responses([0.1, 0.2, 0.3], noise=0.001), responses([0.05, 0.05, 0.2], noise=0.001)
    choice = choose(lifts, costs, NOW, budget=0.05, lift=0.1)
    strengths = [each.strength for each in choice.of.values()]
    assert choice.limit is None and strengths == pytest.approx([1.0, 0.5, 0.25], abs=0.05)
    floor = choose(lifts, costs, NOW, budget=0.05, lift=0.1, least=0.6)
    assert floor.of["b"].strength == 0.6 and floor.of["c"].most is None  # what the budget allows it is not known


def test_what_the_judge_can_not_tell_apart_does_not_set_the_lift() -> None:
    lifts = responses([0.2, 0.3, 0.0], noise=0.02)
    choice = choose(lifts, responses([0.1, 0.1, 0.1], noise=0.001), NOW, budget=0.05)
    assert choice.limit == "a" and not choice.of["c"].told_apart
    assert choice.of["c"].strength == NOW["c"]
    nothing = choose({"c": lifts["c"]}, {"c": made(lambda s: 0.1 * s)}, NOW, budget=0.05)
    assert nothing.lift is None and nothing.limit is None


def test_a_budget_that_no_strength_keeps() -> None:
    choice = choose(responses([0.2]), responses([0.1], noise=0.001), NOW, budget=-0.05)
    assert choice.of["a"].most is None and choice.of["a"].strength == 1.0 and choice.lift is None
