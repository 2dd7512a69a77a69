"""What the commands of `mpg` share: how they refuse bad input, and what they leave to be printed."""

from __future__ import annotations

from dataclasses import dataclass


class InputError(ValueError):
    """Bad input, found before anything was started: a line for each problem, with field, value and remedy."""


@dataclass(frozen=True)
class Outcome:
    """What a command left.

    Attributes:
        report: for the terminal; may be empty.
        problem: why it did not do all that it was asked for, in a line; ``None``: it did.
        status: exit status where there is a problem.
    """

    report: str
    problem: str | None = None
    status: int = 1
