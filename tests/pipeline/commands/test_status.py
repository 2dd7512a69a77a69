"""How far a run is, and an end to it, from a process that has nothing but its output."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from tests.run_process import finished, log_of, shards_in, start, wait_for


def said(capsys: pytest.CaptureFixture[str], output: object, *options: str) -> dict[str, object]:
    capsys.readouterr()
    assert main(["status", str(output), "--json", *options]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_a_run_that_has_ended(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = job_file.parent / "out"
    assert main(["run", str(job_file)]) == 0
    found = said(capsys, out)
    assert found["rows"] == found["planned"] == found["written"] == 12 and found["shards"] == 3
    assert found["rejected"] == 0 and found["at_work"] is None and found["stop"] is None
    assert main(["status", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"output: {out}" and lines[2:] == [
        "written: 12 of 12 rows, in 3 shards; 0 rejected",
        "at work: nobody",
    ]
    assert lines[1].startswith("data set: 12 rows, 2")
    assert main(["stop", str(out)]) == 0
    assert "nobody works in" in capsys.readouterr().out
    assert not (out / ".work" / "stop").exists()


def test_rejected_rows_and_shards_without_a_line_count(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job_file.parent / "prompts.jsonl").write_text('{"id": "p0", "prompt": "hello"}\n{"id": "p1", "prompt": " "}\n')
    assert main(["run", str(job_file), "--set", "max_rejected_fraction=1"]) == 0
    (job_file.parent / "out" / ".work" / "generations" / "manifest.jsonl").unlink()
    found = said(capsys, job_file.parent / "out")
    assert (found["planned"], found["rows"], found["written"], found["rejected"]) == (8, 4, 4, 4)


def test_a_run_is_stopped_and_goes_on(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = tmp_path / "here"
    run = start(place, here, "--set", "judges=[]")
    wait_for(lambda: shards_in(here) >= 1 or run.poll() is not None, "a shard", 400.0)
    found = said(capsys, here / "out")
    assert found["rows"] is None and found["planned"] == 64 and 0 < int(str(found["written"])) < 64
    assert found["at_work"] == f"another process (host {socket.gethostname()}, pid {run.pid})"
    assert main(["stop", str(here / "out"), "--wait"]) == 0
    assert "it has ended, and the same mpg run goes on" in capsys.readouterr().out
    assert finished(run) == ExitStatus.TRY_AGAIN and "stopped (mpg stop on " in log_of(here)
    found = said(capsys, here / "out")
    assert found["at_work"] is None and str(found["stop"]).startswith("mpg stop on ")
    assert finished(start(place, here, "--set", "judges=[]"), 400.0) == 0
    assert said(capsys, here / "out")["rows"] == 64


@pytest.mark.parametrize("command", ["status", "stop"])
def test_a_folder_of_something_else_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for place in (tmp_path, tmp_path / "none", "memory://nowhere/out"):
        assert main([command, str(place)]) == ExitStatus.BAD_INPUT
        assert "no run has its output there; give the output of mpg run" in capsys.readouterr().err


def test_in_a_store(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "memory://status/out"
    assert main(["run", str(job_file), "--output", url]) == 0
    found = said(capsys, url)
    assert (found["rows"], found["planned"], found["written"], found["at_work"]) == (12, 12, 12, None)
