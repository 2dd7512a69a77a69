"""Role-play: a profile in words, templates, and what each mistake says."""

from __future__ import annotations

import pytest

from personas import ROLE_PLAY, Profile
from personas.profiles import placeholders, profile_text, render, with_system


def test_the_papers_example_in_words() -> None:
    profile = Profile(age=36, gender="woman", profession="school teacher", hobbies=["hiking"])
    assert profile.text == "She is a 36-year-old school teacher. She loves hiking."


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"age": 80, "gender": "man"}, "He is an 80-year-old man."),
        ({"age": 11}, "They are an 11-year-old person."),
        ({"profession": "engineer"}, "They are an engineer."),
        ({"gender": "female"}, "She is a female."),
        ({"name": "Ada", "hobbies": ["chess", "tea", "maps"]}, "They are called Ada. They love chess, tea and maps."),
        ({"facts": ["He has two cats.", " He drives a bus. "]}, "He has two cats. He drives a bus."),
    ],
)
def test_sentences(fields: dict, text: str) -> None:
    assert Profile(**fields).text == text == profile_text(fields)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({}, "profile: says nothing"),
        ({"age": "36"}, "profile.age: '36' is no age"),
        ({"age": 200}, "profile.age: 200 is no age"),
        ({"hobbies": "hiking"}, "profile.hobbies: 'hiking' is no list of texts"),
        ({"job": "x"}, "profile.job: unknown field; a profile has name, age"),
        (["x"], "is no profile; give text, or {age"),
        ("  ", "is no profile"),
    ],
)
def test_a_profile_that_is_none(value: object, says: str) -> None:
    with pytest.raises(ValueError, match=says.replace("[", r"\[").replace("{", r"\{")):
        profile_text(value)


def test_templates() -> None:
    system = ROLE_PLAY["profile"].system
    assert system is not None and placeholders(system) == {"profile", "personality"}
    texts = {"profile": "She hikes.", "personality": "She is {kind}."}
    assert render(system, texts).endswith("Profile: She hikes.\nPersonality: She is {kind}.")
    assert render("{{x}} {profile}", texts) == "{x} She hikes."
    with pytest.raises(ValueError, match=r"names \{personality\}, which the persona does not have"):
        render(system, {"profile": "x", "personality": ""})
    with pytest.raises(ValueError, match=r"names \{age\}; choose from \{profile\}, \{personality\}"):
        placeholders("{age}")
    with pytest.raises(ValueError, match="write a brace that is meant as such twice"):
        placeholders("{profile")


def test_a_system_message_comes_before_the_chats_own() -> None:
    user = {"role": "user", "content": "Hi"}
    assert with_system([user], "A") == [{"role": "system", "content": "A"}, user]
    assert with_system([{"role": "system", "content": "B"}, user], "A")[0]["content"] == "A\n\nB"
