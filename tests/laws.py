"""Statistics of the law tests: one joint chi-square, with its false-alarm probability stated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from scipy.stats import chi2

# Cells expected fewer times than this are pooled, as Pearson's approximation asks.
MIN_EXPECTED = 5.0


def chi_square_p_value(samples: Iterable[tuple[int, ...]], law: Mapping[tuple[int, ...], float]) -> float:
    """p-value of the samples under the law; 0.0 if a sample has probability zero there."""
    counts = Counter(samples)
    n = sum(counts.values())
    if any(law.get(outcome, 0.0) <= 0.0 for outcome in counts):
        return 0.0
    statistic, cells, pooled_observed, pooled_expected = 0.0, 0, 0.0, 0.0
    for outcome, probability in law.items():
        expected, observed = n * probability, counts[outcome]
        if expected < MIN_EXPECTED:
            pooled_observed += observed
            pooled_expected += expected
            continue
        statistic += (observed - expected) ** 2 / expected
        cells += 1
    if pooled_expected > 0:
        statistic += (pooled_observed - pooled_expected) ** 2 / pooled_expected
        cells += 1
    return float(chi2.sf(statistic, cells - 1))


def total_variation(left: Mapping[tuple[int, ...], float], right: Mapping[tuple[int, ...], float]) -> float:
    """Half the L1 distance between two laws."""
    return 0.5 * sum(abs(left.get(key, 0.0) - right.get(key, 0.0)) for key in {*left, *right})
