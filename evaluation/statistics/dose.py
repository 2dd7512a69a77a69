"""Dose and response: scores and perplexity against strength, and the strengths that lift all attributes alike.

A *lift* is a score less the reference's on the same prompts. Strength 0 is the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import isotonic_regression

from evaluation.statistics.linear import Effect, effects

# Of strengths that are chosen: as many decimals as a person would type.
DECIMALS = 2
LEAST_STRENGTH = 10.0**-DECIMALS


class Unscored(ValueError):
    """A strength, or the reference, of which no text has a value."""


@dataclass(frozen=True, eq=False)
class Response:
    """What a measure does as strength rises: non-decreasing, linear between the strengths measured, see :func:`fit`.

    Attributes:
        strengths: measured, rising; 0 first.
        fitted: ``[strengths]``, differences from the reference's own mean; at 0 it is 0, or below it where the first
            strengths are below the reference.
        projection: ``[strengths, strengths]``, which takes the means as measured to the monotone ones.
        design, values, clusters: of the texts, as :func:`evaluation.statistics.linear.effects` takes them.
    """

    strengths: tuple[float, ...]
    fitted: np.ndarray
    projection: np.ndarray
    design: np.ndarray
    values: np.ndarray
    clusters: tuple[object, ...]

    def at(self, strength: float) -> Effect:
        """Difference from the reference at a strength from 0 to the largest measured.

        The interval is that of the texts' clusters, both sides of the difference on the same prompts. It takes which
        neighbours were put together for certain.

        Raises:
            ValueError: beyond the largest.
        """
        if not 0 <= strength <= self.strengths[-1]:
            raise ValueError(f"strength: {strength:g} was not measured; give one from 0 to {self.strengths[-1]:g}")
        share = np.array([np.interp(strength, self.strengths, row) for row in np.eye(len(self.strengths))])
        question = share @ self.projection  # [strengths]
        question[0] -= 1.0
        return self._effects(question[None])[0]

    @property
    def measured(self) -> tuple[Effect, ...]:
        """Differences from the reference as measured, at each strength but 0."""
        each = np.eye(len(self.strengths))
        return self._effects(each[1:] - each[0])

    @property
    def reference(self) -> Effect:
        """The reference's own mean."""
        return self._effects(np.eye(len(self.strengths))[:1])[0]

    def least(self, wanted: float) -> float | None:
        """The smallest strength whose difference is at least this; ``None``: none's is."""
        reach = np.flatnonzero(self.fitted >= wanted)
        return self._where(int(reach[0]), wanted) if len(reach) else None

    def most(self, allowed: float) -> float | None:
        """The largest strength, of those measured and between them, whose difference is at most this; ``None``: none's.

        Zero is no strength.
        """
        beyond = np.flatnonzero(self.fitted > allowed)
        found = self._where(int(beyond[0]), allowed) if len(beyond) else self.strengths[-1]
        return found if found > 0 else None

    def _where(self, k: int, value: float) -> float:
        """Where the line up to point k, the first at or above a value, takes it; 0 where that is the first of all."""
        if k == 0:
            return 0.0
        low, high = self.fitted[k - 1], self.fitted[k]
        below, above = self.strengths[k - 1], self.strengths[k]
        return float(below + (above - below) * (value - low) / (high - low))

    def _effects(self, questions: np.ndarray) -> tuple[Effect, ...]:
        return effects(self.design, self.values, questions, self.clusters)


