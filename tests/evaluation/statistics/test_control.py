"""Curves of control and leakage: by hand, and against what they are meant to find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress

from evaluation.statistics.control import MOST_POINTS, control_curve, leakage
from evaluation.statistics.linear import Effect, effects
from personas.weights import dirichlet, simplex_lattice

NAMES = ("a", "b", "c")


def lattice(steps: int = 2, *, control: bool = True, times: int = 4) -> np.ndarray:
    """Weights, ``[texts, 3]``: every persona ``times`` times, and the reference."""
    vectors = [[persona.weights[name] for name in NAMES] for persona in simplex_lattice(NAMES, steps)]
    return np.array([*vectors, *([[0.0] * 3] if control else [])] * times)


def test_a_curve_by_hand() -> None:
    curve = control_curve([0, 0, 0.5, 0.5, 1, 1], [0.1, 0.3, 0.5, None, 0.6, 0.8], ["p", "q", "p", "q", "p", "q"])
    assert [point.weight for point in curve.points] == [0, 0.5, 1]
    assert [point.score.value for point in curve.points] == pytest.approx([0.2, 0.5, 0.7])
    assert [point.score.n_unscored for point in curve.points] == [0, 1, 0]
    # Weights 0 0 .5 1 1, mean .5; scores less their mean .46: -.36 -.16 .04 .14 .34; Sxy = .18+.08+.07+.17, Sxx = 1.
    assert curve.slope.value == pytest.approx(0.5) and curve.slope.n == 5
    assert curve.spearman == pytest.approx(np.corrcoef([1.5, 1.5, 3, 4.5, 4.5], [1, 2, 3, 4, 5])[0, 1])
    assert curve.monotone is True


def test_a_curve_that_falls_is_not_monotone_and_one_of_a_single_weight_says_nothing() -> None:
    assert control_curve([0, 0.5, 1], [0.2, 0.9, 0.8], "pqr").monotone is False
    flat = control_curve([0, 0.5, 1], [0.4, 0.4, 0.4], "pqr")
    assert flat.monotone is True and flat.spearman is None and flat.slope.value == pytest.approx(0)
    single = control_curve([1, 1], [0.2, 0.3], "pq")
    assert (single.slope.value, single.spearman, single.monotone) == (None, None, None)
    unscored = control_curve([0, 1], [None, None], "pq")
    assert (unscored.slope.value, unscored.spearman, unscored.monotone) == (None, None, None)
    assert [point.score.n_unscored for point in unscored.points] == [1, 1]
    assert control_curve([], [], []).points == ()


def test_perfect_control_has_slope_one() -> None:
    weights = lattice()[:, 0]
    curve = control_curve(weights.tolist(), weights.tolist(), range(len(weights)))
    assert curve.slope.value == pytest.approx(1) and curve.slope.half_width == pytest.approx(0, abs=1e-9)
    assert curve.spearman == pytest.approx(1) and curve.monotone


def test_many_weights_are_put_together_and_every_text_stays_in_one_point() -> None:
    weights = [persona.weights["a"] for persona in dirichlet(NAMES, 400)]
    curve = control_curve(weights, weights, range(400))
    assert len(curve.points) <= MOST_POINTS and sum(point.score.n for point in curve.points) == 400
    for point, after in zip(curve.points, curve.points[1:], strict=False):
        assert point.low <= point.weight <= point.high < after.low
        assert point.score.value == pytest.approx(point.weight)


def test_a_slope_is_that_of_least_squares_and_its_interval_covers_where_texts_of_a_prompt_are_alike() -> None:
    """Twenty prompts whose own slopes differ: 95 % of the intervals hold the truth, of those without clusters few."""
    generator = np.random.default_rng(0)
    weights, clusters = np.tile([0, 0.25, 0.5, 0.75, 1.0], 100), np.repeat(np.arange(20), 25)
    covered = naive = 0
    for _ in range(300):
        own = generator.normal(0, 0.4, 20)[clusters]
        scores = 0.3 + (0.4 + own) * weights + generator.normal(0, 0.05, 500)
        slope = control_curve(weights.tolist(), scores.tolist(), clusters.tolist()).slope
        plain = linregress(weights, scores)
        assert slope.value == pytest.approx(plain.slope) and slope.half_width is not None
        covered += abs(slope.value - 0.4) <= slope.half_width
        naive += abs(plain.slope - 0.4) <= 1.96 * plain.stderr
    # Of 300, a true coverage of .95 gives fewer than 270 with a probability below 1e-4.
    assert covered >= 270 and naive < 200


@pytest.mark.parametrize("control", [True, False])
def test_perfect_control_leaks_nothing_and_what_leaks_is_found(control: bool) -> None:
    weights = lattice(control=control)
    matrix = np.array([[0.6, 0.2, -0.2], [-0.1, 0.5, 0.3], [0.1, -0.2, 0.4]])  # [weight of, score of]
    for true, scores in ((np.eye(3), weights), (matrix, 0.3 + weights @ matrix)):
        found = leakage(weights, scores, range(len(weights)))
        assert found.baseline == ("reference" if control else "others")
        values = np.array([[effect.value for effect in row] for row in found.effects])
        if not control:
            # Each is measured from the mean of the others off the diagonal.
            true = true - np.array([(true[:, j].sum() - true[j, j]) / 2 for j in range(3)])
        np.testing.assert_allclose(values, true, atol=1e-9)


def test_an_attribute_without_a_weight_is_scored_too_and_unscored_texts_are_left_out() -> None:
    weights = lattice()
    scores = np.column_stack([weights, 0.5 - 0.5 * weights[:, 0]])
    scores[::7, 3] = np.nan
    found = leakage(weights, scores, range(len(weights)))
    assert [len(row) for row in found.effects] == [4, 4, 4]
    assert [row[3].value for row in found.effects] == pytest.approx([-0.5, 0, 0], abs=1e-9)
    assert {row[3].n for row in found.effects} == {int((~np.isnan(scores[:, 3])).sum())}
    with pytest.raises(ValueError, match="scores: 2 columns for 3 weights"):
        leakage(weights, weights[:, :2], range(len(weights)))


def test_personas_that_can_not_be_told_apart_have_no_effect() -> None:
    """One persona says nothing of its weights; with the reference beside it, their sum is known and they are not."""
    for weights in (np.full((6, 2), 0.5), np.array([[0.5, 0.5]] * 3 + [[0.0, 0.0]] * 3)):
        found = leakage(weights, weights, range(6))
        assert {effect.value for row in found.effects for effect in row} == {None}
    single = leakage(np.array([[1.0], [0.0]] * 3), np.array([[0.8], [0.3]] * 3), range(6))
    assert single.effects[0][0].value == pytest.approx(0.5)
    assert leakage(np.ones((4, 1)), np.ones((4, 1)), range(4)).effects[0][0].value is None
    pair = leakage(np.eye(2)[[0, 1] * 3], np.eye(2)[[0, 1] * 3], range(6))  # each is the other's only baseline
    assert [[effect.value for effect in row] for row in pair.effects] == [
        [pytest.approx(1), None],
        [None, pytest.approx(1)],
    ]


def test_effects_without_texts_or_with_few_clusters() -> None:
    question = np.array([[0.0, 1.0]])
    assert effects(np.zeros((0, 2)), np.zeros(0), question, []) == (Effect(None, None, 0, 0),)
    (two,) = effects(np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([0.1, 0.4]), question, ["p", "q"])
    assert two.value == pytest.approx(0.3) and two.half_width is None and two.shown == "+0.30±?"
    assert Effect(-0.001, 0.0412, 9, 3).shown == "+0.00±.04" and Effect(None).shown == "-"
