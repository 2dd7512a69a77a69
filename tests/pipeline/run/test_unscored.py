"""A run whose judge behind an endpoint can't be asked: the texts are a data set, and the run is no success."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from tests.judge_server import JudgeServer, refuses, serving, status
from tests.tiny_job import rows, write_job

KEY = "sk-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def judge(url: str, **more: Any) -> dict[str, Any]:
    return {"kind": "openai", "model": "m", "base_url": url, **more}


def run_record(job_file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((job_file.parent / "out" / "run.json").read_text())
    return found


def test_a_dead_key_costs_one_call_and_is_said_everywhere(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = JudgeServer(lambda text, n: refuses(401, {"error": {"message": f"bad key {KEY}"}}))
    with serving(server) as url:
        assert main(["run", str(write_job(job_file.parent, judges=[judge(url)]))]) == 5
    assert server.calls.total() == 1
    printed = capsys.readouterr()
    last = printed.err.strip().splitlines()[-1]
    assert "judgments are missing, more than max_unscored_fraction 0.05 allows: HTTP 401: bad key ***" in last
    assert "the same command asks for the rest once that is mended" in last and "data set:" in printed.out
    assert len(rows(job_file.parent / "out")) == 12
    (calls,) = run_record(job_file)["calls"].values()
    assert (calls["calls"], calls["stopped"], calls["first_error"]) == (
        1,
        "HTTP 401: bad key ***",
        "HTTP 401: bad key ***",
    )
    everything = b"".join(path.read_bytes() for path in (job_file.parent / "out").rglob("*") if path.is_file())
    assert KEY.encode() not in everything and KEY not in printed.out + printed.err
    good = JudgeServer(lacks={"seed": "unknown field: seed"})
    with serving(good) as url:
        assert main(["run", str(write_job(job_file.parent, judges=[judge(url)]))]) == 0
    (calls,) = run_record(job_file)["calls"].values()
    assert (
        calls["stopped"] is None and calls["left_out"] == ["seed"] and run_record(job_file)["counts"]["generated"] == 0
    )


def test_nobody_there_is_worth_trying_again_and_may_be_allowed(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        away = judge(f"http://127.0.0.1:{free.getsockname()[1]}/v1", max_retries=1)
        job = str(write_job(job_file.parent, judges=[away]))
        assert main(["run", job]) == 75
        assert "no connection (connection refused), 2 times in a row" in capsys.readouterr().err
        assert main(["run", job, "--set", "max_unscored_fraction=1"]) == 0


@pytest.mark.parametrize(("reply", "exit_status"), [(status(401), 5), (status(429, retry_after="9999"), 75)], ids=str)
def test_where_texts_are_chosen_by_their_scores_the_run_waits(
    job_file: Path, reply: Any, exit_status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = {"min_score": 0.0, "rows_per_cell": 1, "max_candidates": 9}
    server = JudgeServer(lambda text, n: reply)
    with serving(server) as url:
        assert main(["run", str(write_job(job_file.parent, judges=[judge(url)], accept=rule))]) == exit_status
    assert server.calls.total() == 1
    assert len(rows(job_file.parent / "out" / ".work", "generations")) == 12  # no more were drawn


def test_a_profile_that_can_not_be_stored_is_spelled_out(job_file: Path) -> None:
    """YAML can spell half of a surrogate pair; no attribute reads the profile, so that the texts can be written."""
    people = job_file.parent / "people.yaml"
    people.write_text(
        'personas:\n  - {name: "ada \\ud83d", weights: {E: 1}, profile: "She \\ud83d bakes.", personality: "\\udc00"}\n'
    )
    job = str(write_job(job_file.parent, personas={"kind": "file", "file": "people.yaml"}))
    for _ in range(2):
        assert main(["run", job]) == 0
        found = rows(job_file.parent / "out")
        assert {row["profile"] for row in found} == {"She \\ud83d bakes."} and len(found) == 3
        assert {row["persona"] for row in found} == {"ada \\ud83d"}
    assert run_record(job_file)["counts"]["generated"] == 0
