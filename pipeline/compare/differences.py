"""Finalists against baselines: who goes on, on how many texts, and by how much they differ at equal perplexity."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from evaluation.statistics.paired import (
    Difference,
    OnCurve,
    Size,
    best_at,
    holm,
    paired_difference,
    spread_of,
    texts_needed,
)
from pipeline.compare.arms import Curve, Point
from pipeline.compare.model import ALL_TASKS, FINAL, SCREENING, Comparison, Final
from pipeline.compare.shared import comparable, in_common
from pipeline.compare.texts import Found, by_unit, mean_of


@dataclass(frozen=True)
class Place:
    """Where a baseline stands against a finalist: its best at no more perplexity, over all its curves.

    Attributes:
        mixed: arms with their shares, see :func:`evaluation.statistics.paired.best_at`. side: likewise.
    """

    mixed: tuple[tuple[Found, float], ...]
    side: str

    @property
    def score(self) -> float:
        return math.fsum(share * (found.score or 0.0) for found, share in self.mixed)

    @property
    def perplexity(self) -> float:
        """Of the mixture: the geometric mean."""
        return math.exp(math.fsum(share * math.log(found.perplexity) for found, share in self.mixed))

    @property
    def joint(self) -> float | None:
        """Joint adherence; ``None``: of one that is mixed it is not known."""
        known = [(found.joint, share) for found, share in self.mixed]
        if any(joint is None for joint, _ in known):
            return None
        return math.fsum((joint or 0.0) * share for joint, share in known)

    @property
    def label(self) -> str:
        """``soup x1 .40 + soup x2 .60``."""
        if len(self.mixed) == 1:
            return self.mixed[0][0].point.label
        return " + ".join(f"{found.point.label} {share:.2f}" for found, share in self.mixed)

    @property
    def most(self) -> Found:
        """The arm with the largest share."""
        return max(self.mixed, key=lambda each: each[1])[0]


def is_scored(found: Found) -> bool:
    """Whether an arm can be compared: it has a score and a perplexity."""
    return found.score is not None and math.isfinite(found.perplexity)


def place_of(arms: Iterable[Found], perplexity: float) -> Place | None:
    """The place of a method's arms of one task; ``None``: none is scored."""
    curves: dict[Curve, list[Found]] = {}
    for found in arms:
        if is_scored(found):
            curves.setdefault(found.point.curve, []).append(found)
    places = []
    for points in curves.values():
        points.sort(key=lambda each: each.point.strength or 0.0)
        scores = [each.score or 0.0 for each in points]
        on: OnCurve = best_at([each.perplexity for each in points], scores, perplexity)
        places.append(Place(tuple((points[i], share) for i, share in on.shares), on.side))
    within = [place for place in places if place.side != "higher"]
    if within:
        return max(within, key=lambda each: each.score)
    return min(places, key=lambda each: each.perplexity, default=None)


def place_against(mine: Found, others: Sequence[Found]) -> tuple[Found, Place | None]:
    """An arm, and where a baseline's arms of the same task stand against it, over the units that all have."""
    if not is_scored(mine):
        return mine, None
    one, arms = comparable(mine, [each for each in others if is_scored(each)])
    place = place_of(arms, one.perplexity) if arms else None
    return (mine, None) if place is None else (one, place)


def finalists(
    comparison: Comparison, screened: Sequence[Found], possible: Collection[Point] | None = None
) -> list[Point]:
    """The points that go on: of each method that is no baseline its best, and of these the best, over all tasks.

    A point's score is the mean over tasks, its perplexity their geometric mean; one that lacks either in any task is
    out, and so is one beyond ``final.perplexity_factor`` times the perplexity of the best point of ``perplexity_of``.

    Args:
        possible: that every task of the final has; ``None``: all.
    """
    means = _over_tasks(comparison, screened)
    most = math.inf
    if comparison.final.perplexity_of is not None:
        bounding = {p: each for p, each in means.items() if p.curve.method == comparison.final.perplexity_of}
        if bounding:
            most = comparison.final.perplexity_factor * max(bounding.values())[1]
    best: dict[str, tuple[float, Point]] = {}
    for point, (score, perplexity) in means.items():
        method = comparison.method(point.curve.method)
        if possible is not None and point not in possible:
            continue
        if not method.baseline and perplexity <= most and score > best.get(method.name, (-1.0, point))[0]:
            best[method.name] = score, point
    ranked = sorted(best.values(), key=lambda each: -each[0])
    return [point for _, point in ranked[: comparison.final.finalists]]


def _over_tasks(comparison: Comparison, screened: Sequence[Found]) -> dict[Point, tuple[float, float]]:
    """Point -> (score, perplexity), of those that every task has, over the units that its arms have in common."""
    by_point: dict[Point, list[Found]] = {}
    for task in comparison.tasks_of(SCREENING):
        for found in in_common([each for each in of_task(screened, task.name) if is_scored(each)]):
            by_point.setdefault(found.point, []).append(found)
    return {
        point: (fmean(each.score or 0.0 for each in arms), _geometric([each.perplexity for each in arms]))
        for point, arms in by_point.items()
        if len(arms) == len(comparison.tasks_of(SCREENING))
    }


