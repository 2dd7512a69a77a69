"""From scores to means that say what they stand on: panels of judges, unscored rows, intervals by prompt."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from statistics import median

from scipy.stats import t as student_t

PANEL_RULES = ("mean", "median", "majority")
COVERAGE = 0.95
# An interval of fewer clusters, or of a greater half-width on a scale of 0 to 1, says nothing.
LEAST_CLUSTERS, WIDEST = 3, 0.5


def panel(scores: Sequence[float | None], rule: str = "mean") -> float | None:
    """One score of several judges' of one text; it does not depend on their order.

    Args:
        scores: in 0..1; ``None``: unscored by that judge, which then has no voice.
        rule: ``mean``, ``median`` (of an even number the mean of the middle two), or ``majority``: the
            share of voices above 0.5, those at 0.5 counting half, rounded to 0, 0.5 (a tie) or 1.

    Returns:
        ``None`` where no judge scored.

    Raises:
        ValueError: another rule.
    """
    if rule not in PANEL_RULES:
        raise ValueError(f"panel: {rule!r} is no rule; choose from {', '.join(PANEL_RULES)}")
    voices = sorted(score for score in scores if score is not None)
    if not voices:
        return None
    if rule == "mean":
        return math.fsum(voices) / len(voices)
    if rule == "median":
        return median(voices)
    balance = sum((voice > 0.5) - (voice < 0.5) for voice in voices)
    return 0.5 + 0.5 * ((balance > 0) - (balance < 0))


@dataclass(frozen=True)
class Mean:
    """A mean with what it stands on; ``value`` is ``None`` where nothing was scored.

    Attributes:
        n, n_unscored: texts scored and not.
        half_width: of the 95 % interval; ``None`` where there are fewer than two clusters.
        n_clusters: that the scored texts stand in.
    """

    value: float | None
    n: int
    n_unscored: int
    half_width: float | None = None
    n_clusters: int = 0

    @property
    def shown(self) -> str:
        """``0.80±.06``, with the number of unscored texts if there are any.

        ``0.80±?`` where the interval says nothing: of fewer than :data:`LEAST_CLUSTERS` clusters, whatever its width,
        or wider than half the scale to either side.
        """
        unscored = f" ({self.n_unscored} unscored)" if self.n_unscored else ""
        if self.value is None:
            return f"-{unscored}"
        if self.half_width is None or self.n_clusters < LEAST_CLUSTERS or not self.half_width <= WIDEST:
            return f"{self.value:.2f}±?{unscored}"
        width = f"±{self.half_width:.2f}".replace("±0.", "±.")
        return f"{self.value:.2f}{width}{unscored}"


@cache
def quantile(groups: int) -> float:
    """Student's, for a 95 % interval over so many clusters, two at least: with one degree of freedom less."""
    return float(student_t.ppf(0.5 + COVERAGE / 2, groups - 1))