def fit(
    strengths: Sequence[float],
    values: Sequence[float],
    clusters: Sequence[object],
    sizes: Sequence[float] | None = None,
) -> Response:
    """A measure against strength by isotonic regression (pool adjacent violators) on the means of each strength.

    Args:
        strengths: of each text; 0 is the reference's.
        values: of each text; nan: it has none.
        clusters: of each text: its prompt.
        sizes: what a text counts for, above 0. With tokens, and minus log-probability by tokens as values, a mean is
            the log-perplexity of all texts together: ``sum nll / sum n``.

    Raises:
        Unscored: a strength, or the reference, of which no text has a value.
    """
    s, v = np.asarray(strengths, dtype=np.float64), np.asarray(values, dtype=np.float64)
    size = np.ones(len(s)) if sizes is None else np.asarray(sizes, dtype=np.float64)
    known, all_of_them = ~np.isnan(v), sorted({0.0, *s.tolist()})
    each = np.column_stack([s == one for one in all_of_them])  # [texts, strengths]
    mass = (each & known[:, None]).T @ size  # [strengths]
    if not mass.all():
        one = all_of_them[int(np.flatnonzero(mass == 0)[0])]
        raise Unscored(f"no text has a score {f'at strength {one:g}' if one else 'of those of the reference alone'}")
    means = (each & known[:, None]).T @ np.where(known, v * size, 0.0) / mass
    blocks = isotonic_regression(means, weights=mass).blocks
    projection = np.zeros((len(means), len(means)))
    for first, end in pairwise(blocks.tolist()):
        projection[first:end, first:end] = mass[first:end] / mass[first:end].sum()
    root = np.sqrt(size)  # least squares weighted by size: its coefficients are the means
    return Response(
        tuple(all_of_them),
        projection @ means - means[0],
        projection,
        each * root[:, None],
        v * root,
        tuple(clusters),
    )


@dataclass(frozen=True)
class Chosen:
    """What an attribute's strength is to be.

    Attributes:
        strength: rounded to :data:`DECIMALS`.
        most: the largest within the budget, of those measured; ``None``: none is.
        told_apart: whether its lift at ``most`` is above 0 by its 95 % interval.
    """

    strength: float
    most: float | None
    told_apart: bool


@dataclass(frozen=True)
class Choice:
    """Strengths for all attributes.

    Attributes:
        lift: that each of those told apart is to have; ``None``: none is told apart, and nothing is chosen.
        limit: the attribute that has no more than that within the budget; ``None``: the lift was asked for.
    """

    of: Mapping[str, Chosen]
    lift: float | None
    limit: str | None = None


def choose(
    lifts: Mapping[str, Response],
    log_perplexities: Mapping[str, Response],
    now: Mapping[str, float],
    *,
    budget: float,
    lift: float | None = None,
    least: float = LEAST_STRENGTH,
) -> Choice:
    """The strengths at which all attributes are lifted alike, none beyond the budget.

    ``most_i`` is the largest strength of attribute i within the budget, and the lift is the smallest of theirs there,
    of the attributes that are told apart from the reference; each gets the smallest strength that has it. An attribute
    that is not told apart there keeps its strength, whatever it costs: nothing is known by which to change it.

    Args:
        lifts, log_perplexities: attribute -> its responses. now: attribute -> its strength so far.
        budget: the largest log of the perplexity over the reference's.
        lift: asked for instead; those that have less at ``most_i`` get that.
        least: no smaller strength is chosen.
    """
    most = {name: response.most(budget) for name, response in log_perplexities.items()}
    within = {name: each for name, each in most.items() if each is not None and each >= least}
    there = {name: lifts[name].at(each) for name, each in within.items()}
    # value and half-width of those told apart are numbers
    apart = {
        name: each.value
        for name, each in there.items()
        if each.value is not None and each.half_width is not None and each.value > each.half_width
    }
    wanted, limit = lift, None
    if apart and lift is None:
        limit = min(apart, key=lambda name: apart[name])
        wanted = apart[limit]
    of = {}
    for name in lifts:
        strength = now[name]
        if name in apart and wanted is not None:
            needed = lifts[name].least(wanted)
            strength = within[name] if needed is None else min(within[name], max(least, needed))
        of[name] = Chosen(max(LEAST_STRENGTH, round(strength, DECIMALS)), within.get(name), name in apart)
    return Choice(of, wanted if apart else None, limit)


def shown_ratio(log_ratio: Effect) -> str:
    """``x1.04±.03``: a ratio of perplexities, of the difference of their logarithms; as :attr:`Effect.shown`."""
    if log_ratio.value is None:
        return "-"
    ratio = math.exp(log_ratio.value)
    if log_ratio.half_width is None:
        return f"x{ratio:.2f}±?"
    # By the derivative of exp: of a ratio near 1 its interval is that of its logarithm.
    return f"x{ratio:.2f}±{ratio * log_ratio.half_width:.2f}".replace("±0.", "±.")
