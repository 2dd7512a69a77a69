"""Linear models of scores, with intervals that know that texts of one prompt are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.statistics.aggregate import LEAST_CLUSTERS, quantile

# Of the normal equations' eigenvalues, as a share of the greatest: below it a direction of the design is no data.
_RANK = 1e-9


@dataclass(frozen=True)
class Effect:
    """What a linear model says of one question.

    Attributes:
        value: ``None`` where the texts can't say: too few different weights.
        half_width: of the 95 % interval; ``None`` where there are fewer than three clusters.
        n: texts that are scored; ``n_clusters``: that they stand in.
    """

    value: float | None
    half_width: float | None = None
    n: int = 0
    n_clusters: int = 0

    @property
    def shown(self) -> str:
        """``+0.41±.06``; ``±?`` where there is no interval, ``-`` where there is no value."""
        if self.value is None:
            return "-"
        value = f"{round(self.value, 2) + 0.0:+.2f}"  # no -0.00
        return f"{value}±?" if self.half_width is None else f"{value}±{self.half_width:.2f}".replace("±0.", "±.")


def effects(
    design: np.ndarray, scores: np.ndarray, questions: np.ndarray, clusters: Sequence[object]
) -> tuple[Effect, ...]:
    """Least squares, asked for combinations of its coefficients.

    Of the model ``y = X b + e`` a question ``c`` is answered by ``c b = h y`` with ``h = c (X'X)^+ X'``; its variance
    is ``G/(G-1) sum_g (sum_{i in g} h_i e_i)^2`` over G clusters (Liang & Zeger 1986), its quantile Student's with
    G - 1 degrees of freedom. One that is all 0, or lies
    outside the space of the design's rows, has no answer.

    Args:
        design: ``[texts, columns]``.
        scores: ``[texts]``; nan is unscored, and is left out.
        questions: ``[questions, columns]``.
        clusters: one each a text.

    Returns:
        one a question.
    """
    scored = ~np.isnan(scores)
    x, y = design[scored], scores[scored]  # [n, columns], [n]
    numbers: dict[object, int] = {}
    of_text = np.array([numbers.setdefault(c, len(numbers)) for c, s in zip(clusters, scored, strict=True) if s], int)
    n, groups = len(y), len(numbers)
    values, vectors = np.linalg.eigh(x.T @ x)
    there = values > _RANK * max(1.0, float(values.max(initial=0.0)))
    span = vectors[:, there]  # [columns, rank]
    inverse = (span / values[there]) @ span.T  # [columns, columns]
    coefficients = inverse @ (x.T @ y)
    residuals = y - x @ coefficients
    found = []
    for question in questions:
        if not n or not question.any() or not np.allclose(span @ (span.T @ question), question, atol=1e-6):
            found.append(Effect(None, None, n, groups))
            continue
        half_width = None
        if groups >= LEAST_CLUSTERS:
            pulls = (x @ (inverse @ question)) * residuals  # [n]
            sums = np.bincount(of_text, weights=pulls, minlength=groups)  # [groups]
            deviation = math.sqrt(groups / (groups - 1) * float(sums @ sums))
            half_width = quantile(groups) * deviation
        found.append(Effect(float(question @ coefficients), half_width, n, groups))
    return tuple(found)
