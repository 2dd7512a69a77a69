"""Who is told what a persona is like, in which words; and what a row's id knows of it."""

from __future__ import annotations

import itertools

import pytest

from mpg import UNTOLD, DecoderSettings
from mpg.settings import JOB_DECODERS, TABLE, TELLS, not_told
from personas import Grid, Message, Persona, Prompt, control
from personas.telling import DEFAULT_WORDING, WORDINGS, degree, traits_in_words
from pipeline.plan.cells import PlannedCell, Sources, plan_cells
from pipeline.plan.systems import Systems

SOURCES = Sources("m", "m@1", None, (), (), (("E", "e"), ("N", "n"), ("profile", "p")), "float32")
EVE = Persona("eve", {"E": 0.75, "N": 0.25}, profile="She hikes.")
SYSTEMS = Systems("Be brief.", {"profile": "You are: {profile}"}, {"E": "loud", "N": "dreamy"})
ASKED = {"role": "user", "content": "Hi"}


def plan(persona: Persona = EVE, systems: Systems = SYSTEMS, *messages: Message, **settings: object) -> PlannedCell:
    grid = Grid((Prompt("p", (*messages, Message("user", "Hi"))),), (persona,))
    (cell,) = plan_cells(grid, DecoderSettings(**settings), SOURCES, 0, systems)
    return cell


def system(chat: list[dict[str, str]]) -> str:
    return chat[0]["content"]


WORDS = "Be brief.\n\nAnswer as a person would who is like this, in your own words:\n- loud (75%)\n- dreamy (25%)"
BARE = [{"role": "system", "content": "Be brief."}, ASKED]


def test_the_reference_alone_is_told() -> None:
    cell = plan(tell="reference")
    assert cell.system == cell.columns()["system"] == system(cell.reference_chat()) == WORDS
    assert cell.own_chats() == {UNTOLD: BARE, "E": BARE, "N": BARE}


def test_all_are_told() -> None:
    cell = plan(tell="all")
    assert system(cell.reference_chat()) == WORDS and cell.own_chats() == {UNTOLD: BARE}
    assert plan(name="prompting").own_chats() == {UNTOLD: BARE}  # as it always did
    assert plan(tell="all", systems=Systems()).own_chats() == {UNTOLD: [ASKED]}


@pytest.mark.parametrize("tell", ["reference", "all"])
def test_an_attributes_own_system_message_stays_its_own(tell: str) -> None:
    cell = plan(Persona("eve", {"E": 0.5, "profile": 0.5}, profile="She hikes."), tell=tell)
    own = cell.own_chats()
    assert system(own["profile"]) == "You are: She hikes." and ("E" in own) == (tell == "reference")
    assert (cell.system or "").endswith("- loud (50%)\n- profile (50%)")  # what has no description is named


def test_what_is_told_stands_before_the_prompts_own_system_message() -> None:
    cell = plan(EVE, SYSTEMS, Message("system", "Rhyme."), tell="reference")
    assert system(cell.reference_chat()) == f"{WORDS}\n\nRhyme."
    assert system(cell.own_chats()["E"]) == system(cell.own_chats()[UNTOLD]) == "Be brief.\n\nRhyme."


@pytest.mark.parametrize(
    ("name", "tell"), [each for each in itertools.product(JOB_DECODERS, TELLS) if not_told(*each) is None]
)
def test_every_decoder_tells_all_but_the_control(name: str, tell: str) -> None:
    told = (TABLE[name].weighted and tell != "none") or name == "prompting"
    cell, alone = plan(name=name, tell=tell), plan(control(), name=name, tell=tell)
    assert cell.told == told and cell.system == (WORDS if told else "Be brief.")
    assert (alone.told, alone.system, alone.untold, alone.own_chats()) == (False, "Be brief.", None, {})
    assert alone.row_id == plan(control(), name="reference").row_id


def test_an_id_knows_who_is_told_and_in_which_words() -> None:
    cells = [plan(), plan(tell="reference"), plan(tell="all"), plan(name="prompting")]
    cells += [
        plan(EVE, Systems("Be brief.", {}, SYSTEMS.descriptions, wording), tell="all")
        for wording in WORDINGS
        if wording != DEFAULT_WORDING
    ]
    assert len({cell.row_id for cell in cells}) == len({cell.seed for cell in cells}) == len(cells)
    assert len({cell.config_hash for cell in cells[:4]}) == 4
    # The words are no other setting than their text: told by hand, the attributes' models read the same.
    assert plan(EVE, Systems(WORDS)).row_id not in {cell.row_id for cell in cells}


def test_rows_that_nobody_tells_are_those_of_before() -> None:
    """Ids of version 0.1 before it could tell: of a composed row, and of one of `prompting`."""
    assert plan().row_id == "59e9ac18ba327700b9f589be2266935c"
    assert plan(name="prompting").row_id == "6a7add4cc35d6453a95d66566a55a1d6"


def test_an_id_knows_what_the_reference_would_read_untold_where_a_ratio_does() -> None:
    """Two jobs that come to the same words for the reference, and to other ones for the attributes' models."""
    one = Systems("Be brief.", {}, {"E": "loud", "N": "dreamy"})
    other = Systems(None, {}, {"E": "loud", "N": "dreamy"})
    assert plan(EVE, one, tell="reference").row_id != plan(EVE, other, tell="reference").row_id


# ------------------------------------------------------------------ wordings


def test_weights_in_words_are_monotone_and_equal_weights_have_equal_words() -> None:
    order = ["a little", "somewhat", "clearly", "strongly"]
    for step in range(1, 101):
        assert order.index(degree(step / 100, 1.0)) >= order.index(degree((step - 1) / 100, 1.0))
    assert {degree(1 / n, 1 / n) for n in range(1, 9)} == {"strongly"}
    third = 1 / 3
    assert traits_in_words({"E": third, "N": third, "T": 1 - 2 * third}, {}, "degrees").count("strongly") == 3
    assert {degree(w, 1.0) for w in (1.0, 2 / 3, 1 / 2, 1 / 4)} == set(order)


def test_wordings_say_the_same_attributes() -> None:
    said = {name: traits_in_words({"E": 0.8, "N": 0.2}, {"E": "loud", "N": "dreamy"}, name) for name in WORDINGS}
    lines = {name: text.splitlines()[1:] for name, text in said.items()}
    assert lines == {
        "shares": ["- loud (80%)", "- dreamy (20%)"],
        "degrees": ["- strongly: loud", "- a little: dreamy"],
        "list": ["- loud", "- dreamy"],
    }
