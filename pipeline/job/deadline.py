"""When a run is to stop: a duration, or a time."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator

from personas.words import show

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds_until(deadline: str, now: datetime) -> float:
    """Seconds from ``now`` to a deadline: a duration (90m, 6h, 1d12h) or a time (2026-11-26T07:00, local).

    Raises:
        ValueError: neither; with value and remedy.
    """
    text = deadline.strip().lower()
    if re.fullmatch(r"(\d+(\.\d+)?[smhd])+", text):
        return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)([smhd])", text))
    try:
        at = datetime.fromisoformat(deadline.strip())
    except ValueError:
        example = "give a duration like 6h or 1h30m, or a time like 2026-11-26T07:00"
        raise ValueError(f"{show(deadline)} is no deadline; {example}") from None
    return (at.astimezone() - now.astimezone()).total_seconds()


def is_past(deadline: str, now: datetime) -> bool:
    """Whether it is a time that has passed. Raises ValueError as :func:`seconds_until` does."""
    return seconds_until(deadline, now) < 0


def _deadline(value: str) -> str:
    seconds_until(value, datetime.now())
    return value


Deadline = Annotated[str, AfterValidator(_deadline)]
