"""Joint adherence, the worst attribute and the Pareto front: by hand and by definition."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from evaluation.statistics.aggregate import clustered_mean
from evaluation.statistics.joint import carries_all, joint_adherence, share, worst_attribute
from evaluation.statistics.pareto import pareto_front, perplexity


@pytest.mark.parametrize(
    ("scores", "carried"),
    [
        ([0.6, 0.51], 1.0),
        ([0.6, 0.5], 0.0),  # half is not above half
        ([1.0], 1.0),
        ([0.9, None], None),
        ([0.1, None], None),  # not a failure either: see the docstring
        ([None], None),
    ],
)
def test_a_text_carries_all_or_not_or_nobody_knows(scores: list[float | None], carried: float | None) -> None:
    assert carries_all(scores) == carried


def test_joint_adherence_by_hand() -> None:
    found = joint_adherence([[0.9, 0.8], [0.9, 0.2], [0.7], [0.6, None]], ["p", "q", "p", "r"])
    assert found == clustered_mean([1.0, 0.0, 1.0, None], ["p", "q", "p", "r"])
    assert (found.value, found.n, found.n_unscored) == (pytest.approx(2 / 3), 3, 1)
    with pytest.raises(ValueError, match="scores: none given"):
        joint_adherence([[]], ["p"])


def test_a_share_of_all_or_nothing_is_not_without_doubt() -> None:
    """Of 12 prompts that all succeed the true share may well be .78: .78^12 is .05."""
    for value in (0.0, 1.0):
        found = share([value] * 24, list(range(12)) * 2)
        assert found.half_width == pytest.approx(1 - 0.05 ** (1 / 12)) and found.shown == f"{value:.2f}±.22"
    assert share([1.0, 1.0], ["p", "p"]).half_width is None
    assert share([1.0, 0.0, None], "pqr") == clustered_mean([1.0, 0.0, None], "pqr")
    assert share([None], "p").value is None


def test_an_unscored_judgment_does_not_pull_the_share() -> None:
    """Scores go missing at random: the share of what is left is that of all, within its error."""
    generator = np.random.default_rng(0)
    full = generator.random((20_000, 3))
    holes = [[None if generator.random() < 0.3 else float(s) for s in row] for row in full]
    # Standard error of .125 over about 6,900 texts: .004; five of them is missed with a probability of 6e-7.
    assert joint_adherence(holes, range(20_000)).value == pytest.approx(0.125, abs=0.02)


def test_the_worst_attribute() -> None:
    scores = {"E": [0.9, None], "N": [0.25, 0.25], "T": [0.25, 0.25], "J": [None, None]}
    found = worst_attribute(scores, "pq")
    assert found is not None and found[0] == "N" and found[1] == clustered_mean([0.25, 0.25], "pq")
    assert worst_attribute({"J": [None]}, "p") is None and worst_attribute({}, []) is None


def test_a_front_by_hand() -> None:
    points = [(3.0, 0.5), (4.0, 0.7), (4.0, 0.6), (5.0, 0.7), (2.0, 0.1), (4.0, 0.7), (None, 0.9), (1.0, math.nan)]
    assert pareto_front(points, more_is_better=(False, True)) == [4, 0, 1, 5]
    assert pareto_front([]) == []


@pytest.mark.parametrize("better", list(itertools.product((True, False), repeat=2)))
def test_a_front_is_what_nothing_beats(better: tuple[bool, bool]) -> None:
    generator = np.random.default_rng(1)
    points = [(float(a), float(b)) for a, b in generator.integers(0, 12, (80, 2))]
    signs = [1 if more else -1 for more in better]

    def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
        gaps = [sign * (a - b) for sign, a, b in zip(signs, one, other, strict=True)]
        return min(gaps) >= 0 and max(gaps) > 0

    expected = {i for i, point in enumerate(points) if not any(beats(other, point) for other in points)}
    assert set(pareto_front(points, more_is_better=better)) == expected and 0 < len(expected) < 80


def test_perplexity() -> None:
    assert perplexity(-2 * math.log(3), 2) == pytest.approx(3)
    assert math.isnan(perplexity(0.0, 0)) and math.isfinite(perplexity(-1e9, 1))
