"""What models are told before a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from personas import Attribute, Persona
from personas.profiles import placeholders, render

# How decoder `prompting` tells the reference what to be like.
_PROMPTING = "Answer as a person would who is like this, in your own words:\n"


@dataclass(frozen=True)
class Systems:
    """What models are told before a prompt.

    Attributes:
        reference: template for the reference, see :mod:`personas.profiles`.
        attributes: template for an attribute's own models, by name.
        descriptions: of the attributes, for decoders whose reference is told of them.
    """

    reference: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, attributes: Iterable[Attribute], reference: str | None) -> Systems:
        given = tuple(attributes)
        return cls(
            reference,
            {each.name: each.system for each in given if each.system is not None},
            {each.name: each.description for each in given},
        )

    def for_reference(self, persona: Persona, *, told: bool) -> str | None:
        """The reference's system message; ``None`` where it has none.

        Args:
            told: whether it is told what the persona's attributes are like, see :class:`mpg.settings.DecoderFacts`.
        """
        parts = []
        if self.reference is not None and not (persona.is_control and placeholders(self.reference)):
            parts.append(render(self.reference, persona.texts))
        if told and not persona.is_control:
            parts.append(traits_in_words(persona.active, self.descriptions))
        return "\n\n".join(parts) or None

    def for_attributes(self, persona: Persona) -> dict[str, str]:
        """The system messages of the persona's attributes that have one of their own."""
        return {
            name: render(self.attributes[name], persona.texts) for name in persona.active if name in self.attributes
        }


def traits_in_words(weights: Mapping[str, float], descriptions: Mapping[str, str]) -> str:
    """A system message on what a persona is like: its attributes by their descriptions (or names), with weights."""
    return _PROMPTING + "\n".join(f"- {descriptions.get(n) or n} ({weight:.0%})" for n, weight in weights.items())