def of_task(arms: Sequence[Found], task: str, method: str | None = None) -> list[Found]:
    """Arms of one task, of one method or all."""
    return [each for each in arms if each.task == task and method in (None, each.point.curve.method)]


def baselines_of(comparison: Comparison) -> list[str]:
    """Names of those that are scored, in the file's order."""
    return [method.name for method in comparison.scored if method.baseline]


def points_of_final(
    comparison: Comparison, screened: Sequence[Found], chosen: Sequence[Point], task: str, points: Sequence[Point]
) -> list[Point]:
    """What a task writes in the final: the finalists with their curves, and of baselines those on which they stood.

    All strengths of a curve: perplexities of other texts are others, and the place is looked for anew. A task that the
    screening has not written takes the curves of all that it has, and each of its own attributes alone. A baseline that
    the screening says nothing of (its models serve other personas) stands with all its curves.

    Args:
        points: all of the task's.
    """
    known = screened_as(comparison, task)
    curves = {point.curve for point in chosen}
    for name in baselines_of(comparison):
        own, stood = {p.curve for p in points if p.curve.method == name}, set[Curve]()
        for of in known:
            for point in chosen:
                place = place_against(_arm(screened, of, point), of_task(screened, of, name))[1]
                stood |= {each.point.curve for each, _ in place.mixed} if place is not None else set()
        if task not in known:
            stood |= {curve for curve in own if curve.attribute is not None}
        curves |= stood or own
    return list(dict.fromkeys([*chosen, *(point for point in points if point.curve in curves)]))


def screened_as(comparison: Comparison, task: str) -> list[str]:
    """Names of the tasks that stand for a task in the screening: itself, or all where it was not in it."""
    names = [each.name for each in comparison.tasks_of(SCREENING)]
    return [task] if task in names else names


def _arm(arms: Sequence[Found], task: str, point: Point) -> Found:
    return next(each for each in of_task(arms, task) if each.point == point)


def n_comparisons(comparison: Comparison, chosen: Sequence[Point]) -> int:
    """How many differences are tested together."""
    tasks = len(comparison.tasks_of(FINAL))
    return (tasks + (tasks > 1)) * len(chosen) * len(baselines_of(comparison))


