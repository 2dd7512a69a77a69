"""The licence of a data set: of the licences of what it was made with, the strictest, or a line for each obstacle.

The rules, in the order in which they are applied (docs/publishing.md explains them; they are no legal advice):

1. a part whose licence nobody knows stops; so do one that forbids to pass on what is made from it, and answers that
   their operator forbids to train models with;
2. a licence with terms of its own (of a model, say) goes with those that ask for a notice or a name, and with no other;
3. share-alike licences go with their own later version, with those that ask for a notice or a name, and, where they
   forbid to sell, with those that do only that;
4. else the strictest is the data set's: nothing < notice < attribution < non-commercial.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from personas.text import one_line
from pipeline.job.licence_terms import (
    KINDS,
    LATER,
    NO_TRAINING,
    NON_COMMERCIAL_SHARE_ALIKE,
    OTHER,
    UNKNOWN,
    UNRESTRICTED,
    Kind,
    checked,
    identifier,
    order,
    stated_problem,
)
from pipeline.job.model import Job

# In run.json: the parts of a data set, and the licence that somebody stated for it after the run.
PARTS, STATED = "licences", "stated_licence"

_STATE = "state the data set's licence: card.license in the job, or mpg publish --license ID"


@dataclass(frozen=True)
class Part:
    """What a data set was made with, and its licence.

    Attributes:
        what: its place in the job: ``model``, ``adapter E``, ``reference of E``, ``prompts``, ``judge NAME@VERSION``.
        name: id with revision, or the file's or folder's name.
        license: as its source writes it; ``None``: nobody says, and ``said_by`` is why.
        license_name, license_link: of license ``other``.
        said_by: where that stands, in words.
        remedy: what would make it known, in the words of a job file; of those that are not.
    """

    what: str
    name: str
    license: str | None
    license_name: str | None = None
    license_link: str | None = None
    said_by: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, written: Mapping[str, Any]) -> Part:
        """From ``run.json``. Raises TypeError: it is no part."""
        known = {each.name for each in fields(cls)}
        found = cls(**{name: value for name, value in written.items() if name in known})
        if not all(value is None or isinstance(value, str) for value in asdict(found).values()):
            raise TypeError(f"{written} is no part of a data set")
        return found

    @property
    def identifier(self) -> str | None:
        """The Hub's identifier of its licence; ``None``: unknown, or none of the Hub's."""
        found = None if self.license is None else identifier(self.license)
        return None if found is not None and KINDS[found] is Kind.NOT_SAID else found

    @property
    def shown(self) -> str:
        """Its licence in a word or two."""
        if self.license is None:
            return UNKNOWN
        return f"{self.license} ({self.license_name})" if self.license_name else self.license


@dataclass(frozen=True)
class Resolved:
    """A data set's licence.

    Attributes:
        license: an identifier of the Hub.
        license_name, license_link: of license ``other``.
        parts: what the data set was made with.
        stated: whether somebody stated it; else it follows from the parts.
    """

    license: str
    license_name: str | None
    license_link: str | None
    parts: tuple[Part, ...]
    stated: bool = False

    @property
    def front(self) -> dict[str, str]:
        """Its fields in a card's front matter."""
        named = {"license": self.license, "license_name": self.license_name, "license_link": self.license_link}
        return {name: value for name, value in named.items() if value is not None}


class LicenceError(ValueError):
    """The licence of a data set can't be told from its parts, or is stated in a way that can't be.

    ``lines`` has one line for each obstacle, with the part, its licence and the remedy. ``str`` of the error is one
    line: the first of them, and how many more there are.
    """

    def __init__(self, lines: Sequence[str], parts: Sequence[Part] = ()) -> None:
        self.lines, self.parts = tuple(map(one_line, lines)), tuple(parts)
        super().__init__(self.lines, self.parts)  # as args, so that the error pickles

    def __str__(self) -> str:
        more = len(self.lines) - 1
        return self.lines[0] + (f" (+{more} more)" if more else "")


def recorded(run: Mapping[str, Any]) -> list[Part] | None:
    """The parts, judges aside, that ``run.json`` has; ``None``: it is older than that, or has been damaged."""
    try:
        return [Part.of(each) for each in run[PARTS]]
    except (KeyError, TypeError):
        return None


def resolved(parts: Iterable[Part], run: Mapping[str, Any], job: Job) -> Resolved:
    """The licence as it was stated after the run, else as the job states it, else as the parts have it.

    Raises:
        LicenceError: see :func:`state` and :func:`resolve`.
    """
    after, card = run.get(STATED), job.card
    if isinstance(after, Mapping):
        return state(str(after.get("license")), after.get("license_name"), after.get("license_link"), parts)
    if card.license is not None:
        return state(card.license, card.license_name, card.license_link, parts, field="card.license")
    return resolve(parts)


