"""Places of baselines, finalists, sizes and differences, of texts made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.compare.arms import Curve, Point
from pipeline.compare.bare import Bare
from pipeline.compare.differences import compared, finalists, place_of, points_of_final, size_of_final
from pipeline.compare.load import load_comparison
from pipeline.compare.model import Comparison
from pipeline.compare.texts import Found, Text, Written
from tests.tiny_comparison import make_comparison

PROMPTS = ("p", "q", "r", "s")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Baselines `reference`, `single`, `mod`; `sum` may go on."""
    return load_comparison(make_comparison(tmp_path_factory.mktemp("comparison")))


def arm(point: Point, scores: Sequence[float | None], perplexity: float, task: str = "both") -> Found:
    """Of one persona, a text to each prompt."""
    texts = tuple(
        Text("EJ", prompt, "Well.", {"E": score, "J": score}, {}, Bare(-math.log(perplexity), 1), None, 1, 0)
        for prompt, score in zip(PROMPTS, scores, strict=True)
    )
    known = [score for score in scores if score is not None]
    mean = sum(known) / len(known) if known else None
    return Found(task, point, Written(texts, {}, ""), mean, mean, perplexity)


def mod(strength: float, scores: Sequence[float | None], perplexity: float) -> Found:
    return arm(Point(Curve("mod"), strength), scores, perplexity)


REFERENCE = arm(Point(Curve("reference")), [0.3, 0.3, 0.4, 0.4], 2.0)
SUM = arm(Point(Curve("sum", "none"), 2.0), [0.9, 0.7, 0.8, 0.8], 4.0)
ALONE = [arm(Point(Curve("single", None, name), 1.0), [score] * 4, 3.0) for name, score in (("E", 0.5), ("J", 0.6))]
MOD = [mod(1.0, [0.4, 0.5, 0.6, 0.5], 2.0), mod(3.0, [0.6, 0.7, 0.8, 0.7], 8.0)]
ALL = [REFERENCE, *ALONE, *MOD, SUM]


def test_a_place_between_two_strengths_is_a_mixture() -> None:
    place = place_of(MOD, 4.0)
    assert place is not None and place.side == "equal" and place.label == "mod x1 0.50 + mod x3 0.50"
    assert place.perplexity == pytest.approx(4.0) and place.score == pytest.approx(0.6)


def test_the_best_of_several_curves_and_none_that_is_scored() -> None:
    place = place_of(ALONE, 4.0)
    assert place is not None and place.label == "single J x1" and place.side == "lower"
    dear = place_of(ALONE, 2.5)
    assert dear is not None and dear.side == "higher"
    assert place_of([mod(1.0, [None] * 4, 2.0)], 4.0) is None


def test_who_goes_on_and_on_what(comparison: Comparison) -> None:
    chosen = finalists(comparison, ALL)
    assert chosen == [SUM.point]
    own = [each.point for each in ALL]
    points = points_of_final(comparison, ALL, chosen, "both", own)
    assert [point.label for point in points] == ["sum hnone x2", "reference", "single J x1", "mod x1", "mod x3"]


def test_a_task_that_was_not_screened_takes_what_stood_on_those_that_were(comparison: Comparison) -> None:
    """Of methods its curves, of attributes alone its own; sizes as of the others; none of it chooses a finalist."""
    (task,) = comparison.tasks
    other = task.model_copy(update={"name": "other", "stage": "final"})
    both = comparison.model_copy(update={"tasks": (task, other)})
    assert finalists(both, ALL) == [SUM.point]
    own = [REFERENCE.point, Point(Curve("single", None, "S"), 1.0), *(each.point for each in MOD), SUM.point]
    points = points_of_final(both, ALL, [SUM.point], "other", own)
    assert [each.label for each in points] == ["sum hnone x2", "reference", "single S x1", "mod x1", "mod x3"]
    assert size_of_final(both, ALL, [SUM.point], "other", most_prompts=500, step=1).n_prompts == 8
    alone = both.model_copy(update={"tasks": (task.model_copy(update={"stage": "screening"}), other)})
    final = [replace(each, task="other") for each in ALL]
    assert {each.task for each in compared(alone, final, [SUM.point])} == {"other"}


def test_a_baseline_that_was_not_screened_stands_with_all_its_curves(comparison: Comparison) -> None:
    screened = [each for each in ALL if each not in MOD]
    points = points_of_final(comparison, screened, [SUM.point], "both", [each.point for each in ALL])
    assert [point.label for point in points] == ["sum hnone x2", "reference", "single J x1", "mod x1", "mod x3"]