def size_of_final(
    comparison: Comparison,
    screened: Sequence[Found],
    chosen: Sequence[Point],
    task: str,
    *,
    most_prompts: int,
    step: int,
) -> Size:
    """How many texts a task's arms take in the final: what the most demanding of its comparisons does.

    The spread of each is that of its screening, with the baseline's texts of the strength that has the larger share
    where it stands between two; the level is Bonferroni's, which Holm's correction never falls below.

    Args:
        most_prompts: that the final has. step: personas, of which each writes to each prompt.
    """
    final = comparison.final
    if final.texts is not None:
        n = min(most_prompts, max(2, -(-final.texts // step)))  # of one prompt nothing is known of how they differ
        return Size(n, step * -(-final.texts // (n * step)), math.nan, True)
    sizes, n = [], n_comparisons(comparison, chosen)
    for of in screened_as(comparison, task):
        for mine in (_arm(screened, of, point) for point in chosen):
            for name in baselines_of(comparison):
                one, place = place_against(mine, of_task(screened, of, name))
                if place is not None:
                    sizes.append(_size(final, one, place.most, n, most_prompts, step))
    if not sizes:
        return Size(most_prompts, step, math.nan, False)
    return Size(
        max(each.n_prompts for each in sizes),
        max(each.per_prompt for each in sizes),
        min(each.power for each in sizes),
        all(each.enough for each in sizes),
    )


def _size(final: Final, one: Found, other: Found, n: int, most_prompts: int, step: int) -> Size:
    sides = [_by_prompt(each) for each in (one, other)]
    prompts = sorted(sides[0].keys() & sides[1].keys())
    if len(prompts) < 2:  # nothing is known of the spread
        return Size(most_prompts, step * max(1, final.most_texts // (most_prompts * step)), math.nan, False)
    spread = spread_of(*[[side[prompt] for prompt in prompts] for side in sides])
    return texts_needed(
        spread, most_prompts=most_prompts, most_texts=final.most_texts, difference=final.difference,
        power=final.power, level=final.level / n, step=step,
    )  # fmt: skip


def _by_prompt(found: Found) -> dict[str, list[float]]:
    scores: dict[str, list[float]] = {}
    for (_, prompt), each in by_unit(found.written.texts).items():
        scores.setdefault(prompt, []).extend(each)
    return scores


@dataclass(frozen=True)
class Compared:
    """A finalist against a baseline on one task, or on all of them.

    Attributes:
        perplexity, score, joint: of the finalist, over the units that both have; over all tasks geometric and
            arithmetic means.
        place: of the baseline on that task; ``None``: it has no score there and is not compared, or these are all.
        side: see :class:`Place`; over all tasks the one that all have, else ``mixed``; ``None``: not compared.
        its_perplexity, its_score, its_joint: of the baseline in its place; likewise.
        difference: of the mean score, the finalist's less the baseline's, paired by persona and prompt, by prompt.
        corrected: its p-value, for all comparisons (Holm).
    """

    task: str
    finalist: Point
    baseline: str
    perplexity: float
    score: float | None
    joint: float | None
    place: Place | None = None
    side: str | None = None
    its_perplexity: float | None = None
    its_score: float | None = None
    its_joint: float | None = None
    difference: Difference | None = None
    corrected: float | None = None

    @property
    def relative(self) -> float | None:
        """The difference as a share of the baseline's score."""
        if self.difference is None or self.difference.mean.value is None or not self.its_score:
            return None
        return self.difference.mean.value / self.its_score


def compared(comparison: Comparison, arms: Sequence[Found], chosen: Sequence[Point]) -> list[Compared]:
    """Every finalist against every baseline on every task and on all of them, from the final's arms."""
    found = list[Compared]()
    for point in chosen:
        for name in baselines_of(comparison):
            each = [_on_task(arms, task.name, point, name) for task in comparison.tasks_of(FINAL)]
            found += [one for one, _ in each]
            if len(each) > 1:
                found.append(_on_all(each))
    values = [None if each.difference is None else each.difference.p_value for each in found]
    return [replace(each, corrected=p) for each, p in zip(found, holm(values), strict=True)]


_Pairs = list[tuple[str, float]]  # of each persona and prompt the prompt, and the difference


def _on_task(arms: Sequence[Found], task: str, point: Point, baseline: str) -> tuple[Compared, _Pairs]:
    mine = _arm(arms, task, point)
    one = Compared(task, point, baseline, mine.perplexity, mine.score, mine.joint)
    mine, place = place_against(mine, of_task(arms, task, baseline))
    if place is None:
        return one, []
    pairs = _pairs(mine, place)
    one = replace(
        one, perplexity=mine.perplexity, score=mine.score, joint=mine.joint, place=place, side=place.side,
        its_perplexity=place.perplexity, its_score=place.score, its_joint=place.joint, difference=_tested(pairs),
    )  # fmt: skip
    return one, pairs


def _on_all(each: Sequence[tuple[Compared, _Pairs]]) -> Compared:
    """Over all tasks, each of which counts alike: a prompt is one cluster, whoever answers it.

    The mean over tasks of their mean differences, ``D = 1/T sum_t D_t``, with the variance of ``sum_t w_t sum_i (d_i -
    D_t)``, ``w_t = 1 / (T n_t)``: as of values ``D + N w_t (d_i - D_t)``. Not compared, where any task is not.
    """
    ones = [one for one, _ in each]
    first, sides = ones[0], {one.side for one in ones}
    whole = Compared(ALL_TASKS, first.finalist, first.baseline, _geometric([one.perplexity for one in ones]),
                     mean_of(one.score for one in ones), mean_of(one.joint for one in ones))  # fmt: skip
    if None in sides:
        return whole
    return replace(
        whole,
        side=first.side if len(sides) == 1 else "mixed",
        its_perplexity=_geometric([one.its_perplexity or math.nan for one in ones]),
        its_score=mean_of(one.its_score for one in ones),
        its_joint=mean_of(one.its_joint for one in ones),
        difference=_tested(_alike([pairs for _, pairs in each])),
    )


def _alike(tasks: Sequence[_Pairs]) -> _Pairs:
    """Differences that have the mean and the variance of a mean over tasks, see :func:`_on_all`."""
    if not all(tasks):
        return []
    means, n = [fmean(d for _, d in pairs) for pairs in tasks], sum(map(len, tasks))
    whole = fmean(means)
    return [
        (prompt, whole + n / (len(tasks) * len(pairs)) * (d - mean))
        for mean, pairs in zip(means, tasks, strict=True)
        for prompt, d in pairs
    ]


def _geometric(values: Sequence[float]) -> float:
    return math.exp(fmean(math.log(value) for value in values))


def _tested(pairs: _Pairs) -> Difference:
    return paired_difference([difference for _, difference in pairs], [prompt for prompt, _ in pairs])


def _pairs(mine: Found, place: Place) -> _Pairs:
    """Of the units that all sides have; means over samples, the baseline's mixed by its shares."""
    own = by_unit(mine.written.texts)
    sides: list[tuple[Mapping[tuple[str, str], list[float]], float]] = [
        (by_unit(found.written.texts), share) for found, share in place.mixed
    ]
    units = sorted(unit for unit in own if all(unit in side for side, _ in sides))
    return [
        (unit[1], fmean(own[unit]) - math.fsum(share * fmean(side[unit]) for side, share in sides)) for unit in units
    ]
