"""How far a weight controls a score: the curve of one attribute, and what each weight does to all scores.

Perfect control would score every text its persona's weight: the diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from scipy.stats import spearmanr

from evaluation.statistics.aggregate import Mean, clustered_mean
from evaluation.statistics.linear import Effect, effects

# Points of a curve: where there are more different weights, they are put together in this many ranges.
MOST_POINTS = 12


@dataclass(frozen=True)
class Point:
    """The texts of one weight, or of a range of them: its mean weight, from ``low`` to ``high``, and their score."""

    weight: float
    low: float
    high: float
    score: Mean


@dataclass(frozen=True)
class ControlCurve:
    """Scores of one attribute against its weight.

    Attributes:
        points: by weight, rising; those without a scored text have a score without a value.
        slope: of the least-squares line through the texts; 1 is perfect control, 0 none.
        spearman: rank correlation of weight and score over texts; ``None`` where either is all the same.
        monotone: whether no scored point lies below the one before it; ``None`` where there are fewer than two.
    """

    points: tuple[Point, ...]
    slope: Effect
    spearman: float | None
    monotone: bool | None


def control_curve(
    weights: Sequence[float],
    scores: Sequence[float | None],
    clusters: Sequence[object],
    *,
    most_points: int = MOST_POINTS,
) -> ControlCurve:
    """One attribute's curve.

    A point's mean and interval are those of :func:`evaluation.statistics.aggregate.clustered_mean`. The slope is
    ``sum (w - mean w)(s - mean s) / sum (w - mean w)^2`` over texts, with the interval of
    :func:`evaluation.statistics.linear.effects`. Texts of the reference alone are the caller's to leave out: they have
    no weights, which is another thing than a weight of 0 among others.

    Args:
        weights, scores, clusters: one each a text; ``None``: unscored.
        most_points: where there are more different weights, ranges of equal width are the points.
    """
    w = np.asarray(weights, dtype=np.float64)
    s = np.array([np.nan if score is None else score for score in scores], dtype=np.float64)
    points = []
    for mine in _ranges(w, most_points):
        some = clustered_mean([scores[i] for i in mine], [clusters[i] for i in mine])
        points.append(Point(float(w[mine].mean()), float(w[mine].min()), float(w[mine].max()), some))
    design = np.column_stack([np.ones(len(w)), w])  # [texts, 2]
    (slope,) = effects(design, s, np.array([[0.0, 1.0]]), clusters)
    scored = ~np.isnan(s)
    varied = all(len(np.unique(side[scored])) > 1 for side in (w, s))
    means = [point.score.value for point in points if point.score.value is not None]
    return ControlCurve(
        tuple(points),
        slope,
        float(spearmanr(w[scored], s[scored]).statistic) if varied else None,
        all(a <= b for a, b in pairwise(means)) if len(means) > 1 else None,
    )


def _ranges(weights: np.ndarray, most: int) -> list[np.ndarray]:
    """Indices of the texts of each point, by weight."""
    if not len(weights):
        return []
    _, which = np.unique(weights, return_inverse=True)
    if which.max() >= most:
        low, high = float(weights.min()), float(weights.max())
        which = np.minimum(((weights - low) / (high - low) * most).astype(int), most - 1)
    return [mine for b in range(int(which.max()) + 1) if len(mine := np.flatnonzero(which == b))]


@dataclass(frozen=True)
class Leakage:
    """What each attribute's weight does to all attributes' scores.

    Attributes:
        effects: ``[weight of][score of]``, see :func:`leakage`; the diagonal is wanted, the rest is leakage.
        baseline: what an effect is measured from.
    """

    effects: tuple[tuple[Effect, ...], ...]
    baseline: Literal["reference", "others"]


def leakage(weights: np.ndarray, scores: np.ndarray, clusters: Sequence[object]) -> Leakage:
    """Effect of every weight on every score, the other weights held: perfect control is 1 on the diagonal, 0 elsewhere.

    For each attribute j scored, over texts: ``s_j = a_j + sum_i b_ij w_i + e``, least squares, intervals as of
    :func:`evaluation.statistics.linear.effects`.

    - With texts of the reference alone (all weights 0) entry i, j is ``b_ij``: how far the score of j is from the
      reference's where the weight of i is 1.
    - Without them weights that sum to 1 leave ``a_j`` open, and entry i, j is ``b_ij - mean_{k != j} b_kj``: how far it
      is from the mean of what all attributes but j make of it. The entries of a column off its diagonal sum to 0 then,
      and of two attributes there is no such entry.

    A simple slope of ``s_j`` on ``w_i`` would show leakage where there is none: as one weight rises the others fall.

    Args:
        weights: ``[texts, attributes weighted]``; each is above 0 in some text.
        scores: ``[texts, attributes scored]``, of which the first are those weighted, in their order; nan: unscored.
        clusters: one each a text.

    Returns:
        effects without a value where the texts' weights can't tell them apart, as of a single persona.

    Raises:
        ValueError: fewer columns of scores than of weights.
    """
    n, m = weights.shape
    if scores.shape[1] < m:
        raise ValueError(f"scores: {scores.shape[1]} columns for {m} weights; give the scores of each, nan where none")
    from_reference = bool((~weights.any(axis=1)).any())
    design = np.column_stack([np.ones(n), weights])  # [texts, 1 + attributes]
    columns = []
    for j in range(scores.shape[1]):
        others = np.array([float(k != j) for k in range(m)])
        baseline = others / max(1.0, others.sum()) * (not from_reference)
        questions = np.column_stack([np.zeros(m), np.eye(m) - baseline])  # [attributes, 1 + attributes]
        columns.append(effects(design, scores[:, j], questions, clusters))
    return Leakage(tuple(zip(*columns, strict=True)), "reference" if from_reference else "others")
