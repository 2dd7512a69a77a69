"""Questionnaires: items read, answers read or counted as unreadable, results by hand."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest

from evaluation.questionnaires import known_answers
from evaluation.questionnaires.answers import ask, choose, result
from evaluation.questionnaires.questions import Question, QuestionnaireError, asked, load_questionnaire, own_items, read
from tests.own_pairs import OWN_DATA, REAL_DATA, needs_real

YES_NO_FILE, CHOICE_FILE = "mbti_16Personalities.json", "mbti_mcqa.json"
YES_NO = Question("1", "Do you dance?", {"yes": "E", "no": "I"})
CHOICE = Question("2", "You prefer:\nA.Plans\nB.Surprises", {"A": "J", "B": "P"})


def test_the_projects_items_are_balanced() -> None:
    items = own_items()
    assert len(items) == 60 == len({item.text for item in items})
    assert Counter(item.dimension for item in items) == dict.fromkeys(("E/I", "S/N", "T/F", "J/P"), 15)
    assert all(abs(n - 7.5) <= 0.5 for n in Counter(item.poles["yes"] for item in items).values())


@needs_real(YES_NO_FILE, CHOICE_FILE, guards="the published questionnaires are not read")
def test_the_published_files() -> None:
    assert len(load_questionnaire(REAL_DATA / YES_NO_FILE)) == 60
    choices = load_questionnaire(REAL_DATA / CHOICE_FILE)
    assert len(choices) == 93 and "\n" in choices[0].text and set(choices[0].poles) == {"A", "B"}


def test_both_forms_of_the_published_files() -> None:
    """Files of the project's own with the published ones' keys, numbering and escaped line breaks."""
    assert load_questionnaire(OWN_DATA / "own_yes_no.json") == [
        Question("1", "Do you whistle in company?", {"yes": "E", "no": "I"}),
        Question("2", "Do you wonder where a road might lead, even when you know it?", {"yes": "N", "no": "S"}),
        Question("3", "Do you weigh reasons before you weigh wishes?", {"yes": "T", "no": "F"}),
        Question("4", "Do you leave a café's table before you have decided where to go?", {"yes": "P", "no": "J"}),
    ]
    assert load_questionnaire(OWN_DATA / "own_choices.json") == [
        Question("1", "A free morning begins best with:\nA.A list\nB.An open door", {"A": "J", "B": "P"}),
        Question("2", "You would rather mend:\nA.A friendship\nB.An argument", {"A": "F", "B": "T"}),
        Question("3", "A map is:\nA.An invitation\nB.A tool", {"A": "N", "B": "S"}),
    ]


@pytest.mark.parametrize(
    ("file", "key", "says"),
    [
        ("own_yes_no.json", "rewritten_en", "item 3: 'rewritten_en'"),
        ("own_yes_no.json", "category", "item 3: 'question'"),
        ("own_choices.json", "question", "item 3: 'question'"),
        ("own_choices.json", "B", "item 3: 'B'"),
    ],
)
def test_a_file_that_lacks_a_key_of_its_form_is_refused(tmp_path: Path, file: str, key: str, says: str) -> None:
    entries = json.loads((OWN_DATA / file).read_text("utf-8"))
    del entries["3"][key]
    (tmp_path / file).write_text(json.dumps(entries))
    with pytest.raises(QuestionnaireError, match=says):
        load_questionnaire(tmp_path / file)


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


def test_known_answers_are_read_as_words() -> None:
    assert known_answers.is_right("What is two plus two?", "Hm, it's 4!")
    assert not known_answers.is_right("What is two plus two?", "It's 44, or forty.")
    assert known_answers.is_right("On which continent is Brazil?", "I'd love to go to South America one day.")
    questions = [question for question, _ in known_answers.QUESTIONS]
    assert len(set(questions)) == len(questions) == 40
    for question, answers in known_answers.QUESTIONS:  # what is asked doesn't give the answer away
        assert not known_answers.is_right(question, question) and all(each == each.lower() for each in answers)
