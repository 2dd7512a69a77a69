"""Two ways of writing on the same prompts: their paired difference, at equal perplexity; how many texts it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, variance
from typing import Literal

from scipy.stats import nct
from scipy.stats import t as student_t

from evaluation.statistics.aggregate import Mean, clustered_mean, quantile


@dataclass(frozen=True)
class Difference:
    """A mean paired difference with its 95 % interval, and how likely one as far from 0 is where there is none.

    Attributes:
        p_value: two-sided, of one comparison; ``None``: of fewer than two clusters.
    """

    mean: Mean
    p_value: float | None


def paired_difference(differences: Sequence[float | None], clusters: Sequence[object]) -> Difference:
    """Mean of paired differences, tested against 0 by Student's t over clusters (prompts).

    The standard error is that of :func:`evaluation.statistics.aggregate.clustered_mean`, the degrees of freedom G - 1.

    Args:
        differences: of each pair; ``None``: either side is unscored.
        clusters: one each a pair.
    """
    mean = clustered_mean(differences, clusters)
    if mean.value is None or mean.half_width is None:
        return Difference(mean, None)
    error = mean.half_width / quantile(mean.n_clusters)
    if error == 0:
        return Difference(mean, float(mean.value == 0))
    return Difference(mean, float(2 * student_t.sf(abs(mean.value) / error, mean.n_clusters - 1)))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Each p-value corrected for all of them: rejecting those at most ``a`` errs once with probability ``a`` at most.

    The k-th smallest of m is ``max_{j <= k} min(1, (m - j + 1) p_(j))``, whatever their dependence (Holm 1979).

    Args:
        p_values: ``None``: not tested, and not counted.
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for place, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - place) * p))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True)
class OnCurve:
    """A place on a method's curve of strengths.

    Attributes:
        shares: (index of a point, share of it): two neighbours that share sums of 1 are mixed of, or one point.
        side: of the perplexity wanted: ``equal``, or the place has a ``lower`` or a ``higher`` one.
    """

    shares: tuple[tuple[int, float], ...]
    side: Literal["equal", "lower", "higher"]


def best_at(perplexities: Sequence[float], scores: Sequence[float], wanted: float) -> OnCurve:
    """The best that a method does at no more than a perplexity.

    Between two neighbouring strengths it is interpolated linearly in the logarithm of the perplexity (nats a token):
    that is what a corpus has of which that share of the tokens is written at the one strength, and the rest at the
    other. Looked at are the points at no more than ``wanted``, and the places between neighbours where it is ``wanted``
    itself; the highest score of these is taken, by the same texts that are compared then, which favours this method.
    One whose points all lie above has no such place: its cheapest is taken, and said to be ``higher``.

    Args:
        perplexities, scores: of the points, in the order of their strengths; at least one, perplexities above 0.
        wanted: perplexity, above 0.

    Raises:
        ValueError: no points, or not a score for each.
    """
    if not perplexities or len(perplexities) != len(scores):
        raise ValueError(f"curve: {len(perplexities)} perplexities and {len(scores)} scores; give one each a strength")
    logs, target = [math.log(each) for each in perplexities], math.log(wanted)
    found: list[tuple[float, OnCurve]] = []
    for i, (log, score) in enumerate(zip(logs, scores, strict=True)):
        if log <= target:
            found.append((score, OnCurve(((i, 1.0),), "equal" if log == target else "lower")))
    for i, (a, b) in enumerate(pairwise(logs)):
        if min(a, b) < target < max(a, b):
            share = (target - a) / (b - a)
            score = (1 - share) * scores[i] + share * scores[i + 1]
            found.append((score, OnCurve(((i, 1 - share), (i + 1, share)), "equal")))
    if not found:
        return OnCurve(((min(range(len(logs)), key=logs.__getitem__), 1.0),), "higher")
    return max(found, key=lambda each: each[0])[1]


@dataclass(frozen=True)
class Spread:
    """How far paired differences scatter.

    Attributes:
        between: variance of a prompt's own difference, over prompts.
        within: variance that one text of either side adds to it; a mean over m texts of each adds ``within / m``.
    """

    between: float
    within: float


def spread_of(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> Spread:
    """Components of variance, by the moments of a one-way layout (Searle et al. 1992, section 3.6), from a pilot.

    Where no prompt has two texts of a side the components can't be told apart: all counts as between prompts then, so
    that more texts to a prompt promise nothing.

    Args:
        one, other: of each prompt the scores of its texts, the same prompts in the same order.

    Raises:
        ValueError: fewer than two prompts with a score on both sides.
    """
    both = [(a, b) for a, b in zip(one, other, strict=True) if a and b]
    if len(both) < 2:
        raise ValueError(f"prompts: {len(both)} with scores on both sides; a spread needs two")
    total = variance([fmean(a) - fmean(b) for a, b in both])
    noises, shares = list[float](), list[float]()
    for side in zip(*both, strict=True):
        spare = sum(len(texts) - 1 for texts in side)
        squares = math.fsum(variance(texts) * (len(texts) - 1) for texts in side if len(texts) > 1)
        noises.append(squares / spare if spare else 0.0)
        shares.append(fmean(1 / len(texts) for texts in side))
    added = math.fsum(noise * share for noise, share in zip(noises, shares, strict=True))
    return Spread(max(0.0, total - added), math.fsum(noises))


def power_of(spread: Spread, n_prompts: int, per_prompt: int, difference: float, level: float) -> float:
    """Probability that a two-sided paired t-test over prompts finds a true difference, with its own sign.

    With ``e = sqrt((between + within / m) / G)`` the statistic is noncentral t with G - 1 degrees of freedom and
    noncentrality ``difference / e`` (Cohen 1988, chapter 2).

    Args:
        n_prompts: G, at least 2. per_prompt: m, texts of each side to a prompt.
        difference: true one, above 0. level: of this test.
    """
    error = math.sqrt((spread.between + spread.within / per_prompt) / n_prompts)
    if error == 0:
        return 1.0
    freedom = n_prompts - 1
    critical = float(student_t.isf(level / 2, freedom))
    return float(nct.sf(critical, freedom, difference / error))


@dataclass(frozen=True)
class Size:
    """How many texts a comparison takes.

    Attributes:
        n_prompts, per_prompt: of each side. power: that it has then.
        enough: whether that is what was asked for.
    """

    n_prompts: int
    per_prompt: int
    power: float
    enough: bool


def texts_needed(
    spread: Spread, *, most_prompts: int, most_texts: int, difference: float, power: float, level: float, step: int = 1
) -> Size:
    """The fewest texts that find a difference with some power: more prompts first, then more texts to each.

    Args:
        most_prompts: that there are, at least 2. most_texts: in all, of each side.
        step: texts to a prompt come in multiples of it (its personas).

    Returns:
        the largest size allowed where none is enough.
    """
    per_prompt, best = step, Size(2, step, 0.0, False)
    while per_prompt == step or per_prompt * most_prompts <= most_texts:
        largest = max(2, min(most_prompts, most_texts // per_prompt))
        best = Size(largest, per_prompt, power_of(spread, largest, per_prompt, difference, level), False)
        if best.power >= power:
            low, high = 2, largest  # power rises with the prompts
            while low < high:
                middle = (low + high) // 2
                enough = power_of(spread, middle, per_prompt, difference, level) >= power
                low, high = (low, middle) if enough else (middle + 1, high)
            return Size(low, per_prompt, power_of(spread, low, per_prompt, difference, level), True)
        per_prompt += step
    return best
