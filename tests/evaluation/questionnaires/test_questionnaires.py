"""Questionnaires: items read, answers read or counted as unreadable, results by hand."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from evaluation.questionnaires.answers import ask, choose, result
from evaluation.questionnaires.questions import Question, QuestionnaireError, asked, load_questionnaire, own_items, read

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
YES_NO = Question("1", "Do you dance?", {"yes": "E", "no": "I"})
CHOICE = Question("2", "You prefer:\nA.Plans\nB.Surprises", {"A": "J", "B": "P"})


def test_the_projects_items_are_balanced() -> None:
    items = own_items()
    assert len(items) == 60 == len({item.text for item in items})
    assert Counter(item.dimension for item in items) == dict.fromkeys(("E/I", "S/N", "T/F", "J/P"), 15)
    assert all(abs(n - 7.5) <= 0.5 for n in Counter(item.poles["yes"] for item in items).values())


@pytest.mark.skipif(not DATA.is_dir(), reason="the published questionnaires are not beside the project")
def test_the_published_files() -> None:
    assert len(load_questionnaire(DATA / "mbti_16Personalities.json")) == 60
    choices = load_questionnaire(DATA / "mbti_mcqa.json")
    assert len(choices) == 93 and "\n" in choices[0].text and set(choices[0].poles) == {"A", "B"}


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("Yes, every night.", "yes"),
        ("No. I hate it; yes, really.", "no"),  # what it says first
        ("Absolutely! I love it.", "yes"),
        ("Absolutely not.", "no"),
        ("I know nothing of it.", None),  # no `no` in know
        ("It depends.", None),
        ("", None),
    ],
)
def test_yes_or_no(answer: str, wanted: str | None) -> None:
    assert read(YES_NO, answer) == wanted


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("A", "A"),
        ("B. Because I like it", "B"),
        ("I choose (A), always.", "A"),
        ("**B**: surprises", "B"),
        ("My answer is option B.", "B"),
        ("A plan is good.", None),  # an article
        ("A) or B)", None),
        ("Neither.", None),
    ],
)
def test_letters(answer: str, wanted: str | None) -> None:
    assert read(CHOICE, answer) == wanted


def test_answers_in_words_and_by_log_probability() -> None:
    assert "yes or no" in asked(YES_NO) and asked(CHOICE).endswith("then say why.")
    questions = [YES_NO, CHOICE]
    assert ask(questions, lambda texts: ["yes", "hm"]) == ["yes", None]
    seen = []

    def score(texts, options):
        seen.extend(options)
        return [[-1.0, -2.0], [-3.0, -0.5]]

    assert choose(questions, score) == ["yes", "B"] and seen == [["yes", "no"], ["A", "B"]]
    assert choose(questions, lambda t, o: [[-1.0, -1.0], [math.nan, -1.0]]) == [None, None]


def test_results_by_hand() -> None:
    questions = [YES_NO] * 4 + [CHOICE] * 2
    found = result(questions, ["yes", "yes", "no", None, "B", "B"], {"E": 1.0, "J": 0.5})
    assert found.shares["E/I"] == pytest.approx(2 / 3) and found.shares["J/P"] == 0 and found.shares["S/N"] is None
    assert found.accuracy == {"E/I": pytest.approx(2 / 3), "J/P": 0.0}
    assert found.type_right is False and (found.n, found.n_unreadable) == (6, 1)
    assert found.absolute_error == pytest.approx((1 / 3 + 0.5) / 2)
    assert result(questions, ["no"] * 4 + ["B"] * 2, {"I": 1.0, "P": 1.0}).type_right is True
    assert result([YES_NO], [None], {"E": 1.0}).type_right is None
    with pytest.raises(ValueError, match="names both poles of a dimension"):
        result([YES_NO], ["yes"], {"E": 0.5, "I": 0.5})


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(QuestionnaireError, match="can't be read"):
        load_questionnaire(tmp_path / "no.json")
    for text, says in (
        ("[]", "holds no items"),
        (json.dumps({"1": {"question": "x", "A": "Q", "B": "E"}}), "item 1: "),
    ):
        (tmp_path / "q.json").write_text(text)
        with pytest.raises(QuestionnaireError, match=says):
            load_questionnaire(tmp_path / "q.json")
