"""Do scores mean what they say? Of texts scored 0.8, eight in ten should carry the attribute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar


@dataclass(frozen=True)
class Bin:
    """Texts whose scores lie in [low, high): how many, their mean score, and the share that is right."""

    low: float
    high: float
    n: int
    mean_score: float
    share: float


def temperature(logits: np.ndarray, labels: np.ndarray, *, cautious: bool = False) -> float:
    """The number that logits are divided by for the least log loss (Guo et al. 2017).

    Args:
        logits: log odds, ``[texts]``; of a model that has not seen these texts.
        labels: 0 or 1, ``[texts]``.
        cautious: labels are ``(n + 1) / (n + 2)`` and the rest to 1, n being the texts of that label (Platt 1999):
            a few texts that are all on their right side do not make every later score 0 or 1.
    """
    labels = np.asarray(labels) > 0
    signed = np.where(labels, 1.0, -1.0) * np.asarray(logits, dtype=np.float64)
    if cautious:
        counts = np.where(labels, labels.sum(), (~labels).sum())  # [texts]: of its own label
        wrong = 1.0 / (counts + 2.0)
    else:
        wrong = np.zeros(len(signed))

    def loss(log_t: float) -> float:
        cooled = signed / math.exp(log_t)
        return float((np.logaddexp(0.0, -cooled) + wrong * cooled).mean())

    best = minimize_scalar(loss, bounds=(-3, 3))
    return math.exp(float(best.x))


def reliability(scores: Sequence[float], labels: Sequence[int], n_bins: int = 5) -> list[Bin]:
    """Texts by score, in bins of equal width; empty ones are left out."""
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    which = np.minimum((np.asarray(scores) * n_bins).astype(int), n_bins - 1)
    found = []
    for b in range(n_bins):
        mine = which == b
        if mine.any():
            score, share = float(np.asarray(scores)[mine].mean()), float(np.asarray(labels)[mine].mean())
            found.append(Bin(float(edges[b]), float(edges[b + 1]), int(mine.sum()), score, share))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance of a bin's share from its mean score, weighted by texts (expected calibration error)."""
    total = sum(each.n for each in bins)
    return math.fsum(each.n * abs(each.share - each.mean_score) for each in bins) / total if total else 0.0
