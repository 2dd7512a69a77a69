"""What models are told before a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from personas import Attribute, Persona
from personas.profiles import placeholders, render
from personas.telling import DEFAULT_WORDING, traits_in_words


@dataclass(frozen=True)
class Systems:
    """What models are told before a prompt.

    Attributes:
        reference: template for the reference, see :mod:`personas.profiles`.
        attributes: template for an attribute's own models, by name.
        descriptions: of the attributes, for decoders whose reference is told of them; ``wording``: how it is told.
    """

    reference: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    descriptions: Mapping[str, str] = field(default_factory=dict)
    wording: str = DEFAULT_WORDING

    @classmethod
    def of(cls, attributes: Iterable[Attribute], reference: str | None, wording: str = DEFAULT_WORDING) -> Systems:
        given = tuple(attributes)
        return cls(
            reference,
            {each.name: each.system for each in given if each.system is not None},
            {each.name: each.description for each in given},
            wording,
        )

    def for_reference(self, persona: Persona, *, told: bool) -> str | None:
        """The reference's system message; ``None`` where it has none.

        Its own comes first, then, after an empty line, what it is told; the control is told nothing.

        Args:
            told: whether it is told what the persona's attributes are like, see :attr:`mpg.DecoderSettings.tells`.
        """
        parts = []
        if self.reference is not None and not (persona.is_control and placeholders(self.reference)):
            parts.append(render(self.reference, persona.texts))
        if told and not persona.is_control:
            parts.append(traits_in_words(persona.active, self.descriptions, self.wording))
        return "\n\n".join(parts) or None

    def for_attributes(self, persona: Persona) -> dict[str, str]:
        """The system messages of the persona's attributes that have one of their own."""
        return {
            name: render(self.attributes[name], persona.texts) for name in persona.active if name in self.attributes
        }
