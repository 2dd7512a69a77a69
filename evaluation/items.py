"""What a judge is handed: a text, with what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from evaluation.scores import Score


@dataclass(frozen=True)
class Item:
    """One text to judge.

    Attributes:
        key: names it: a row's id, or a hash of the text.
        text: what is judged.
        prompt: what it answers, if anything: the last user's message.
        profile, personality: of the persona that was to speak, for role-play attributes.
        log_ratios: attribute -> the preference model's own log-ratio of the text, nats a token.
    """

    key: str
    text: str
    prompt: str = ""
    profile: str = ""
    personality: str = ""
    log_ratios: Mapping[str, float] = field(default_factory=dict)


class Judge(Protocol):
    """Scores items, attribute by attribute.

    Attributes:
        name, version: part of every judgment; another rubric, model or fit is another version.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def knows(self, attribute: str) -> bool:
        """Whether it can score this attribute."""
        ...

    def judge(self, items: Sequence[Item], attributes: Sequence[str]) -> dict[str, list[Score]]:
        """Per attribute one score an item, in the order of the items."""
        ...


def label_of(judge: Judge) -> str:
    """``name@version``, as rows record it."""
    return f"{judge.name}@{judge.version}"


# Judges, by their names, that are shown and never averaged with others, and why.
UNCOUNTED = {
    "log-ratio": "the generator's own models: no independent judge",
    "openai-pairwise": "against another persona's text: 0.5 is no difference",
    "own-classifier-unproven": "an adapter's own judge that does too poorly on held-out pairs, see its card",
}


def why_uncounted(label: str) -> str | None:
    """Why a judge, by its ``name@version`` or its name, is not counted; ``None``: it is."""
    return UNCOUNTED.get(label.partition("@")[0])


def is_independent(label: str) -> bool:
    """Whether a judge's scores may be averaged with others'."""
    return why_uncounted(label) is None
