"""While a detached job has an output, no command writes there, and those that read say so."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import _COMMANDS, main
from pipeline.exit_status import ExitStatus
from pipeline.plan.errors import RunError
from pipeline.publish.rewrite import rewrite_card
from pipeline.store.detached import Detached, note, note_job
from tests.beam_servers import free_port
from tests.dataflow_stub import DataflowStub
from tests.tiny_job import checksums, make_job

# What each command does with a data set, or a job, of these places.
WRITES = {
    "run": ["run", "{job}"],
    "finish": ["finish", "{out}"],
    "judge": ["judge", "{out}"],
    "export": ["export", "{out}", "--format", "messages"],
    "report": ["report", "{out}"],
}
READS = {
    "check": ["check", "{job}"],
    "verify": ["verify", "{out}", "--sample", "0"],
    "report": ["report", "{out}", "--terminal"],
    "judge": ["judge", "{out}", "--output", "{elsewhere}"],
    "publish": ["publish", "{out}", "--dry-run", "--license", "cc0-1.0", "--local-names"],
    "gate": ["gate", "{out}"],
}
# They say what there is of the job, or touch no data set but their own.
OTHERS = {"status", "stop", "init", "infer-weights", "train", "questionnaire", "plan", "schema", "compare", "calibrate"}
SERVICE = ("--project=some-project", "--region=europe-west4", "--no_auth")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose data set is there."""
    path = make_job(tmp_path_factory.mktemp("job"))
    assert main(["run", str(path)]) == 0
    (path.parent / "out" / ".work" / "books.json").unlink()
    return path


@pytest.fixture(params=["at work", "unknown"])
def line(request: pytest.FixtureRequest, job: Path) -> Iterator[str]:
    """Of a job that is detached there: its service says that it runs, or is gone."""
    out = job.parent / "out"
    with DataflowStub("JOB_STATE_RUNNING") as stub:
        address = stub.address if request.param == "at work" else f"http://localhost:{free_port()}"
        service = (*SERVICE, f"--dataflow_endpoint={address}")
        note(out / ".work", Detached("DataflowRunner", service, time.time(), 1, 0.0, job_id="job-1"))
        note_job(out / ".work", {"folder": str(job.parent), "job": json.loads((out / "job.json").read_text())})
        yield ("is at work there (RUNNING): mpg " if request.param == "at work" else "nobody can say whether it has")


def given(command: list[str], job: Path, tmp_path: Path) -> list[str]:
    return [each.format(job=job, out=job.parent / "out", elsewhere=tmp_path / "elsewhere") for each in command]


def test_every_command_is_one_or_the_other() -> None:
    assert {*WRITES, *READS} | OTHERS == set(_COMMANDS) and not {*WRITES, *READS} & OTHERS


@pytest.mark.parametrize("command", WRITES.values(), ids=WRITES)
def test_what_would_write_is_refused(
    command: list[str], job: Path, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = checksums(job.parent)
    assert main(given(command, job, tmp_path)) == ExitStatus.TRY_AGAIN
    assert line in capsys.readouterr().err.splitlines()[-1]
    assert checksums(job.parent) == before


@pytest.mark.parametrize("way", ["{out}/r.html", "{out}/../out/r.html", "{link}/r.html"])
def test_a_report_into_it_is_refused_by_whatever_way(
    way: str, job: Path, line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, link = job.parent / "out", tmp_path / "link"
    link.symlink_to(out)
    assert main(["report", str(out), "--output", way.format(out=out, link=link)]) == ExitStatus.TRY_AGAIN
    assert line in capsys.readouterr().err and not (out / "r.html").exists()


@pytest.mark.parametrize("command", READS.values(), ids=READS)
def test_what_reads_says_it_in_a_note(
    command: list[str], job: Path, line: str, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    assert main(given(command, job, tmp_path)) == 0, capfd.readouterr().err
    assert line in caplog.text + capfd.readouterr().out


def test_a_card_is_not_written_again(job: Path, line: str) -> None:
    before = checksums(job.parent)
    with pytest.raises(RunError, match="output: the job detached to DataflowRunner"):
        rewrite_card(job.parent / "out")
    assert checksums(job.parent) == before
