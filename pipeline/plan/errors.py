"""Why a run can't start or had to stop."""

from __future__ import annotations

from pipeline.exit_status import ExitStatus


class RunError(RuntimeError):
    """A run that can't start or had to stop; one line that says what and how to go on.

    Attributes:
        status: that the command ends with.
    """

    def __init__(self, message: str, status: ExitStatus = ExitStatus.TRY_AGAIN) -> None:
        super().__init__(message)
        self.status = status
