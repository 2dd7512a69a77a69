"""What is counted of the role-play pairs, on pairs by hand."""

from __future__ import annotations

from personas.preferences import PreferencePair
from personas.profiles import ROLE_PLAY_SYSTEM, render
from tools.role_play_pairs import against_another, by_judge, by_length, of_another, ranked, said_of
from tools.shipped_adapters import across_personas


def pair(profile: str, chosen: str, rejected: str) -> PreferencePair:
    system = render(ROLE_PLAY_SYSTEM, {"profile": profile, "personality": "She is kind."})
    return PreferencePair("Say something.", chosen, rejected, system)


BAKER = pair("He bakes bread and cakes.", "I love the smell of fresh bread from my oven.", "I repair old cars.")
SAILOR = pair("She sails a boat.", "My boat.", "I like to watch films in the evening, at home.")


def test_a_pair_under_another_persona_keeps_its_answers() -> None:
    moved = of_another([BAKER, BAKER, SAILOR])
    assert [each.system for each in moved] == [SAILOR.system, SAILOR.system, BAKER.system]
    assert [each.chosen for each in moved] == [BAKER.chosen, BAKER.chosen, SAILOR.chosen]
    assert of_another([BAKER, BAKER]) == []


def test_an_answer_stands_against_that_of_another() -> None:
    moved = against_another([BAKER, SAILOR])
    assert [(each.chosen, each.rejected) for each in moved] == [
        (BAKER.chosen, SAILOR.chosen),
        (SAILOR.chosen, BAKER.chosen),
    ]
    assert [each.system for each in moved] == [BAKER.system, SAILOR.system]


def test_across_personas_both_answers_are_good_ones() -> None:
    pilot = pair("She flies planes.", "The sky is mine.", "Food is good.")
    pairs = [BAKER, SAILOR, pilot]
    found = across_personas(pairs)
    assert len(found) == 6 and set(pairs) < set(found) and found == across_personas(pairs)
    for each in set(found) - set(pairs):
        assert (each.system, each.chosen) in [(known.system, known.chosen) for known in pairs]
        assert each.rejected in {known.chosen for known in pairs if known.system != each.system}


def test_a_persona_is_read_from_its_message() -> None:
    assert said_of(BAKER, "profile") == "He bakes bread and cakes."
    assert said_of(BAKER, "personality") == "She is kind."


def test_shares_of_pairs() -> None:
    assert ranked([1.0, 0.0, 2.0, 5.0], [0.0, 1.0, 2.0, 1.0]) == 0.625
    assert by_length([BAKER, SAILOR]) == 0.5
    assert by_judge([BAKER, SAILOR], "profile") == 1.0
