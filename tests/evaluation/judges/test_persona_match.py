"""The embedded judges beside the classifier: role-play by nearness, and the preference models' own opinion."""

from __future__ import annotations

import math

import pytest

from evaluation.items import Item, is_independent, label_of
from evaluation.judges.log_ratio import LogRatioJudge
from evaluation.judges.persona_match import PersonaMatchJudge
from evaluation.scores import Status


@pytest.fixture(scope="module")
def judge() -> PersonaMatchJudge:
    return PersonaMatchJudge()


def test_a_text_in_character_is_nearer_to_its_own_persona(judge: PersonaMatchJudge) -> None:
    baker = "He is a 40-year-old baker. He gets up at three in the morning. He loves sourdough bread."
    items = [
        Item("own", "I baked forty loaves of bread before sunrise, and the sourdough came out perfect!", profile=baker),
        Item("other", "I landed the plane in heavy fog last night, my passengers applauded.", profile=baker),
        Item("empty", " ... ", profile=baker),
        Item("nobody", "I baked forty loaves of bread."),
    ]
    own, other, empty, nobody = judge.judge(items, ["profile"])["profile"]
    assert own.score is not None and other.score is not None
    assert own.score > 0.9 > 0.6 > other.score
    assert (empty.status, empty.rationale) == (Status.FAILED, "the text has no words")
    assert (nobody.status, nobody.rationale) == (Status.FAILED, "the row has no profile")
    warm = "She is warm and kind."
    kind = Item("kind", "Oh, let me help you with that, dear, I made you some soup.", personality=warm)
    cold = Item("cold", "Your report is bad. Do it again.", personality=warm)
    scores = judge.judge([kind, cold], ["personality"])["personality"]
    assert scores[0].score > scores[1].score  # type: ignore[operator]


def test_a_score_does_not_depend_on_its_neighbours(judge: PersonaMatchJudge) -> None:
    items = [Item(what, f"I like {what}.", profile=f"He likes {what}.") for what in ("tea", "war", "sea")]
    together = judge.judge(items, ["profile"])["profile"]
    assert [judge.judge([item], ["profile"])["profile"][0].score for item in items] == [s.score for s in together]
    assert judge.judge([], ["profile"]) == {"profile": []}
    with pytest.raises(ValueError, match="knows profile and personality, not 'E'"):
        judge.judge(items, ["E"])


def test_log_ratios_as_scores() -> None:
    items = [Item("a", "x", log_ratios={"E": 0.0}), Item("b", "x", log_ratios={"E": math.log(3)}), Item("c", "x")]
    a, b, c = LogRatioJudge().judge(items, ["E"])["E"]
    assert a.score == 0.5 and b.score == pytest.approx(0.75)
    assert c.status is Status.FAILED and c.score is None
    assert not is_independent(label_of(LogRatioJudge()))
