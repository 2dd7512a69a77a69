"""Why a run can't start or had to stop."""

from __future__ import annotations


class RunError(RuntimeError):
    """A run that can't start or had to stop; one line that says what and how to go on."""
