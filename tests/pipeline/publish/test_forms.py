"""Rows put into forms to train on: whose texts, with which system message, against which other ones."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from personas import KNOWN, Attribute
from pipeline.publish.forms import Made, NothingToExport, Source, make_form, persona_in_words
from pipeline.publish.wanted import Wanted
from pipeline.store.schema import GENERATIONS, JUDGMENTS
from tests.card_desk import ROW

ATTRIBUTES = [KNOWN["E"], KNOWN["T"], KNOWN["profile"], Attribute("bold", "")]
PERSONAS = {"E": {"E": 1.0}, "T": {"T": 1.0}, "ET": {"E": 0.75, "T": 0.25}, "reference": {}}


def row(row_id: str, persona: str = "E", prompt: str = "p", text: str | None = None, **changes: Any) -> dict[str, Any]:
    weights = PERSONAS[persona]
    return {
        **ROW,
        "row_id": row_id,
        "prompt_id": prompt,
        "prompt": [{"role": "user", "content": f"What of {prompt}?"}],
        "persona": persona,
        "attributes": list(weights),
        "weights": list(weights.values()),
        "response": f"text {row_id}" if text is None else text,
        "finish_reason": "stop",
        "decoder": "scr-exact",
        **dict.fromkeys(("system", "profile", "personality", "log_prob_untold")),
        **changes,
    }


def source(
    *rows: dict[str, Any],
    scores: dict[str, tuple[float | None, float | None]] | None = None,
    test: str = "",
    attributes: list[Attribute] = ATTRIBUTES,
) -> Source:
    """``scores``: row id -> (E, T)."""
    judgments = [
        {"row_id": row_id, "attribute": name, "judge": "j@1", "score": score, "status": "ok" if score else "failed"}
        for row_id, both in (scores or {}).items()
        for name, score in zip("ET", both, strict=True)
    ]
    tables = {
        "generations": pa.Table.from_pylist(list(rows), schema=GENERATIONS),
        "judgments": pa.Table.from_pylist(judgments, schema=JUDGMENTS),
    }
    return Source.of(tables, set(test.split()), attributes, ["j@1"], "mean")


def made(rows: Source, form: str = "preference", **wanted: Any) -> list[dict[str, Any]]:
    return make_form(rows, Wanted(form=form, **wanted)).table.to_pylist()


def pairs(rows: Source, **wanted: Any) -> list[tuple[str, str]]:
    return [(pair["chosen_row_id"], pair["rejected_row_id"]) for pair in made(rows, **wanted)]


def refusal(rows: Source, form: str = "preference", **wanted: Any) -> str:
    with pytest.raises(NothingToExport) as caught:
        make_form(rows, Wanted(form=form, **wanted))
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------- chats


def test_each_text_is_the_answer_of_its_chat() -> None:
    (chat,) = made(source(row("a")), "messages", system="none")
    assert chat == {
        "row_id": "a",
        "prompt_id": "p",
        "persona": "E",
        "attributes": ["E"],
        "weights": [1.0],
        "messages": [{"role": "user", "content": "What of p?"}, {"role": "assistant", "content": "text a"}],
    }
    (apart,) = made(source(row("a")), "prompt-completion", system="none")
    assert [*apart["prompt"], *apart["completion"]] == chat["messages"] and len(apart["completion"]) == 1


def system_of(given: dict[str, Any], how: str, attributes: list[Attribute] = ATTRIBUTES) -> str | None:
    (found,) = made(source(given, attributes=attributes), "messages", system=how)
    first = found["messages"][0]
    assert [each["role"] for each in found["messages"]][-2:] == ["user", "assistant"]
    return first["content"] if first["role"] == "system" else None


def test_the_system_message_says_who_is_to_answer() -> None:
    assert system_of(row("a", "ET"), "persona") == (
        "Answer as a person would who is like this, in your own words:\n"
        f"- {KNOWN['E'].description} (75%)\n- {KNOWN['T'].description} (25%)"
    )
    assert system_of(row("a", "reference"), "persona") is None  # what the control is: nobody in particular
    assert system_of(row("a", "ET"), "told") is None and system_of(row("a", "ET"), "none") is None


def test_what_the_reference_was_told_comes_first_and_is_not_said_twice() -> None:
    told = row("a", system="Be brief.")
    assert system_of(told, "told") == "Be brief." and system_of(told, "none") is None
    assert (system_of(told, "persona") or "").startswith("Be brief.\n\nAnswer as a person")
    for how in ({"decoder": "prompting"}, {"decoder": "mod", "log_prob_untold": -3.0}):
        assert system_of(row("a", system="I am like this.", **how), "persona") == "I am like this."


def test_role_play_is_told_as_the_attributes_models_were_told() -> None:
    given = row("a", attributes=["profile"], weights=[1.0], profile="She is 8.", personality="Calm.")
    said = system_of(given, "persona")
    assert said == "You are this person. Answer as this person would.\nProfile: She is 8.\nPersonality: Calm."
    both = given | {"attributes": ["profile", "personality"], "weights": [0.5, 0.5]}
    told = persona_in_words(both, [KNOWN["profile"], KNOWN["personality"]])
    assert told == said  # once, though both attributes' models were told it
    mixed = system_of(given | {"attributes": ["profile", "E"], "weights": [0.5, 0.5]}, "persona")
    assert mixed is not None and mixed.startswith(said) and KNOWN["E"].description in mixed


def test_an_attribute_without_a_description_is_told_by_its_name() -> None:
    assert (system_of(row("a", attributes=["bold"], weights=[1.0]), "persona") or "").endswith("- bold (100%)")


def test_a_prompt_with_a_system_message_of_its_own_keeps_it() -> None:
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    said = system_of(row("a", prompt="p", **{}) | {"prompt": chat}, "persona")
    assert said is not None and said.startswith("Answer as") and said.endswith("\n\nBe kind.")
    assert system_of(row("a") | {"prompt": chat}, "none") == "Be kind."


# ---------------------------------------------------------------------------------------------- whose texts


def ids(rows: Source, **wanted: Any) -> list[str]:
    return [each["row_id"] for each in made(rows, "messages", **wanted)]


def test_filters() -> None:
    rows = source(
        row("a"),
        row("b", "T", finish_reason="length"),
        row("c", "reference", text=" \n"),
        row("d", "reference", text="one two three four five"),
        row("e", "reference", text="One, two, three, four, five!"),
        row("f", text="one two three four five"),
        scores={"a": (0.6, 0.1), "b": (0.1, 0.3), "f": (None, 0.9)},
    )
    assert ids(rows) == ["a", "b", "d", "e", "f"]  # a text that says nothing teaches nothing
    assert ids(rows, finished_only=True) == ["a", "d", "e", "f"]
    assert ids(rows, drop_near_duplicates=True) == ["a", "b", "d", "f"]
    assert ids(rows, personas=("T", "reference")) == ["b", "d", "e"]
    assert ids(rows, min_score=0.6) == ["a"]  # unscored is not zero, and not good either
    assert ids(rows, min_score=0.0) == ["a", "b"]
    lines = make_form(rows, Wanted(form="messages", min_score=0.5, finished_only=True)).lines
    assert lines == (
        "messages: 1 of 6 texts",
        "left out: 1 texts cut off at the length limit (--finished-only)",
        "left out: 1 texts that say nothing",
        "left out: 3 texts without a score (--min-score)",
    )


def test_the_first_of_near_duplicates_that_may_be_taught_stays() -> None:
    rows = source(
        row("a", text="one two three", finish_reason="length"),
        row("b", text="one two three"),
        row("c", text="ONE two three"),
    )
    assert ids(rows, drop_near_duplicates=True) == ["a"]
    assert ids(rows, drop_near_duplicates=True, finished_only=True) == ["b"]


def test_a_text_of_the_test_split_that_repeats_one_of_train_goes() -> None:
    rows = source(row("a", text="one two three"), row("b", text="one two three", prompt="q"), test="b")
    assert ids(rows, drop_near_duplicates=True) == ["a"]


def test_nothing_left_is_one_line() -> None:
    why = "no text is left (left out: 1 texts that say nothing); ask for less"
    assert refusal(source(row("a", text="")), "messages") == why
    assert "mpg judge" in refusal(source(row("a")), "messages", min_score=0.5)
    assert "mpg judge" in refusal(source(row("a"), row("b")))


# ---------------------------------------------------------------------------------------------- pairs


def test_the_best_against_the_worst_of_a_cell() -> None:
    rows = source(
        *(row(i) for i in "abc"),
        *(row(i, prompt="q") for i in "de"),
        *(row(i, "ET") for i in "fg"),
        row("h", "reference"),
        row("i", "reference"),
        scores={
            "a": (0.5, 0.0),
            "b": (0.9, 0.0),
            "c": (0.2, 1.0),
            "d": (0.4, 0.0),
            "e": (None, 0.0),
            "f": (0.8, 0.0),  # .75 * .8 + .25 * 0 = .6
            "g": (0.7, 0.9),  # .75
            "h": (0.1, 0.0),
            "i": (0.9, 0.0),
        },
    )
    found = make_form(rows, Wanted(form="preference", system="none"))
    assert found.lines == (
        "preference: 2 pairs of 3 cells of a prompt and a persona",
        "no pair: 1 with fewer than two scored texts",
    )
    first, second = found.table.to_pylist()
    assert (second["chosen_row_id"], second["rejected_row_id"]) == ("g", "f")
    assert (second["chosen_score"], second["rejected_score"]) == (pytest.approx(0.75), pytest.approx(0.6))
    assert first == {
        "chosen_row_id": "b",
        "rejected_row_id": "c",
        "prompt_id": "p",
        "persona": "E",
        "attributes": ["E"],
        "weights": [1.0],
        "rejected_persona": "E",
        "chosen_score": 0.9,
        "rejected_score": 0.2,
        "prompt": [{"role": "user", "content": "What of p?"}],
        "chosen": [{"role": "assistant", "content": "text b"}],
        "rejected": [{"role": "assistant", "content": "text c"}],
    }


def test_ties_margins_and_equal_texts() -> None:
    same = {"a": (0.5, 0.0), "b": (0.5, 0.0)}
    assert "1 whose best text is no better than the other" in refusal(source(row("a"), row("b"), scores=same))
    apart = source(row("a"), row("b"), scores={"a": (0.9, 0.0), "b": (0.8, 0.0)})
    assert pairs(apart) == pairs(apart, min_margin=0.1) == [("a", "b")]  # .9 - .8 is .09999999999999998
    assert "1 with a margin below --min-margin 0.2" in refusal(apart, min_margin=0.2)
    assert pairs(apart, min_score=0.9) == [("a", "b")]
    assert "1 whose best text is below --min-score 0.95; lower --min-margin or --min" in refusal(apart, min_score=0.95)
    alike = source(row("a", text="x"), row("b", text="x"), scores={"a": (0.9, 0.0), "b": (0.2, 0.0)})
    assert "no better than the other" in refusal(alike)
    three = source(*(row(i) for i in "abcd"), scores={i: (0.9 if i in "ab" else 0.1, 0.0) for i in "abcd"})
    assert pairs(three) == [("a", "c")]  # the first of those that are alike


def test_of_two_personas_each_is_shown_what_it_is_not() -> None:
    rows = source(
        row("a"),
        row("b", "T"),
        row("c", "reference"),
        row("d"),
        row("e", "T", prompt="q"),
        scores={"a": (0.9, 0.4), "b": (0.3, 0.8), "c": (0.5, 0.1), "d": (0.7, 0.0), "e": (0.0, 1.0)},
    )
    found = make_form(rows, Wanted(form="preference", between="personas", system="persona"))
    assert pairs(rows, between="personas") == [("a", "b"), ("b", "d")]  # d is no T at all, less than c
    assert [pair["rejected_persona"] for pair in found.table.to_pylist()] == ["T", "E"]
    prompts = [pair["prompt"][0]["content"] for pair in found.table.to_pylist()]
    assert KNOWN["E"].description in prompts[0] and KNOWN["T"].description in prompts[1]
    assert found.lines == (
        "preference: 2 pairs of 3 cells of a prompt and a persona",
        "no pair: 1 without a scored text of its own and of another persona",
    )
    assert pairs(rows, between="personas", personas=("T",)) == [("b", "d")]  # E's texts still say what T is not


def test_both_texts_of_a_pair_are_of_one_split() -> None:
    scores = {"a": (0.9, 0.4), "b": (0.3, 0.8), "c": (0.5, 0.1), "d": (0.7, 0.0)}
    rows = source(row("a"), row("c", "reference"), row("b", "T"), row("d", "ET"), scores=scores, test="b d")
    assert pairs(rows, between="personas") == [("a", "c"), ("b", "d"), ("d", "b")]
    found = make_form(rows, Wanted(form="preference", between="personas"))
    assert found.lines[0].startswith("preference: 3 pairs (1 train, 2 test) of 3 cells")


def test_attributes_that_nobody_judges_do_not_count_and_an_unscored_one_leaves_its_text_out() -> None:
    mixed = {"attributes": ["E", "bold"], "weights": [0.5, 0.5]}
    rows = source(row("a", **mixed), row("b", **mixed), scores={"a": (0.9, 0.0), "b": (0.1, 0.0)})
    (pair,) = made(rows)
    assert (pair["chosen_score"], pair["rejected_score"]) == (0.9, 0.1)
    rows = source(row("a", "ET"), row("b", "ET"), scores={"a": (0.9, None), "b": (0.1, 0.2)})
    assert "fewer than two scored texts" in refusal(rows)


def test_the_same_rows_make_the_same_form() -> None:
    rows = source(*(row(i) for i in "abc"), scores={i: (n / 10, 0.5) for n, i in enumerate("abc", start=1)})
    one, other = (make_form(rows, Wanted(form="preference")) for _ in "ab")
    assert isinstance(one, Made) and one.table.equals(other.table) and one.lines == other.lines
