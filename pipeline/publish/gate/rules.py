"""By which rules a data set may not be published: pure functions of what is measured of it and of the last revision."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from scipy.stats import t as student_t

from evaluation.statistics.aggregate import LEAST_CLUSTERS, Mean, quantile
from pipeline.job.gate_section import Gate
from pipeline.publish.gate.measured import Measured

_MOST_NAMED = 5


def beyond(value: float, limit: float) -> bool:
    """Whether a value is above a limit by more than the last digits of floating point; nan is."""
    return not value <= limit and not math.isclose(value, limit, rel_tol=1e-9, abs_tol=1e-12)


@dataclass(frozen=True)
class Refusal:
    """Why a data set is not to be published.

    Attributes:
        rule: the field of the job's section `gate` that decides, or what is compared.
        line: which, and by how much.
        was, found, limit: as numbers, where they are some.
    """

    rule: str
    line: str
    was: float | None = None
    found: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Allowed:
    """The thresholds, with those that a job's other fields give.

    Attributes:
        rejected, unscored: shares.
    """

    gate: Gate
    rejected: float
    unscored: float


def absolute(new: Measured, allowed: Allowed, repeats: tuple[int, int]) -> Iterator[Refusal]:
    """What is wrong with a data set in itself. Args: repeats: texts that repeat another, and of how many."""
    gate = allowed.gate
    yield from _share("max_rejected_fraction", "rows were rejected", *new.rejected, allowed.rejected)
    yield from _share("max_unscored_fraction", "judgments have no score", *new.unscored, allowed.unscored)
    yield from _share("max_duplicate_fraction", "texts almost repeat another", *repeats, gate.max_duplicate_fraction)
    if gate.max_perplexity is not None and beyond(new.perplexity, gate.max_perplexity):
        yield Refusal(
            "max_perplexity",
            f"perplexity is {new.perplexity:.3g}, above {gate.max_perplexity:g}",
            found=new.perplexity,
            limit=gate.max_perplexity,
        )
    for name, mean in new.adherence.items():
        if gate.min_adherence is not None and mean.value is not None and beyond(gate.min_adherence, mean.value):
            yield Refusal(
                "min_adherence",
                f"adherence of {name} is {mean.value:.3f}, {gate.min_adherence - mean.value:.3f} below "
                f"{gate.min_adherence:g}",
                found=mean.value,
                limit=gate.min_adherence,
            )
    if gate.min_adherence is not None and not new.adherence:
        yield Refusal(
            "min_adherence", f"adherence is not known, as nothing is judged; {gate.min_adherence:g} is wanted"
        )


def against(
    new: Measured, old: Measured, gate: Gate, repeats: tuple[tuple[int, int], tuple[int, int]]
) -> Iterator[Refusal]:
    """What of a data set is worse than of the last revision, or can't be compared with it.

    Args:
        repeats: as of :func:`absolute`, of both.
    """
    fewest, fall = (1 - gate.max_row_fall) * old.rows, 1 - new.rows / old.rows
    if beyond(fewest, new.rows):
        yield Refusal(
            "max_row_fall",
            f"{new.rows} rows, {fall:.1%} fewer than {old.rows}; {gate.max_row_fall:.1%} are allowed",
            old.rows,
            new.rows,
            fewest,
        )
    yield from _schema(new, old)
    comparable = list(_not_comparable(new, old))
    yield from comparable
    if not comparable:
        yield from _adherence(new, old, gate)
    model = [each.run.get("model") for each in (new, old)]
    if model[0] != model[1]:
        yield Refusal("model", f"perplexity is not comparable: it is under {model[0]}, and was under {model[1]}")
    else:
        most = (1 + gate.max_perplexity_rise) * old.perplexity
        if beyond(new.perplexity, most):
            rise = new.perplexity / old.perplexity - 1
            yield Refusal(
                "max_perplexity_rise",
                f"perplexity is {new.perplexity:.3g}, {rise:.1%} above {old.perplexity:.3g}; "
                f"{gate.max_perplexity_rise:.1%} are allowed",
                old.perplexity,
                new.perplexity,
                most,
            )
    (n, of), (n_old, of_old) = repeats
    now, was = n / max(1, of), n_old / max(1, of_old)
    if beyond(now, was + gate.max_duplicate_rise):
        yield Refusal(
            "max_duplicate_rise",
            f"{now:.1%} of the texts almost repeat another, {100 * (now - was):.1f} points above {was:.1%}; "
            f"{100 * gate.max_duplicate_rise:.1f} are allowed",
            was,
            now,
            was + gate.max_duplicate_rise,
        )


def lowest(old: Mean, new: Mean, n: int, false_alarm: float) -> float | None:
    """Below which a persona's mean is lower than that of the last revision by more than chance; ``None``: unknown.

    The lower end of an interval for the mean of texts drawn anew under the same law: the variances of both means add
    up (what they share, prompts and all, would only make the interval narrower), and the chance that any of ``n``
    personas falls below its own is ``false_alarm`` at most (Bonferroni). The old mean's own 95 % interval would be left
    by one unchanged persona in twelve.
    """
    if old.value is None or old.half_width is None or new.half_width is None:
        return None
    groups = min(old.n_clusters, new.n_clusters)
    if groups < LEAST_CLUSTERS:
        return None
    error = math.hypot(old.half_width / quantile(old.n_clusters), new.half_width / quantile(new.n_clusters))
    return old.value - float(student_t.ppf(1 - false_alarm / n, groups - 1)) * error


def unknown(new: Measured, old: Measured, gate: Gate) -> list[str]:
    """Personas of both with a mean of which no fall could be told from chance: no mean is below 0."""
    n = len(new.adherence)
    pairs = {name: (old.adherence[name], mean) for name, mean in new.adherence.items() if name in old.adherence}
    return [name for name, pair in pairs.items() if _says_nothing(lowest(*pair, n, gate.adherence_false_alarm))]


def _says_nothing(least: float | None) -> bool:
    return least is None or not least > 0


def _adherence(new: Measured, old: Measured, gate: Gate) -> Iterator[Refusal]:
    n = len(new.adherence)
    for name, mean in new.adherence.items():
        was = old.adherence[name]
        if mean.value is None or was.value is None:
            continue
        least = lowest(was, mean, n, gate.adherence_false_alarm)
        if _says_nothing(least):  # then the old mean's own 95 % interval, if that says anything
            least = was.value - was.half_width if was.half_width else None
        if least is None:
            continue
        if beyond(least, mean.value) and beyond(was.value - gate.adherence_tolerance, mean.value):
            yield Refusal(
                "adherence",
                f"adherence of {name} is {mean.shown}, {was.value - mean.value:.3f} below {was.shown}; "
                f"{max(was.value - least, gate.adherence_tolerance):.3f} could be chance",
                was.value,
                mean.value,
                least,
            )


def _not_comparable(new: Measured, old: Measured) -> Iterator[Refusal]:
    """Why adherence can't be compared by persona."""
    if new.judges != old.judges:
        mine, theirs = (", ".join(each.judges) or "no judge" for each in (new, old))
        yield Refusal("judges", f"adherence is not comparable: judged by {mine}, and was by {theirs}")
    if new.panel != old.panel and (new.judges or old.judges):
        yield Refusal("panel", f"adherence is not comparable: the panel's {new.panel}, and was the {old.panel}")
    lost, added = (_missing(a, b) for a, b in ((old.personas, new.personas), (new.personas, old.personas)))
    if lost or added:
        said = [f"{word} {', '.join(names[:_MOST_NAMED])}" for word, names in (("lost", lost), ("new", added)) if names]
        yield Refusal("personas", f"adherence is not comparable: other personas ({'; '.join(said)})")
    both = new.personas.keys() & old.personas.keys()
    moved = [name for name in new.personas if name in both and new.personas[name].weights != old.personas[name].weights]
    if moved:
        yield Refusal("personas", f"adherence is not comparable: other weights of {', '.join(moved[:_MOST_NAMED])}")
    alone = sorted((old.adherence.keys() ^ new.adherence.keys()) - {*lost, *added})
    if alone and new.judges == old.judges:
        yield Refusal("judges", f"adherence is judged in one of both alone: {', '.join(alone[:_MOST_NAMED])}")


def _schema(new: Measured, old: Measured) -> Iterator[Refusal]:
    tables = {name.partition(".")[0] for name in new.columns} & {name.partition(".")[0] for name in old.columns}
    mine, theirs = ({n: t for n, t in each.columns.items() if n.partition(".")[0] in tables} for each in (new, old))
    if mine == theirs:
        return
    said = [f"{name} is new" for name in _missing(mine, theirs)]
    said += [f"{name} is gone" for name in _missing(theirs, mine)]
    said += [f"{name} is {kind}, was {theirs[name]}" for name, kind in mine.items() if theirs.get(name, kind) != kind]
    more = f" and {len(said) - _MOST_NAMED} more" if len(said) > _MOST_NAMED else ""
    yield Refusal("schema", f"another schema: {', '.join(said[:_MOST_NAMED])}{more}")


def _missing(some: Mapping[str, object], there: Mapping[str, object]) -> list[str]:
    return [name for name in some if name not in there]


def _share(rule: str, what: str, n: int, of: int, most: float) -> Iterator[Refusal]:
    if beyond(n, most * of):
        yield Refusal(rule, f"{n} of {of} {what} ({n / of:.1%}); {most:.1%} are allowed", found=n / of, limit=most)
