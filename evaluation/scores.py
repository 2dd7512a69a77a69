"""A judge's verdict on one text: a score, or *unscored* with its reason.

An answer that cannot be scored never becomes a default number (0.5 would pull every mean towards
"undecided"); it keeps a status that says what went wrong, and means count it apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How judging one text ended; everything but ``OK`` is unscored."""

    OK = "ok"
    PARSE_ERROR = "parse_error"  # the judge answered, not in the agreed form
    REFUSED = "refused"  # the judge declined to judge
    THROTTLED = "throttled"  # the judge's server had no capacity within the retries
    FAILED = "failed"  # anything else: nothing to judge, no connection


# Of a judge behind an endpoint: it had no say, and may have one another time.
UNASKED = (Status.THROTTLED, Status.FAILED)


@dataclass(frozen=True)
class Score:
    """How far a text carries an attribute, 0 (its opposite) to 1, or why there is no score.

    Attributes:
        prompt_tokens, completion_tokens: of the call that gave the score, where a call did; a call that gives
            several scores is booked on the first of them.

    Raises:
        TypeError: a score that is not a real number.
        ValueError: a score outside [0, 1], an ``ok`` without a score, a score without an ``ok``,
            or a status that is not one of ``Status``.
    """

    score: float | None
    status: Status
    rationale: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def __post_init__(self) -> None:
        # A plain "ok" read back from Parquet is taken as Status.OK; an unknown word raises.
        object.__setattr__(self, "status", Status(self.status))
        if (self.score is not None) != (self.status is Status.OK):
            raise ValueError(f"a score and status ok go together only: {self.score!r}, {self.status.value}")
        if self.score is None:
            return
        if isinstance(self.score, bool) or not isinstance(self.score, (int, float)):
            raise TypeError(f"a score is a number, not {type(self.score).__name__}")
        if not 0.0 <= self.score <= 1.0:  # false for nan as well
            raise ValueError(f"a score lies in [0, 1], not {self.score!r}")
