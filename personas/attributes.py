"""Attributes and personas: what a text may show, and how much of each it should.

An *attribute* is one direction of style or character, with a preference model of its own. A
*persona* is a vector of weights over attributes that sum to 1; the empty vector is the control,
the reference model alone. The eight poles of the MBTI are declared here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from personas.profiles import ROLE_PLAY_SYSTEM

# How far from 1 a persona's weights may sum: room for decimals typed by hand, none for a mistake.
WEIGHT_TOLERANCE = 1e-6
# Name of the persona without attributes.
REFERENCE = "reference"


class Weights(Mapping[str, float]):
    """An immutable mapping attribute -> weight that keeps its order, hashes and pickles.

    Equal to any mapping with the same items, whatever their order.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, float] | None = None) -> None:
        self._items = tuple((str(name), float(weight)) for name, weight in (items or {}).items())

    def __getitem__(self, name: str) -> float:
        for key, weight in self._items:
            if key == name:
                return weight
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __hash__(self) -> int:
        return hash(frozenset(self._items))

    def __repr__(self) -> str:
        return f"Weights({dict(self._items)!r})"


@dataclass(frozen=True)
class Attribute:
    """One direction of style or character.

    Attributes:
        name: short and unique; names the adapter too.
        description: one line for judges, prompts and reports.
        opposite: name of the attribute at the other end of the scale, or what it is like, if there is one.
        system: what its preference model is told before the prompt; ``{profile}`` and ``{personality}`` stand
            for the persona's texts. ``None``: it reads the same prompt as the reference.
    """

    name: str
    description: str
    opposite: str | None = None
    system: str | None = None


@dataclass(frozen=True)
class Persona:
    """A readable name and the weight of each attribute; no weights at all is the control.

    Attributes:
        strengths: exponent of an attribute's density ratio, for this persona; one that is not named
            has the decoder's.
        profile, personality: who the person is and what they are like, in words, for the attributes whose
            models read it.

    Raises:
        ValueError: a weight is negative or not finite, they do not sum to 1 within 1e-6, or a strength
            is not above 0 or of an attribute without a weight.
    """

    name: str
    weights: Mapping[str, float]
    strengths: Mapping[str, float] = field(default_factory=Weights)
    profile: str = ""
    personality: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", Weights(self.weights))
        object.__setattr__(self, "strengths", Weights(self.strengths))
        for name, strength in self.strengths.items():
            if name not in self.weights:
                raise ValueError(f"persona {self.name!r}: strength of {name}, which has no weight; remove it")
            if not (math.isfinite(strength) and strength > 0):
                raise ValueError(f"persona {self.name!r}: the strength of {name} is {strength!r}; give one above 0")
        if not self.weights:
            return
        for name, weight in self.weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"persona {self.name!r}: the weight of {name} is {weight!r}; give 0 or more")
        total = math.fsum(self.weights.values())
        if abs(total - 1) > WEIGHT_TOLERANCE:
            raise ValueError(f"persona {self.name!r}: the weights sum to {total:.10g}, not to 1")

    @property
    def is_control(self) -> bool:
        """Whether this is the reference model alone."""
        return not self.weights

    @property
    def texts(self) -> dict[str, str]:
        """What templates may name, see :mod:`personas.profiles`."""
        return {"profile": self.profile, "personality": self.personality}

    @property
    def active(self) -> dict[str, float]:
        """The weights above zero: all that the target's law knows of a persona."""
        return {name: weight for name, weight in self.weights.items() if weight > 0}


def weights_name(weights: Mapping[str, float], digits: int = 2) -> str:
    """``E0.50+N0.50``: readable, zero weights left out; ``reference`` where there are none."""
    parts = [f"{name}{weight:.{digits}f}" for name, weight in weights.items() if weight != 0]
    return "+".join(parts) if parts else REFERENCE


MBTI: dict[str, Attribute] = {
    attribute.name: attribute
    for attribute in (
        Attribute("E", "Extraversion: outgoing and talkative, draws energy from people and activity.", "I"),
        Attribute("I", "Introversion: reserved and reflective, draws energy from quiet and time alone.", "E"),
        Attribute("S", "Sensing: practical and concrete, trusts facts, details and experience.", "N"),
        Attribute("N", "Intuition: imaginative and abstract, looks for patterns, meanings and possibilities.", "S"),
        Attribute("T", "Thinking: decides by logic and evidence, values fairness and being straightforward.", "F"),
        Attribute("F", "Feeling: decides by values and empathy, cares for people and for harmony.", "T"),
        Attribute("J", "Judging: organised and decisive, likes plans, order and settled matters.", "P"),
        Attribute("P", "Perceiving: spontaneous and flexible, likes to improvise and keep options open.", "J"),
    )
}
ROLE_PLAY: dict[str, Attribute] = {
    attribute.name: attribute
    for attribute in (
        Attribute("profile", "Speaks from the persona's profile: its facts, work and hobbies.", None, ROLE_PLAY_SYSTEM),
        Attribute("personality", "Speaks in the persona's manner.", None, ROLE_PLAY_SYSTEM),
    )
}
# Attributes that need no more than their name.
KNOWN = MBTI | ROLE_PLAY
# The four scales, in the order in which a type is written.
MBTI_SCALES = ("EI", "SN", "TF", "JP")


def mbti_type(code: str) -> Persona:
    """The persona of an MBTI type such as ``ENTJ``: its four poles with equal weights.

    Raises:
        ValueError: ``code`` is not one letter of each scale E/I, S/N, T/F, J/P, in this order.
    """
    if len(code) != len(MBTI_SCALES) or any(pole not in scale for pole, scale in zip(code, MBTI_SCALES, strict=True)):
        raise ValueError(f"{code!r} is not an MBTI type; give one letter each of E/I, S/N, T/F, J/P, e.g. ENTJ")
    return Persona(code, {pole: 1 / len(code) for pole in code})
