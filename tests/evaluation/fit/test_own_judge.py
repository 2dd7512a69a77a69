"""A judge from an adapter's pairs: what it learns, what it is measured on, and when it is not taken for a judge."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.fit.own_judge import BAR, LEAST_QUESTIONS, MOST_PAIRS, NoJudge, fit_own_judge, wilson
from evaluation.judges.classifier import ClassifierJudge
from evaluation.judges.own import CARD_FILE, WEIGHTS_FILE, own_judge
from personas.preferences import load_mbti_pairs, split
from tests.own_judge import WordlessEmbedder, fit, pairs, shuffled_sides
from tests.own_pairs import write_own_pairs


def card(folder: Path) -> dict:
    return json.loads((folder / CARD_FILE).read_text("utf-8"))


def test_a_judge_that_learned_is_counted_and_says_what_it_is_worth(tmp_path: Path) -> None:
    some = pairs(100)
    train, held_out = split(some)
    own = fit(tmp_path, some)
    assert own == own_judge(tmp_path) and own.counted and own.name == "own-classifier"
    facts = card(tmp_path)
    found = facts["dimensions"]["curious"]["held_out"]
    assert found["accuracy"] == 1.0 and found["n_answers"] == 2 * len(held_out) and found["n_pairs"] == len(held_out)
    assert found["n_questions"] == len(held_out) and found["interval"] == list(wilson(1.0, len(held_out)))
    assert found["pair_ranking"] == 1.0 and 0 <= found["calibration_error"] < 0.3 and 0 < found["log_loss"] < 0.69
    assert facts["fitted_on"] == f"the adapter's own pairs: {len(train)} on {len(train)} questions"
    assert facts["data"] == {"table": "made up"} and facts["counted"] is True
    assert f"held-out accuracy 1.00 ({found['interval'][0]:.2f} to 1.00) on {2 * len(held_out)} answers" in own.worth
    assert own.worth.startswith("fitted on the adapter's own pairs") and own.worth.endswith("no more")
    judge = ClassifierJudge.beside_adapter(own, "keen", embedder=WordlessEmbedder())
    assert judge.attributes == ("keen",) and not judge.knows("curious")
    high, low = (score.score or 0.0 for score in judge.score(["aye to that", "nay to that"], "keen"))
    assert high > 0.5 > low and high < 0.995  # 100 pairs are no reason to be certain


def test_it_does_not_depend_on_the_order_of_the_pairs(tmp_path: Path) -> None:
    some = pairs(60)
    fit(tmp_path / "one", some)
    random.Random(1).shuffle(some)
    fit(tmp_path / "two", some + some[:9])  # nor on a pair that is there twice
    assert (tmp_path / "one" / WEIGHTS_FILE).read_bytes() == (tmp_path / "two" / WEIGHTS_FILE).read_bytes()


def test_of_very_many_pairs_some_are_looked_at(tmp_path: Path) -> None:
    fit(tmp_path, pairs(2 * MOST_PAIRS))
    assert card(tmp_path)["dimensions"]["curious"]["n_train_pairs"] == MOST_PAIRS


@pytest.mark.parametrize("seed", range(3))
def test_sides_that_are_a_coins_are_not_counted(tmp_path: Path, seed: int) -> None:
    own = fit(tmp_path, shuffled_sides(pairs(100), seed=seed))
    assert not own.counted and own.name == "own-classifier-unproven"
    assert f"and {BAR:g} is asked" in own.worth and "tells the pairs' two sides apart" not in own.worth
    assert own_judge(tmp_path) == own


def test_few_held_out_questions_are_no_proof(tmp_path: Path) -> None:
    train, held_out = split(pairs(100))
    five, six = (fit(tmp_path, train + held_out[:n]) for n in (5, 6))
    assert six.counted and not five.counted
    assert five.worth.endswith(
        "not counted: by 5 held-out questions its accuracy may be as low as 0.57, and 0.6 is asked"
    )


def test_an_answer_that_it_has_seen_is_no_measure(tmp_path: Path) -> None:
    """Every rejected answer is the same words: whoever knows them by heart is right on half of the answers."""
    own = fit(tmp_path, [replace(p, rejected="No, thank you.") for p in pairs(100)])
    assert not own.counted and own.worth.endswith("no held-out answer that it had not seen, on either side")
    assert card(tmp_path)["dimensions"]["curious"]["held_out"] is None


@pytest.mark.parametrize(
    "some",
    [pairs(LEAST_QUESTIONS // 2), [replace(p, question="The same?") for p in pairs(50)], [*pairs(3), *pairs(3)] * 9],
    ids=["few pairs", "one question", "few pairs, often"],
)
def test_with_too_few_questions_there_is_none(tmp_path: Path, some: list) -> None:
    with pytest.raises(
        NoJudge, match=rf"questions to fit one on, and {LEAST_QUESTIONS} are needed; give pairs on more"
    ):
        fit(tmp_path, some)
    assert not list(tmp_path.iterdir())


def test_the_wilson_interval() -> None:
    assert wilson(1.0, 10) == (pytest.approx(0.7225, abs=1e-4), pytest.approx(1.0))
    assert wilson(0.5, 100) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))


def test_the_projects_own_pairs_are_too_few_to_prove_a_judge(tmp_path: Path) -> None:
    """A dozen pairs of real sentences: fitted on most, measured on the rest, and not counted."""
    (tmp_path / "data").mkdir()
    own_pairs = load_mbti_pairs(write_own_pairs(tmp_path / "data"), "E")
    judge = fit_own_judge("E", own_pairs[:10], own_pairs[10:], tmp_path, embedder=WordlessEmbedder(), about={})
    assert not judge.counted and judge.attribute == "E" and "held-out accuracy" in judge.worth
