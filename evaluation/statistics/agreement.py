"""How far a judge can be believed: against other judges, against known answers, against itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

# A judge that ranks fewer known pairs rightly than this is flagged: guessing is at 0.5.
RANKING_FLOOR = 0.75


@dataclass(frozen=True)
class Agreement:
    """Two judges on the texts that both scored.

    Attributes:
        n: texts that both scored.
        kappa: Cohen's, of scores above 0.5 against the others; ``None`` where either never changes its mind.
        spearman: rank correlation; likewise.
    """

    n: int
    kappa: float | None
    spearman: float | None


def agreement(one: Sequence[float | None], other: Sequence[float | None]) -> Agreement:
    """Agreement of two judges; texts that either left unscored are left out."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    if not pairs:
        return Agreement(0, None, None)
    left, right = map(np.array, zip(*pairs, strict=True))
    above = left > 0.5, right > 0.5
    varied = all(len(set(side.tolist())) > 1 for side in above)
    ranked = all(len(set(side.tolist())) > 1 for side in (left, right))
    return Agreement(
        len(pairs),
        float(cohen_kappa_score(*above)) if varied else None,
        float(spearmanr(left, right).statistic) if ranked else None,
    )


@dataclass(frozen=True)
class KnownPairs:
    """A judge on pairs of which one text is known to carry the attribute and the other its contrary.

    Attributes:
        n, n_unscored: pairs, and those of them with a text unscored.
        accuracy: share of single texts on the right side of 0.5; 0.5 itself is wrong.
        ranking: share of pairs with the right text scored higher; a tie counts half.
        standard_error: of ``ranking``, binomial.
    """

    n: int
    n_unscored: int
    accuracy: float | None
    ranking: float | None
    standard_error: float | None

    @property
    def flagged(self) -> bool:
        """Whether the judge can't be told from one that ranks worse than :data:`RANKING_FLOOR`."""
        return self.ranking is None or self.ranking < RANKING_FLOOR


def known_pairs(right: Sequence[float | None], wrong: Sequence[float | None]) -> KnownPairs:
    """Measure scores of the texts that carry the attribute and of those that do not, pair by pair."""
    pairs = [(a, b) for a, b in zip(right, wrong, strict=True) if a is not None and b is not None]
    n, unscored = len(pairs), len(right) - len(pairs)
    if not pairs:
        return KnownPairs(0, unscored, None, None, None)
    accuracy = sum((a > 0.5) + (b < 0.5) for a, b in pairs) / (2 * n)
    ranking = sum((a > b) + 0.5 * (a == b) for a, b in pairs) / n
    return KnownPairs(n, unscored, accuracy, ranking, math.sqrt(ranking * (1 - ranking) / n))


def self_consistency(runs: Sequence[Sequence[float | None]]) -> tuple[float | None, int]:
    """Mean absolute difference between two scores of one text in repeated runs, and over how many texts.

    Args:
        runs: scores of the same texts, run by run.
    """
    differences = []
    for scores in zip(*runs, strict=True):
        given = [score for score in scores if score is not None]
        if len(given) > 1:
            gaps = [abs(a - b) for i, a in enumerate(given) for b in given[i + 1 :]]
            differences.append(math.fsum(gaps) / len(gaps))
    return (math.fsum(differences) / len(differences) if differences else None), len(differences)


def agreements(scores: Mapping[str, Sequence[float | None]]) -> dict[tuple[str, str], Agreement]:
    """Every two judges of one attribute, by their labels; texts in one order for all."""
    labels = sorted(scores)
    return {(a, b): agreement(scores[a], scores[b]) for i, a in enumerate(labels) for b in labels[i + 1 :]}
