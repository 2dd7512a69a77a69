"""What a model is told that a persona is like: its attributes by their descriptions, in one of a few wordings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

# A weight in words, by its share of the persona's largest weight: what alone tells weights apart that sum to 1. Four
# words, so that a lattice of steps of a quarter has one for each of 1/1, 2/3, 1/2 or 1/3, and 1/4 or less.
_DEGREES = ((0.9, "strongly"), (0.6, "clearly"), (0.3, "somewhat"), (0.0, "a little"))


@dataclass(frozen=True)
class Wording:
    """How an attribute list is put into words.

    Attributes:
        lead: the line before the attributes.
        line: of an attribute, given its description, its weight and the persona's largest.
    """

    lead: str
    line: Callable[[str, float, float], str]


def degree(weight: float, largest: float) -> str:
    """A weight in words, given the persona's largest: equal weights have equal words, larger ones never weaker."""
    return next(word for least, word in _DEGREES if weight >= least * largest)


_AS_A_PERSON = "Answer as a person would who is like this, in your own words:"
# Name -> wording: `shares` is how decoder `prompting` has always told.
WORDINGS: Mapping[str, Wording] = {
    "shares": Wording(_AS_A_PERSON, lambda description, weight, _: f"- {description} ({weight:.0%})"),
    "degrees": Wording(_AS_A_PERSON, lambda description, weight, most: f"- {degree(weight, most)}: {description}"),
    "list": Wording(_AS_A_PERSON, lambda description, *_: f"- {description}"),
}
DEFAULT_WORDING = "shares"


def traits_in_words(
    weights: Mapping[str, float], descriptions: Mapping[str, str], wording: str = DEFAULT_WORDING
) -> str:
    """A system message on what a persona is like: its attributes by their descriptions (or names).

    Args:
        weights: above 0. wording: a name of ``WORDINGS``.
    """
    said, most = WORDINGS[wording], max(weights.values())
    return "\n".join([said.lead, *(said.line(descriptions.get(n) or n, weight, most) for n, weight in weights.items())])
