"""Role-play: a person's profile and manner in words, and what preference models are told of them.

The texts have the form of the role-play pairs published with MPG (which are built on ALOE): short sentences
about a third person, facts in the *profile*, manner in the *personality*.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# What a template may name, and the persona's text that takes its place.
PLACEHOLDERS = ("profile", "personality")
# What the shipped role-play adapters were trained under; a template of one's own may say it otherwise.
ROLE_PLAY_SYSTEM = "You are this person. Answer as this person would.\nProfile: {profile}\nPersonality: {personality}"
# What stands for the question in pairs that come without one.
ROLE_PLAY_QUESTION = "Say something."
_PRONOUNS = {"woman": "She", "female": "She", "man": "He", "male": "He"}


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A person, by facts.

    Attributes:
        name: what people call them.
        age: in years.
        gender: ``woman``, ``man``, or any other word; it chooses the pronoun.
        profession: with its article where it needs one less: ``school teacher``.
        hobbies: nouns or -ing forms: ``hiking``.
        facts: whole sentences, copied.

    Raises:
        ValueError: nothing is given, or an age that is no number from 0 to 150.
    """

    name: str = ""
    age: int | None = None
    gender: str = ""
    profession: str = ""
    hobbies: Sequence[str] = ()
    facts: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.age is not None and not (isinstance(self.age, int) and 0 <= self.age <= 150):
            raise ValueError(f"profile.age: {self.age!r} is no age; give whole years from 0 to 150")
        for field in ("hobbies", "facts"):
            value = getattr(self, field)
            if isinstance(value, str) or not all(isinstance(each, str) for each in value):
                raise ValueError(f"profile.{field}: {value!r} is no list of texts; write [one, another]")
        if not self.text:
            raise ValueError("profile: says nothing; give age, gender, profession, hobbies or facts, or leave it out")

    @property
    def text(self) -> str:
        """One sentence a fact: ``She is a 36-year-old school teacher. She loves hiking.``"""
        pronoun = _PRONOUNS.get(self.gender.lower(), "They")
        be, love = ("are", "love") if pronoun == "They" else ("is", "loves")
        sentences = [f"{pronoun} {be} called {self.name}."] if self.name else []
        years = f"{self.age}-year-old" if self.age is not None else ""
        noun = self.profession or (self.gender if years or self.gender else "")
        if noun or years:
            described = " ".join(filter(None, (years, noun or "person")))
            sentences.append(f"{pronoun} {be} {_article(described)} {described}.")
        if self.hobbies:
            sentences.append(f"{pronoun} {love} {_listed(self.hobbies)}.")
        return " ".join([*sentences, *(fact.strip() for fact in self.facts)])


def profile_text(value: object) -> str:
    """A profile as written in a file: text, or the fields of :class:`Profile`.

    Raises:
        ValueError: neither, an unknown field, or what :class:`Profile` refuses.
    """
    if isinstance(value, str) and value.strip():
        return value.strip()
    if not isinstance(value, Mapping):
        raise ValueError(f"profile: {value!r} is no profile; give text, or {{age, gender, profession, hobbies, facts}}")
    known = Profile.__dataclass_fields__
    for key in value:
        if key not in known:
            raise ValueError(f"profile.{key}: unknown field; a profile has {', '.join(known)}")
    return Profile(**value).text


def placeholders(template: str) -> set[str]:
    """The persona's texts that a template names.

    Raises:
        ValueError: it names something else, or its braces do not match.
    """
    try:
        named = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    except ValueError as error:
        raise ValueError(f"{template!r}: {error}; write a brace that is meant as such twice") from error
    strangers = sorted(named - set(PLACEHOLDERS))
    if strangers:
        raise ValueError(
            f"{template!r} names {{{strangers[0]}}}; choose from {', '.join(f'{{{p}}}' for p in PLACEHOLDERS)}"
        )
    return named


def render(template: str, texts: Mapping[str, str]) -> str:
    """A template with a persona's texts in place.

    Raises:
        ValueError: a text that it names is empty or missing.
    """
    for name in sorted(placeholders(template)):
        if not texts.get(name):
            raise ValueError(f"{template!r} names {{{name}}}, which the persona does not have; give it a {name}")
    return template.format_map(dict(texts))


def with_system(chat: Sequence[Mapping[str, str]], system: str) -> list[dict[str, str]]:
    """A chat with a system message, before what its own says."""
    messages = [dict(message) for message in chat]
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{system}\n\n{messages[0]['content']}"}, *messages[1:]]
    return [{"role": "system", "content": system}, *messages]


def _article(noun: str) -> str:
    # Of the ages, 8, 11, 18 and 80 to 89 are spoken with a vowel first.
    number = noun.partition("-")[0]
    vowel = number.startswith("8") or number in ("11", "18") if number.isdigit() else noun[0].lower() in "aeiou"
    return "an" if vowel else "a"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
