"""What a judge is handed: a text, with what is known of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from evaluation.scores import Score
from personas.text import is_storable


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

    @property
    def content_hash(self) -> str:
        """Of what is judged, whatever it is called: 32 hex digits; another text, prompt or person is another one."""
        content = json.dumps([self.text, self.prompt, self.profile, self.personality])
        return hashlib.sha256(content.encode()).hexdigest()[:32]


def unsendable(item: Item) -> str | None:
    """Why a judge can't be told about an item; ``None``: it can."""
    for name in ("text", "prompt", "profile", "personality"):
        if not is_storable(getattr(item, name)):
            return f"the {name} holds half a surrogate pair, which can't be sent"
    return None


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


# Names of the classifier that ships, and of those beside adapters: taken for a judge, or not.
SHIPPED, OWN, OWN_UNPROVEN = "classifier", "own-classifier", "own-classifier-unproven"
# The other one that ships, on a sentence encoder alone.
ENCODER = "encoder"
# Judges, by their names, that are shown and never averaged with others, and why.
UNCOUNTED = {
    "log-ratio": "the generator's own models: no independent judge",
    "openai-pairwise": "against another persona's text: 0.5 is no difference",
    OWN_UNPROVEN: "an adapter's own judge that does too poorly on held-out pairs, see its card",
}


def why_uncounted(label: str) -> str | None:
    """Why a judge, by its ``name@version`` or its name, is not counted; ``None``: it is."""
    return UNCOUNTED.get(label.partition("@")[0])


def is_independent(label: str) -> bool:
    """Whether a judge's scores may be averaged with others'."""
    return why_uncounted(label) is None


def same_judge(label: str, other: str) -> bool:
    """Whether two labels are of one judge, by the same or another version.

    Other models behind endpoints are other judges, and so are those beside the adapters of other attributes.
    """
    return _which(label) == _which(other)


def _which(label: str) -> tuple[str, str]:
    """What a judge is told from others by."""
    name, _, version = label.partition("@")
    if name.startswith("openai"):
        return name, version.rpartition("+")[0]
    own = own_attribute(label)
    return (name, "") if own is None else (OWN, own)


def own_attribute(label: str) -> str | None:
    """The attribute of a judge that lies beside its adapter, by its label; ``None``: it is no such judge."""
    name, _, version = label.partition("@")
    return version.partition("+")[0] if name in (OWN, OWN_UNPROVEN) else None


def kind_of(label: str) -> str:
    """The kind of a judge, as job files name it, by its ``name@version``."""
    name = label.partition("@")[0]
    if name in (OWN, OWN_UNPROVEN):
        return SHIPPED
    return "openai" if name.startswith("openai") else name


def of_kinds(labels: Iterable[str], kinds: Collection[str] | None, *, but: bool = False) -> set[str]:
    """Those of some judges that are of some kinds, or all others; ``None``: all of them."""
    return {label for label in labels if kinds is None or (kind_of(label) in kinds) is not but}


def heard(labels: Collection[str]) -> Callable[[str, str], bool]:
    """Which of some judges' scores of an attribute count: (label, attribute) -> whether it does.

    The judges have to be independent. Of an attribute whose adapter has a judge of its own that counts, those that
    ship are not heard: what they scored before stays in a data set, and they know another adapter's pole by the name.
    """
    own = {own_attribute(label) for label in labels if is_independent(label)}

    def counts(label: str, attribute: str) -> bool:
        shipped = label.partition("@")[0] in (SHIPPED, ENCODER)
        return label in labels and is_independent(label) and not (shipped and attribute in own)

    return counts
