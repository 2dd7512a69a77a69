"""The DAG in an Airflow of its own: a tiny job to a published revision, a gate that says no, tries that double nothing.

Airflow is installed once, into the module's temporary folder; ``MPG_AIRFLOW`` names a command that is there already.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hub_commit_server import serving_commits
from tests.hub_commits import CommitHub
from tests.hub_server import running
from tests.tiny_job import checksums, make_job, rows

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
AIRFLOW = "apache-airflow==3.3.2"
LONGEST_S = 1200  # of one Airflow command, however busy the machine is
# `mpg`, whose process is lost as soon as a stage in LOSE is done, once each: a killed worker, as Airflow sees it.
MPG = """\
#!/usr/bin/env bash
"{python}" -m pipeline.cli "$@"
status=$?
for stage in $LOSE; do
  if [[ " $* " == *" $stage "* && ! -e "{folder}/lost-$stage" ]]; then
    touch "{folder}/lost-$stage"
    kill -9 $$
  fi
done
exit $status
"""


class Run(NamedTuple):
    """Exit status, log, and the state of each task."""

    status: int
    log: str
    states: dict[str, str]


@dataclass
class Desk:
    """A deployment: Airflow's home, a job, a Hub, and what was alerted."""

    airflow: str
    folder: Path
    hub: CommitHub
    alerts: list[dict[str, Any]]
    environment: dict[str, str]

    def __call__(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """An ``airflow`` command."""
        command = [self.airflow, *words]
        return subprocess.run(
            command,
            env=self.environment | more,
            text=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=LONGEST_S,
        )

    def run(self, monday: str, *words: str, conf: Mapping[str, Any] | None = None, **more: str) -> Run:
        """The DAG's run that is due at a date."""
        done = self("dags", "test", "mpg_corpus", monday, "-c", json.dumps(conf or {}), *words, **more)
        found = self("tasks", "states-for-dag-run", "mpg_corpus", f"{monday}T00:00:00+00:00", "-o", "json")
        states = {each["task_id"]: each["state"] for each in json.loads(found.stdout[found.stdout.index("[{") :])}
        return Run(done.returncode, done.stdout + done.stderr, states)


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> str:
    if "MPG_AIRFLOW" in os.environ:
        return os.environ["MPG_AIRFLOW"]
    folder = tmp_path_factory.mktemp("airflow") / "venv"
    venv.create(folder, with_pip=True)
    subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", AIRFLOW], check=True, timeout=500)
    return str(folder / "bin" / "airflow")


@pytest.fixture(scope="module")
def desk(airflow: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder, hub, alerts = tmp_path_factory.mktemp("desk"), CommitHub(), []
    changes = {"judges": [{"kind": "classifier"}], "card": {"license": "apache-2.0"}, "threads": 1}
    make_job(folder, ("hello you", "what now?"), output=str(folder / "out" / "{interval}"), **changes)
    (folder / "mpg").write_text(MPG.format(python=sys.executable, folder=folder))
    (folder / "mpg").chmod(0o755)

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            alerts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ExitStack() as served:
        hook = served.enter_context(running(ThreadingHTTPServer(("127.0.0.1", 0), Hook)))
        own = {
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "workflows" / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            "AIRFLOW_CONN_MPG_ALERTS": json.dumps({"conn_type": "http", "password": hook}),
            "HF_ENDPOINT": served.enter_context(serving_commits(hub)),
            "HF_TOKEN": hub.token,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "MPG_COMMAND": str(folder / "mpg"),
            "MPG_FOLDER": str(folder),
            "MPG_JOB": "job.yaml",
            "MPG_REPO_ID": "me/weekly",
            "MPG_RETRY_DELAY_S": "0.1",
            "MPG_HOURS": "0",  # `airflow dags test` can't end a run that has a deadline (apache/airflow#73428)
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        made = Desk(airflow, folder, hub, alerts, os.environ | own)
        for words in (("db", "migrate"), ("pools", "import", str(ROOT / "workflows/airflow/pools.json"))):
            done = made(*words)
            assert done.returncode == 0, done.stdout + done.stderr
        yield made


def test_the_dag_is_one_that_airflow_takes(desk: Desk) -> None:
    done = desk("dags", "reserialize", MPG_HOURS="24")
    assert done.returncode == 0, done.stdout + done.stderr
    with sqlite3.connect(desk.folder / "airflow" / "airflow.db") as known:
        assert known.execute("select filename, stacktrace from import_error").fetchall() == []
        ((late,),) = known.execute("select interval from deadline_alert").fetchall()
        ((slots,),) = known.execute("select slots from slot_pool where pool = 'mpg_gpu'").fetchall()
        ((dag,),) = known.execute("select data from serialized_dag where dag_id = 'mpg_corpus'").fetchall()
    assert slots == 1 and json.loads(late)["__data__"] == 24 * 3600
    shown = {name: param["schema"]["__var"]["type"] for name, param in json.loads(dag)["dag"]["params"]}
    assert shown["job"] == "string" and shown["set"] == "array" and shown["budget"] == ["null", "number"]
    assert shown["private"] == "boolean" and len(shown) == 9


def test_a_run_ends_in_a_revision_and_tries_double_nothing(desk: Desk) -> None:
    run = desk.run("2026-11-23", LOSE="decode publish")
    assert run.status == 0 and set(run.states.values()) == {"success"}, run.log
    assert {path.name for path in desk.folder.glob("lost-*")} == {"lost-decode", "lost-publish"}
    output = desk.folder / "out" / "2026-11-16"
    written, repository = rows(output), desk.hub.data_set("me/weekly")
    assert len({row["row_id"] for row in written}) == len(written) == 8
    assert len(repository.history()) == 1 and repository.tags == {"2026-11-16": repository.find("main").oid}
    assert desk.alerts == []
    # The same interval once more, as a backfill has it: the same rows, and no other revision.
    before = checksums(output)
    run = desk.run("2026-11-23", "--mark-success-pattern", "report|gate")
    assert run.status == 0 and run.states["publish"] == "success", run.log
    assert checksums(output) == before and len(repository.history()) == 1


def test_a_gate_that_says_no_stops_before_publishing_and_somebody_is_told(desk: Desk) -> None:
    """After the test above: half of the rows are gone, and drafts of another strength are accepted less."""
    run = desk.run("2026-11-30", conf={"set": ["prompts.limit=1", "decoder.strength=30"]})
    assert run.status == 1 and run.states["report"] == "success", run.log
    assert run.states["gate"] == "failed" and run.states["publish"] == "upstream_failed", run.log
    assert set(desk.hub.data_set("me/weekly").tags) == {"2026-11-16"}
    told = {alert["kind"]: alert for alert in desk.alerts}
    assert set(told) == {"acceptance", "failed"} and len(desk.alerts) == 2
    assert told["failed"]["task"] == "gate" and told["failed"]["tries"] == 1
    assert "exit status 6" in told["failed"]["text"] and "rows" in told["failed"]["text"]