def test_a_perplexity_beyond_the_budget_does_not_go_on(comparison: Comparison) -> None:
    final = comparison.final.model_copy(update={"perplexity_of": "mod", "perplexity_factor": 0.4})
    assert finalists(comparison.model_copy(update={"final": final}), ALL) == []  # of mod's best, 8: at most 3.2
    final = final.model_copy(update={"perplexity_factor": 0.51})
    assert finalists(comparison.model_copy(update={"final": final}), ALL) == [SUM.point]


def test_differences_by_hand(comparison: Comparison) -> None:
    found = {each.baseline: each for each in compared(comparison, ALL, [SUM.point])}
    against_mod = found["mod"].difference
    assert against_mod is not None  # SUM less the mean of mod's two: .4, .1, .1, .2
    assert against_mod.mean.value == pytest.approx(0.2) and against_mod.mean.n_clusters == 4
    assert found["mod"].relative == pytest.approx(0.2 / 0.6)
    raw = {name: each.difference.p_value for name, each in found.items() if each.difference is not None}
    assert found["mod"].corrected == pytest.approx(max(raw["mod"], *(each.corrected or 0 for each in found.values())))
    smallest = min(raw, key=lambda name: raw[name] or 0.0)
    assert found[smallest].corrected == pytest.approx(3 * (raw[smallest] or 0.0))


def test_over_all_tasks_a_prompt_is_one_cluster(comparison: Comparison) -> None:
    """The same texts as two tasks: the same difference, and no more certain."""
    task = comparison.tasks[0]
    two = comparison.model_copy(update={"tasks": (task, task.model_copy(update={"name": "again"}))})
    twice = [*ALL, *(replace(each, task="again") for each in ALL)]
    found = {(each.task, each.baseline): each for each in compared(two, twice, [SUM.point])}
    assert len(found) == 9
    one, whole = found["again", "mod"].difference, found["all", "mod"].difference
    assert one is not None and whole is not None and whole.mean.n == 8 and whole.mean.n_clusters == 4
    assert whole.p_value == pytest.approx(one.p_value) and whole.mean.value == pytest.approx(0.2)
    assert found["all", "mod"].its_perplexity == pytest.approx(4.0) and found["all", "mod"].side == "equal"
    assert found["all", "mod"].its_joint == pytest.approx(0.6) and found["all", "mod"].place is None


def test_each_task_counts_alike_however_many_pairs_it_has(comparison: Comparison) -> None:
    """Ten texts of which the finalist is better by .2, forty of which it is worse by .1: better by .05."""
    task = comparison.tasks[0]
    two = comparison.model_copy(update={"tasks": (task, task.model_copy(update={"name": "large"}))})

    def of(point: Point, own: str, n: int, score: float) -> Found:
        texts = tuple(
            Text("EJ", f"{own}{i}", "Well.", {"E": score + 0.01 * (i % 2)}, {}, Bare(-1.0, 1), None, 1, 0)
            for i in range(n)
        )
        return Found(own, point, Written(texts, {}, ""), score + 0.005, score, 2.0)

    point, other = SUM.point, REFERENCE.point
    arms = [
        of(point, "both", 10, 0.7),
        of(other, "both", 10, 0.5),
        of(point, "large", 40, 0.4),
        of(other, "large", 40, 0.5),
    ]
    (whole,) = [each for each in compared(two, arms, [point]) if (each.task, each.baseline) == ("all", "reference")]
    assert whole.difference is not None and whole.score is not None and whole.its_score is not None
    assert whole.difference.mean.value == pytest.approx(whole.score - whole.its_score) == pytest.approx(0.05)
    assert (whole.difference.mean.n, whole.difference.mean.n_clusters) == (50, 50)


def test_a_point_that_a_task_of_the_final_lacks_does_not_go_on(comparison: Comparison) -> None:
    assert finalists(comparison, ALL, {REFERENCE.point}) == [] and finalists(comparison, ALL, {SUM.point}) == [
        SUM.point
    ]


def test_a_baseline_without_a_score_is_named_and_not_compared(comparison: Comparison) -> None:
    unscored = [mod(1.0, [None] * 4, 2.0), mod(3.0, [None] * 4, 8.0)]
    found = {each.baseline: each for each in compared(comparison, [REFERENCE, *ALONE, *unscored, SUM], [SUM.point])}
    assert found["mod"].place is None and found["mod"].corrected is None
    assert found["reference"].corrected is not None


