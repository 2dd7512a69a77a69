"""Whether a text carries all that its persona asks for, and which of it comes out worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.statistics.aggregate import COVERAGE, Mean, clustered_mean

# A score above it says that the text carries the attribute; scores lie in 0..1.
CARRIED = 0.5


def carries_all(scores: Sequence[float | None]) -> float | None:
    """1 where all of one text's scores are above :data:`CARRIED`, else 0; ``None`` where any of them is unscored.

    A text of which one score is low and another is missing is unscored, too: to count it as a failure, and never one
    as a success, would bias the share downwards.

    Raises:
        ValueError: no scores: a text that is asked for nothing has no share in this.
    """
    if not scores:
        raise ValueError("scores: none given; leave out texts whose persona has no attribute")
    if any(score is None for score in scores):
        return None
    return float(all(score is not None and score > CARRIED for score in scores))


def share(values: Sequence[float | None], clusters: Sequence[object]) -> Mean:
    """Share of texts that are 1 among those that are 0 or 1, with a 95 % interval by cluster.

    That of :func:`evaluation.statistics.aggregate.clustered_mean`. Where all texts are alike it would have no width: it
    reaches to the farthest share then under which G clusters are all alike one time in 20, ``1 - 0.05^(1/G)``, about
    3/G (Hanley & Lippman-Hand 1983), each cluster taken as one trial.
    """
    mean = clustered_mean(values, clusters)
    if mean.value in (0.0, 1.0) and mean.n_clusters > 1:
        return replace(mean, half_width=1 - (1 - COVERAGE) ** (1 / mean.n_clusters))
    return mean


def joint_adherence(texts: Sequence[Sequence[float | None]], clusters: Sequence[object]) -> Mean:
    """Share of texts that carry all of their persona's attributes at once, with the interval of :func:`share`.

    ``mean_i [min_a s_ia > 0.5]``. With N attributes at chance it is ``0.5^N``, so that numbers of personas with as many
    attributes compare.

    Args:
        texts: of each text the scores of those attributes that its persona gives a weight above 0.
        clusters: one each a text (its prompt).
    """
    return share([carries_all(scores) for scores in texts], clusters)


def worst_attribute(
    scores: Mapping[str, Sequence[float | None]], clusters: Sequence[object]
) -> tuple[str, Mean] | None:
    """The attribute with the lowest mean, and that mean; the first of several; ``None`` where none is scored.

    The least of several means is below its own truth on average: compare it with other minima over as many attributes.

    Args:
        scores: attribute -> one each a text.
        clusters: one each a text.
    """
    means = [(name, clustered_mean(values, clusters)) for name, values in scores.items()]
    scored = [(mean.value, name, mean) for name, mean in means if mean.value is not None]
    if not scored:
        return None
    _, name, mean = min(scored, key=lambda each: each[0])
    return name, mean
