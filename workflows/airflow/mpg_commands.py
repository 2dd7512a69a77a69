"""What a stage of a corpus runs: its command line, how it is started and ended, and what its last line says.

Knows nothing of the scheduler that asks. Where the commands are is said by the environment of the process that runs
them: ``MPG_COMMAND`` (``mpg``; may have words of its own, as ``docker run ... mpg``) and ``MPG_FOLDER``, the folder
that a job's relative place starts at (where the process stands).
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

# In their order. `finish` stands in judge's place where rows were decoded, and judged by embedded judges, on Dataflow.
STAGES = ("plan", "decode", "judge", "finish", "report", "gate", "publish")
# A date, or a date and a time, in UTC where no zone is given: what `--interval` takes, but for rare forms of ISO 8601.
INTERVAL = r"^\d{4}-\d\d-\d\d([T ]\d\d(:?\d\d(:?\d\d([.]\d{3,6})?)?)?(Z|[+-]\d\d:?\d\d)?)?$"
TRY_AGAIN = (75, 130)  # pipeline/exit_status.py: TRY_AGAIN, INTERRUPTED; all others ask for a person
REFUSED = 6  # of the gate
_OF_THE_SCHEDULER = ("AIRFLOW", "_AIRFLOW")  # its connections and keys, which are none of the commands' business


def words(stage: str, params: Mapping[str, Any], interval: str, output: str | None = None) -> list[str]:
    """The command line of a stage, without the command itself.

    Args:
        stage: of ``STAGES``.
        params: of the run, see ``mpg_corpus.py``.
        interval: the start of the data interval, ISO 8601.
        output: the data set's folder or URL, which ``plan`` has said; stages after decoding and judging take it.

    Raises:
        ValueError: no such stage.
    """
    changes = [word for each in params["set"] for word in ("--set", each)]
    of_job = [params["job"], "--interval", interval, *changes]
    of_data = [str(output), "--interval", interval]
    if stage == "plan":
        found = ["plan", *of_job, "--no-pilot"]
    elif stage == "decode":
        found = ["run", *of_job, "--only", "decode"]
    elif stage == "judge":
        found = ["run", *of_job, "--only", "judge"]
    elif stage == "finish":
        found = ["finish", *of_data]
    elif stage == "report":
        found = ["report", *of_data]
    elif stage == "gate":
        against = params["against"] or (params["repo_id"] and f"{params['repo_id']}@previous")
        found = ["gate", *of_data, *(("--against", against) if against else ())]  # none: absolute thresholds alone
    elif stage == "publish":
        wanted = [("--private", params["private"]), ("--revision", params["branch"])]
        more = [word for name, value in wanted if value for word in ((name,) if value is True else (name, value))]
        found = ["publish", *of_data, "--repo-id", params["repo_id"], *more]
    else:
        raise ValueError(f"{stage}: no such stage; choose from {', '.join(STAGES)}")
    if stage in ("decode", "judge") and params["budget"] is not None:
        found += ["--budget", str(params["budget"])]
    return [*found, "--json"]


def job_name(line: Mapping[str, Any]) -> str:
    """``mpg-<job>-<interval>-<hash>`` of what ``plan`` said: the same for every try, another for other work.

    Fit for Dataflow: lower case, digits and dashes, a letter first, at most 63 characters.
    """
    text = "".join(char if char.isalnum() and char.isascii() else "-" for char in str(line["job"]).lower())
    interval = "".join(char if char.isalnum() else "-" for char in str(line["interval"]).lower())
    end = f"-{interval}-{line['hash'][:8]}".lower()
    return f"mpg-{text}"[: 63 - len(end)].rstrip("-") + end


def launch_body(
    line: Mapping[str, Any], params: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """What Dataflow's ``flexTemplates.launch`` is asked for.

    Args:
        line: of ``plan``.
        params: of the run.
        settings: of the deployment: ``template`` (its file in a bucket), and ``parameters`` of the template and
            ``environment`` of its workers that are the same for every run.

    Raises:
        ValueError: a change that the template's one parameter for all of them can't carry.
    """
    for each in params["set"]:
        if ";" in each:
            raise ValueError(f"set: {each}: a semicolon parts changes in the template; put it into the job file")
    own = {"job": params["job"], "output": line["output"], "interval": line["interval"]}
    changes = {"set": ";".join(params["set"])} if params["set"] else {}
    changes |= {} if params["budget"] is None else {"budget": str(params["budget"])}
    return {
        "launchParameter": {
            "jobName": job_name(line),
            "containerSpecGcsPath": settings["template"],
            "parameters": {**settings.get("parameters", {}), **own, **changes},
            "environment": dict(settings.get("environment", {})),
        }
    }


@dataclass
class Command:
    """One stage's process.

    Attributes:
        words: as :func:`words` gives them.
        log: called with each line that it prints, on either stream.
        line: what its last line said, as a dict; empty where it said nothing.
    """

    words: list[str]
    log: Callable[[str], object]
    line: dict[str, Any] = field(default_factory=dict)
    _process: subprocess.Popen[str] | None = None

    def run(self) -> int:
        """Run it to its end; returns its exit status (negative: the signal that ended it). Raises OSError."""
        command = [*shlex.split(os.environ.get("MPG_COMMAND", "mpg")), *self.words]
        self.log(f"$ {shlex.join(command)}")
        # In a session of its own: whoever kills the scheduler's process leaves it to finish its rows and end cleanly.
        with subprocess.Popen(
            command,
            cwd=os.environ.get("MPG_FOLDER") or None,
            env={name: value for name, value in os.environ.items() if not name.startswith(_OF_THE_SCHEDULER)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as self._process:
            assert self._process.stdout is not None
            for text in self._process.stdout:
                self.log(text.rstrip())
                self._keep(text)
            return self._process.wait()

    def _keep(self, text: str) -> None:
        if text.startswith("{"):
            with suppress(ValueError):
                said = json.loads(text)
                if "stage" in said and "status" in said:
                    self.line = said

    def stop(self) -> None:
        """As one Ctrl-C: rows in flight are finished and written."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def why(self, status: int) -> str:
        """Why it ended so, in a line."""
        how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        problem = self.line.get("problem")
        return f"mpg {self.words[0]}: {how}" + (f": {problem}" if problem else "; its log says why")
