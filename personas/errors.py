"""What the readers of this package raise."""

from __future__ import annotations


class SourceError(ValueError):
    """Something that can't be read or used. ``source`` says where it is, ``problem`` what is wrong."""

    def __init__(self, source: str, problem: str) -> None:
        super().__init__(source, problem)  # both, so that the error pickles
        self.source = source
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.source}: {self.problem}"


class TableError(SourceError):
    """A table that can't be read."""


def why_unreadable(error: OSError) -> str:
    """An operating system's refusal in a user's words."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return (error.strerror or "can't be read").lower()
