"""The interval that a scheduled run is of: its start, by which next week's data set is another than this week's.

Its one form is a date (``2026-11-23``) or, of what does not start at midnight in UTC, a date and a time in UTC as a
folder, a branch and a tag may be called (``2026-11-23T063000Z``). However it is written, an instant has one form, so
that it gives the same rows; a date is that day's midnight in UTC, and so is a time of day without a zone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time
from typing import Annotated, Any

from pydantic import AfterValidator

from personas.words import show

PLACE = "{interval}"  # where it stands in the places and names of a job, and of a command line

# Fields of a job file in which it may stand: section and name; the empty section is the job itself.
_FIELDS = (
    ("", "output"),
    ("prompts", "file"),
    ("prompts", "dataset"),
    ("prompts", "config"),
    ("prompts", "split"),
    ("prompts", "revision"),
    ("card", "pretty_name"),
)


def interval_of(text: str) -> str:
    """The one form of an interval's start.

    Args:
        text: ISO 8601: a date, or a date and a time, in UTC where no zone is given.

    Raises:
        ValueError: it is none; with value and remedy.
    """
    written = text.strip()
    try:
        at = datetime.combine(date.fromisoformat(written), time(), UTC)
    except ValueError:
        try:
            at = datetime.fromisoformat(written)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        except (ValueError, OverflowError):
            remedy = "give its start, e.g. 2026-11-23 or 2026-11-23T06:00+01:00"
            raise ValueError(f"{show(text)} is no interval's start as ISO 8601; {remedy}") from None
    if at.timetz() == time(tzinfo=UTC):
        return at.date().isoformat()
    fraction = f".{at.microsecond:06d}" if at.microsecond else ""
    return f"{at.date().isoformat()}T{at:%H%M%S}{fraction}Z"


def day_of(interval: str) -> str:
    """The day on which it starts, in UTC: YYYY-MM-DD."""
    return interval[:10]


def seed_of(seed: int, interval: str | None) -> int:
    """The seed of a run, in [0, 2^63), by which rows get their ids and seeds; without an interval the job's own."""
    if interval is None:
        return seed
    digest = hashlib.sha256(f"{seed}:{interval}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def filled(text: str, interval: str) -> str:
    """A place or name with the interval where it stands."""
    return text.replace(PLACE, interval)


def fields_with_it(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Fields of a job, as it was read, in which the interval stands: the field, what holds it, its name there."""
    for section, name in _FIELDS:
        holder = data.get(section) if section else data
        if isinstance(holder, dict) and isinstance(holder.get(name), str) and PLACE in holder[name]:
            yield f"{section}.{name}" if section else name, holder, name


def before(names: Iterable[str], interval: str | None) -> str | None:
    """Of those names that are an interval's one form the newest before an interval; ``None``: the newest of all.

    Returns:
        ``None`` where there is none.
    """
    found = [name for name in names if is_interval(name)]
    return max((each for each in found if interval is None or _at(each) < _at(interval)), key=_at, default=None)


def is_interval(name: str) -> bool:
    """Whether a name is an interval's one form."""
    try:
        return interval_of(name) == name
    except ValueError:
        return False


def _at(interval: str) -> str:
    """What sorts as the instant does."""
    return interval.removesuffix("Z")


Interval = Annotated[str, AfterValidator(interval_of)]
