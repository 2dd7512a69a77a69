"""What a row says that its bound has cost."""

from __future__ import annotations

import math
import random
from statistics import NormalDist, fmean, median

import pytest

from mpg.laws.bound import BOUND_FLOOR, Window

SIGMA = 2.0  # of log R over 8 tokens, as measured (docs/method.md); its mean is such that E[R] = 1


def test_the_bound_of_rows_is_not_fooled_by_a_tail_that_few_of_them_draw() -> None:
    """Rows of 30 chunks are right on average, and most of them; ``mean (R - M)+`` says far too little in most."""
    drawn, normal, n = random.Random(5), NormalDist(-(SIGMA**2) / 2, SIGMA), 10_000
    truth = 1 - fmean(min(math.exp(normal.inv_cdf((i + 0.5) / n)), BOUND_FLOOR) for i in range(n))
    found, excess = [], []
    for _ in range(400):
        ratios = [math.exp(drawn.gauss(normal.mean, SIGMA)) for _ in range(30)]
        window = Window(size=0)  # the bound stays at its floor
        for ratio in ratios:
            window.record(ratio)
        assert window.n_clipped == sum(ratio > BOUND_FLOOR for ratio in ratios)
        found.append(window.tv_bound)
        excess.append(fmean(max(0.0, ratio - BOUND_FLOOR) for ratio in ratios))
    assert fmean(found) == pytest.approx(truth, abs=0.02) and abs(median(found) - truth) < 0.05
    assert median(excess) < 0.7 * truth


def test_a_ratio_beyond_all_numbers_costs_what_its_bound_is_short_of() -> None:
    window = Window(size=4)
    window.record(math.inf)
    assert window.tv_bound == 0.0 and window.n_clipped == 1
    assert Window(size=4).tv_bound == 0.0
