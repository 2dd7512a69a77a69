"""A budget is a data set's, whatever number of runs and judges spend it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.run.run import Run, opened
from pipeline.store.spending import Spending, Spent
from tests.judge_server import JudgeServer, serving
from tests.tiny_job import rows, write_job

PRICED = ["--set", "device_price=3600"]  # a unit a second


def spent(output: Path) -> float:
    return Spending(output / ".work").earlier.total


def test_what_earlier_runs_spent_counts(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = job_file.parent / "out"
    command = ["run", str(job_file), *PRICED, "--budget"]
    assert main([*command, "0.01"]) == 3
    first = spent(output)
    assert first >= 0.01 and "raise it with --budget" in capsys.readouterr().err
    assert main([*command, "0.01"]) == 3
    said = capsys.readouterr().err
    assert f"budget of 0.01 spent, {first:.4g} of it by earlier runs of this data set" in said
    assert not rows(output / "partial")  # no model was loaded for it
    assert spent(output) - first < 3  # what planning took
    assert main([*command, "500"]) == 0
    run = json.loads((output / "run.json").read_text())
    actual = run["actual"]
    assert actual["cost_of_all_runs"] > actual["cost"] + first * 0.99


def test_what_is_left_is_said_at_the_start(
    job_file: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    work = job_file.parent / "out" / ".work"
    work.mkdir(parents=True)
    Spending(work).note(Spent(3.0, {"openai": 0.5}))
    with caplog.at_level("INFO", "pipeline"):
        assert main(["run", str(job_file), *PRICED, "--budget", "5000"]) == 0
    assert "budget 5000: earlier runs of this data set spent 3.5, 4996 is left" in caplog.text


def test_a_data_set_that_has_all_it_needs_is_done_whatever_was_spent(job_file: Path) -> None:
    assert main(["run", str(job_file), *PRICED, "--budget", "5000"]) == 0
    assert main(["run", str(job_file), *PRICED, "--budget", "0.01"]) == 0


def test_a_killed_run_has_spent_what_it_said_last(tmp_path: Path) -> None:
    one = Spending(tmp_path)
    one.note(Spent(1.0, {}))
    one.note(Spent(2.0, {"openai": 0.25}))  # the same run, later
    other = Spending(tmp_path)
    assert other.earlier == Spent(2.0, {"openai": 0.25})
    other.note(Spent(0.0, {"openai": 0.5}))
    (tmp_path / "spent" / "0-0.json").write_text('{"devices": 7')  # cut off by a full disk
    assert Spending(tmp_path).earlier == Spent(2.0, {"openai": 0.75})


def test_a_judges_budget_counts_its_earlier_calls(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run and of `mpg judge` alike: 0.11 a call, and room for five."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    server = JudgeServer()
    with serving(server) as url:
        judge = {"kind": "openai", "model": "m", "base_url": url, "in_flight": 1, "prompt_price": 1000.0}
        job = write_job(job_file.parent, judges=[judge | {"budget": 1.6}])
        main(["run", str(job)])
        first = sum(server.calls.values())
        assert 0 < first < 12
        main(["run", str(job)])
        assert sum(server.calls.values()) == first
        priced = ["--judge", "openai", "--base-url", url, "--model", "m", "--prompt-price", "1000", "--in-flight", "1"]
        assert main(["run", str(write_job(job_file.parent, judges=[]))]) == 0
        described = ["--attributes", "E", "J"]
        assert main(["judge", str(job_file.parent / "out"), *described, *priced, "--budget", "1.6"]) != 0
        assert sum(server.calls.values()) == first
        assert main(["judge", str(job_file.parent / "out"), *described, *priced, "--budget", "50"]) == 0
        assert sum(server.calls.values()) == 12


def test_an_attached_run_counts_the_devices_that_its_options_name(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And says, before it begins, where none of them does."""
    job = load_job(job_file, ["device_price=2", "judges=[]"])
    flink = ["--runner=FlinkRunner", "--job_endpoint=localhost:1", "--environment_type=LOOPBACK"]
    costs = []
    for options in ([*flink, "--parallelism=4"], flink, []):
        with opened(job) as place:
            limits = Run(job, place, tuple(options)).limits
            limits._started = time.time() - 3600
            costs.append(round(limits.now().devices, 2))
    assert costs == [8, 2, 2]
    for options, is_said in (([*flink, "--parallelism=4"], False), (flink, True)):
        assert main(["check", str(job_file), "--set", "device_price=2", "--", *options]) == 0
        assert ("cost and budget count one device" in capsys.readouterr().out) == is_said