class ExactSum:
    """A sum of floats that does not depend on their order: rounded once, at its end (Shewchuk 1997, as `math.fsum`)."""

    __slots__ = ("_partials",)

    def __init__(self) -> None:
        self._partials: list[float] = []

    def add(self, value: float) -> None:
        """One more. Raises OverflowError, ValueError: as `math.fsum` of values that are not finite."""
        partials, n = self._partials, 0
        for partial in partials:
            if abs(value) < abs(partial):
                value, partial = partial, value
            high = value + partial
            low = partial - (high - value)
            if low:
                partials[n] = low
                n += 1
            value = high
        partials[n:] = [value]

    def add_product(self, a: float, b: float) -> None:
        """The product of two, unrounded (Dekker 1971)."""
        product = a * b
        (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
        self.add(product)
        self.add(((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low)

    def merge(self, other: ExactSum) -> None:
        """All of another's."""
        for partial in other._partials:
            self.add(partial)

    @property
    def total(self) -> float:
        return math.fsum(self._partials)

    @property
    def exact(self) -> Fraction:
        """The sum without any rounding."""
        return sum(map(Fraction, self._partials), Fraction(0))


def _halves(value: float) -> tuple[float, float]:
    """A float as the sum of two of half as many digits (Veltkamp)."""
    scaled = 134217729.0 * value  # 2^27 + 1
    high = scaled - (scaled - value)
    return high, value - high


class ClusterSums:
    """A :func:`clustered_mean` of values that come one by one, and of parts that are put together in any order.

    What it holds grows with the clusters that may still get values; of the others (:meth:`close`) it holds sums alone.
    """

    def __init__(self) -> None:
        self._total, self._n, self._n_unscored = ExactSum(), 0, 0
        self._open: dict[object, tuple[ExactSum, int]] = {}  # cluster -> its sum, and of how many values
        self._closed = _Squares()

    def add(self, value: float | None, cluster: object) -> None:
        """One text's score; ``None``: it has none."""
        if value is None:
            self._n_unscored += 1
            return
        self._total.add(value)
        self._n += 1
        found, n = self._open.get(cluster) or (ExactSum(), 0)
        found.add(value)
        self._open[cluster] = found, n + 1

    def close(self, but: Collection[object]) -> None:
        """No cluster but these will get another value, here or in a part that is put together with this one."""
        for cluster in [each for each in self._open if each not in but]:
            self._closed.add(*self._open.pop(cluster))

    def merge(self, other: ClusterSums) -> None:
        """All of another's."""
        self._total.merge(other._total)
        self._n += other._n
        self._n_unscored += other._n_unscored
        for cluster, (found, n) in other._open.items():
            mine, m = self._open.get(cluster) or (ExactSum(), 0)
            mine.merge(found)
            self._open[cluster] = mine, m + n
        self._closed.merge(other._closed)

    def mean(self) -> Mean:
        if not self._n:
            return Mean(None, 0, self._n_unscored)
        mean, groups = self._total.total / self._n, self._closed.n + len(self._open)
        if groups < 2:
            return Mean(mean, self._n, self._n_unscored, None, groups)
        squares = _Squares()
        squares.merge(self._closed)
        for found, n in self._open.values():
            squares.add(found, n)
        variance = groups / (groups - 1) * squares.about(self._total.exact / self._n) / self._n**2
        return Mean(mean, self._n, self._n_unscored, quantile(groups) * math.sqrt(variance), groups)


class _Squares:
    """Sums over clusters of which the squares of their residuals follow, whatever the mean turns out to be."""

    def __init__(self) -> None:
        self.n = self._counts = 0
        self._squares, self._mixed = ExactSum(), ExactSum()

    def add(self, cluster: ExactSum, n: int) -> None:
        """One cluster's sum, of n values."""
        total = cluster.total
        self.n += 1
        self._counts += n * n
        self._squares.add_product(total, total)
        self._mixed.add_product(total, float(n))

    def merge(self, other: _Squares) -> None:
        self.n += other.n
        self._counts += other._counts
        self._squares.merge(other._squares)
        self._mixed.merge(other._mixed)

    def about(self, mean: Fraction) -> float:
        """``sum_g (S_g - n_g mean)^2``, multiplied out, exactly: what cancels leaves no error."""
        return float(self._squares.exact - 2 * mean * self._mixed.exact + mean * mean * self._counts)


def clustered_mean(values: Sequence[float | None], clusters: Sequence[object]) -> Mean:
    """Mean of the scored values with a 95 % interval that knows that texts of one cluster (a prompt) are alike.

    The variance of the mean is ``G/(G-1) sum_g (sum_{i in g} (x_i - mean))^2 / n^2`` over G clusters (Liang &
    Zeger 1986), its quantile Student's with G - 1 degrees of freedom.

    Args:
        values, clusters: one each a text.
    """
    sums = ClusterSums()
    for value, cluster in zip(values, clusters, strict=True):
        sums.add(value, cluster)
    return sums.mean()
