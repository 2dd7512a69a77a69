"""One stage of a corpus as a task: it runs `mpg`, and fails or is tried again by the command's exit status."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from airflow.sdk import Asset, BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from mpg_commands import TRY_AGAIN, Command, words


def interval_of(context: Mapping[str, Any]) -> str:
    """The start of a run's data interval, ISO 8601; the parameter ``interval`` goes before it.

    Raises:
        AirflowFailException: a run without a logical date has none, and must be told.
    """
    given = context["params"]["interval"]
    if given is not None:
        return str(given)
    start: datetime | None = context.get("data_interval_start")
    if start is None:
        raise AirflowFailException("interval: none, for the run has no logical date; give it one, or the parameter")
    return start.isoformat()


class Stage(BaseOperator):
    """A stage; what its last line said is its result, for the next.

    Args:
        stage: of :data:`mpg_commands.STAGES`.
        needs: a parameter without which it is skipped.
    """

    def __init__(self, *, stage: str, needs: str | None = None, **options: Any) -> None:
        super().__init__(task_id="judge" if stage == "finish" else stage, **options)
        self.stage, self.needs = stage, needs
        self._command: Command | None = None

    def execute(self, context: Mapping[str, Any]) -> dict[str, Any]:
        """Run it.

        Raises:
            AirflowException: it may go better the next time (``TRY_AGAIN``, or its process was killed).
            AirflowFailException: no try would: its line says what a person has to mend.
            AirflowSkipException: it is not wanted.
        """
        params = context["params"]
        if self.needs is not None and not params[self.needs]:
            raise AirflowSkipException(f"{self.needs}: not given")
        planned = None if self.stage == "plan" else context["ti"].xcom_pull(task_ids="plan")
        output = None if planned is None else planned["output"]
        self._command = Command(words(self.stage, params, interval_of(context), output), self.log.info)
        try:
            status = self._command.run()
        except OSError as error:
            why = f"MPG_COMMAND or MPG_FOLDER: {error.strerror or error}; see docs/deploy.md"
            raise AirflowFailException(why) from None
        if status < 0 or status in TRY_AGAIN:
            raise AirflowException(self._command.why(status))
        if status != 0:
            raise AirflowFailException(self._command.why(status))
        line = self._command.line
        if "output" not in line:
            raise AirflowFailException(f"mpg {self.stage}: said nothing for the next stage; is it this version?")
        for outlet in self.outlets:
            if isinstance(outlet, Asset):
                context["outlet_events"][outlet].extra = {
                    "output": line["output"],
                    "interval": line["interval"],
                    "repo_id": params["repo_id"],
                }
        return line

    def on_kill(self) -> None:
        """Cleared, marked, or out of time: the command finishes its rows and ends."""
        if self._command is not None:
            self._command.stop()