def state(
    license: str,
    name: str | None = None,
    link: str | None = None,
    parts: Iterable[Part] = (),
    *,
    field: str = "license",
) -> Resolved:
    """A licence that somebody states.

    Args:
        name, link: of license ``other``.
        field: what it is called where it was stated; names of the others follow from it.

    Raises:
        LicenceError: it is no identifier of the Hub, or ``other`` without name and link.
    """
    problem = stated_problem(license, name, link)
    if problem is not None:
        name_of_it = problem[0].replace("_", "-") if field.startswith("--") else problem[0]
        raise LicenceError([f"{field.removesuffix('license')}{name_of_it}: {problem[1]}"], tuple(parts))
    return Resolved(checked(license), name, link, tuple(parts), stated=True)


def resolve(parts: Iterable[Part]) -> Resolved:
    """The licence of what was made with all of these; it does not depend on their order.

    Raises:
        LicenceError: it can't be told, see the rules above.
    """
    parts = tuple(parts)
    lines = list(_obstacles(parts))
    if lines:
        raise LicenceError(lines, parts)
    mine = [each for each in parts if each.license != UNRESTRICTED]
    if not mine:
        raise LicenceError([f"license: no part of the data set has one; {_STATE}"], parts)
    names = {each.identifier or "" for each in mine}
    own, share = _of_kind(mine, Kind.OWN_TERMS), _of_kind(mine, Kind.SHARE_ALIKE)
    strict = own + share + _of_kind(mine, Kind.NON_COMMERCIAL)
    if own and (len({_terms(each) for each in own}) > 1 or len(strict) > len(own)):
        raise _conflict(strict, parts)
    if own and names.isdisjoint({OTHER}):
        return Resolved(_terms(own[0])[0], None, None, parts)
    if own:  # of one name; who says more of it is heard
        said = max(own, key=lambda part: (part.license_link or "", part.license_name or ""))
        return Resolved(OTHER, said.license_name, said.license_link, parts)
    shared = {LATER.get(name, name) for name in names if KINDS[name] is Kind.SHARE_ALIKE}
    if len(shared) > 1 or (shared and len(strict) > len(share) and not shared <= NON_COMMERCIAL_SHARE_ALIKE):
        raise _conflict(strict, parts)
    if shared:
        # One alone stays what it is; several versions become the latest.
        same = {name for name in names if KINDS[name] is Kind.SHARE_ALIKE}
        return Resolved(min(same if len(same) == 1 else shared), None, None, parts)
    return Resolved(max(names, key=order), None, None, parts)


def _obstacles(parts: Sequence[Part]) -> Iterator[str]:
    """What stops by itself, whatever the other parts are: a line each."""
    for part in parts:
        where = f"{part.what} ({part.name})" if part.name else part.what
        if part.license == UNRESTRICTED:
            continue
        if part.license == NO_TRAINING:
            why = "its operator's terms forbid to train models with its answers, which the judgments are"
            yield f"{where}: {NO_TRAINING}: {why}; judge with another, or {_STATE}"
            continue
        name = part.identifier
        if name is None or (name == OTHER and not part.license_name):
            said = part.said_by or "nobody says"
            if part.license is not None:
                said = f"{part.license!r} does not say what it asks ({said})"
            remedy = f"{part.remedy}, or {_STATE}" if part.remedy else _STATE
            yield f"{where}: licence unknown: {said}; {remedy}"
        elif KINDS[name] is Kind.NO_DERIVATIVES:
            why = "forbids to pass on what is made from it"
            yield f"{where}: {name} {why} ({part.said_by}); take it out, or {_STATE}, with its owner's leave"


def _of_kind(parts: Iterable[Part], kind: Kind) -> list[Part]:
    return [each for each in parts if KINDS[each.identifier or UNKNOWN] is kind]


def _terms(part: Part) -> tuple[str, str]:
    """What tells licences with terms of their own apart."""
    assert part.identifier is not None
    return part.identifier, (part.license_name or "").lower() if part.identifier == OTHER else ""


def _conflict(strict: Sequence[Part], parts: Sequence[Part]) -> LicenceError:
    """One line with all that can't be had together, one part for each licence."""
    first: dict[str, Part] = {}
    for each in strict:
        first.setdefault(each.shown.lower(), each)
    said = ", ".join(f"{part.shown} of {part.what}" for _, part in sorted(first.items()))
    return LicenceError([f"license: no licence keeps the terms of all: {said}; take one out, or {_STATE}"], parts)