def test_sizes_are_those_of_the_most_demanding_comparison(comparison: Comparison) -> None:
    size = size_of_final(comparison, ALL, [SUM.point], "both", most_prompts=500, step=1)
    assert not size.enough and size.n_prompts == comparison.final.most_texts == 8
    final = comparison.final.model_copy(update={"most_texts": 400})
    size = size_of_final(
        comparison.model_copy(update={"final": final}), ALL, [SUM.point], "both", most_prompts=500, step=1
    )
    assert size.enough and size.power >= 0.8 and 8 < size.n_prompts < 400 and size.per_prompt == 1
    final = final.model_copy(update={"texts": 30})
    size = size_of_final(
        comparison.model_copy(update={"final": final}), ALL, [SUM.point], "both", most_prompts=4, step=2
    )
    assert (size.n_prompts, size.per_prompt) == (4, 8)  # 32 texts of two personas
    few = comparison.model_copy(update={"final": final.model_copy(update={"texts": 4})})
    assert size_of_final(few, ALL, [SUM.point], "both", most_prompts=9, step=4).n_prompts == 2  # one would tell nothing


def test_tables_of_nothing_are_not_written(comparison: Comparison, tmp_path: Path) -> None:
    from pipeline.compare.run import Results
    from pipeline.compare.tables import DIFFERENCES_FILE, LEAKAGE_FILE, PAGE, PLOT, Made
    from pipeline.compare.write import write_tables

    empty = comparison.model_copy(update={"output": str(tmp_path / "none")})
    (tmp_path / "none").mkdir()
    for name in (DIFFERENCES_FILE, LEAKAGE_FILE, PLOT):
        (tmp_path / "none" / name).write_text("of another run")
    assert [path.name for path in write_tables(empty, Results(), Made("mpg", "here", "2026-01-01"))] == [PAGE]
    assert [path.name for path in (tmp_path / "none").iterdir()] == [PAGE]


def test_an_interval_that_says_nothing_is_not_shown() -> None:
    from pipeline.compare.page import _with_width

    assert _with_width(0.5, 0.125, 3) == "0.500±0.125" and _with_width(-0.25, 0.1, 9, "+.2f") == "-0.25±0.10"
    assert _with_width(0.5, 0.01, 2) == _with_width(0.5, 0.6, 9) == _with_width(0.5, None, 9) == "0.500±?"
    assert _with_width(None, None, 0) == "-"


def without(found: Found, *prompts: str) -> Found:
    """An arm of which no text has passed to some prompts; its measures are over the others."""
    texts = [text for text in found.written.texts if text.prompt not in prompts]
    mean = sum(text.score or 0.0 for text in texts) / len(texts)
    return replace(found, written=replace(found.written, texts=tuple(texts)), score=mean, joint=mean)


def test_what_an_arm_has_left_out_does_not_make_it_better(comparison: Comparison) -> None:
    """On all prompts that it has the finalist is as good as the baseline, which has answered the hard ones, too."""
    easy_ones = without(arm(SUM.point, [0.2, 0.2, 0.8, 0.8], 2.0), "p", "q")
    baseline = mod(1.0, [0.2, 0.2, 0.8, 0.8], 2.0)
    (one,) = [each for each in compared(comparison, [baseline, easy_ones], [SUM.point]) if each.baseline == "mod"]
    assert one.difference is not None and one.difference.mean.n == 2
    assert one.score == one.its_score == pytest.approx(0.8)
    assert one.difference.mean.value == one.relative == pytest.approx(0.0)


def test_an_arm_with_texts_of_few_prompts_is_no_place_and_goes_on_nowhere(comparison: Comparison) -> None:
    """Of one lucky text: neither the place of a baseline, nor a finalist; on what all have, others are chosen."""
    lucky = without(mod(3.0, [0.1, 0.1, 0.1, 1.0], 2.0), "p", "q", "r")
    kept = mod(1.0, [0.4] * 4, 2.0)
    (one,) = [each for each in compared(comparison, [kept, lucky, SUM], [SUM.point]) if each.baseline == "mod"]
    assert one.place is not None and one.place.label == "mod x1"
    other = replace(SUM, point=Point(Curve("sum", "none"), 1.0))
    assert finalists(comparison, [REFERENCE, SUM, replace(without(other, "p", "q", "r"), score=1.0)]) == [SUM.point]
    half = without(arm(other.point, [0.0, 0.0, 0.8, 0.79], 4.0), "p", "q")  # on r and s SUM has more
    assert finalists(comparison, [REFERENCE, SUM, half]) == [SUM.point]


def test_arms_that_share_too_few_prompts_have_as_many_texts_as_may_be(comparison: Comparison) -> None:
    one, other = without(SUM, "q", "r", "s"), without(REFERENCE, "q", "r", "s")
    size = size_of_final(comparison, [one, other], [SUM.point], "both", most_prompts=4, step=1)
    assert (size.n_prompts, size.per_prompt, size.enough) == (4, 2, False) and math.isnan(size.power)  # most_texts: 8
