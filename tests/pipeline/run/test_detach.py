"""Runs in two commands: one hands the rows to workers of a real job service and goes, another makes their data set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.store.copies import here
from pipeline.store.detached import Detached, last_written, note, note_job, noted
from pipeline.store.files import copy, exists, files_below
from pipeline.store.places import expanded
from pipeline.store.spending import Spending
from tests.beam_servers import ROOT, Servers, asleep, free_port
from tests.judge_server import JudgeServer, serving
from tests.pipeline.commands.test_broken_models import no_numbers
from tests.run_process import finished, log_of, shards_in, start, wait_for
from tests.store_servers import BUCKET, s3_server
from tests.tiny_job import checksums, make_job, rows

LONGEST_S = 400.0  # see test_portable


def wait_until_over(out: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Until the service says that the job has ended; what ``mpg status`` says then."""
    end = time.monotonic() + LONGEST_S
    while True:
        capsys.readouterr()
        assert main(["status", str(out), "--json"]) == 0
        found = dict(json.loads(capsys.readouterr().out))
        if found["detached"]["is_over"]:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.1)


def test_the_data_set_is_that_of_a_run(
    servers: Servers, job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, command = tmp_path / "out", ["run", str(job_file), "--output", str(tmp_path / "out")]
    with asleep(servers):
        assert main([*command, "--detach", *servers.options]) == 0  # back, before a row is written
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(f"12 rows to decode: submitted to PortableRunner at {servers.service.address}, job job-")
        assert line.endswith(f"; mpg status {out}, mpg stop {out}; then: mpg finish {out}")
        assert shards_in(tmp_path) == 0
        assert main(["status", str(out)]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("detached: ")]
        assert f"PortableRunner at {servers.service.address}, job " in line and line.endswith(": RUNNING")
        for again in (["finish", str(out)], command):
            assert main(again) == ExitStatus.TRY_AGAIN
            assert "is at work there (RUNNING): mpg status" in capsys.readouterr().err
    assert main(["run", str(job_file), "--output", str(tmp_path / "ref")]) == 0
    found = wait_until_over(out, capsys)
    assert (found["rows"], found["planned"], found["written"], found["at_work"]) == (None, 12, 12, None)
    assert main(["finish", str(out)]) == 0
    assert "12 rows (12 new, 0 kept, 0 rejected)" in capsys.readouterr().out
    assert checksums(out) == checksums(tmp_path / "ref")
    assert main(["finish", str(out)]) == ExitStatus.BAD_INPUT
    assert "no job was detached there" in capsys.readouterr().err


@pytest.mark.long
def test_a_stop_leaves_a_part_and_the_run_goes_on(
    servers: Servers, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--set", "samples_per_cell=4", "--set", "device_price=3600"]  # a unit a second
    out, command = tmp_path / "out", ["run", str(place / "job.yaml"), *more, "--output"]
    with asleep(servers):
        driver = start(place, tmp_path, *more, "--detach", *servers.options)
        assert finished(driver, LONGEST_S) == 0, log_of(tmp_path)  # gone, before a row is written
    wait_for(lambda: shards_in(tmp_path) >= 1, "a shard", LONGEST_S)
    assert main(["stop", str(out), "--wait"]) == 0
    assert f"it has ended, and mpg finish {out} shows what there is" in capsys.readouterr().out
    detached = noted(out / ".work")
    assert detached is not None
    seconds = last_written(out / ".work", detached) - detached.submitted
    assert main(["finish", str(out)]) == ExitStatus.TRY_AGAIN
    assert "stopped (mpg stop on " in (said := capsys.readouterr().err) and "the same mpg run goes on" in said
    assert 0 < len(rows(out / "partial")) < 256
    assert Spending(out / ".work").earlier.total == pytest.approx(seconds)
    assert main([*command, str(out), "--detach", *servers.options]) == 0  # the rest, by workers again
    wait_until_over(out, capsys)
    assert main(["finish", str(out)]) == 0
    assert main([*command, str(tmp_path / "ref")]) == 0
    assert [row["response"] for row in rows(out)] == [row["response"] for row in rows(tmp_path / "ref")]


@pytest.mark.long
def test_workers_hold_the_deadline_and_the_devices_budget(
    servers: Servers, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["run", str(place / "job.yaml"), "--detach", "--set", "device_price=3600", "--set", "judges=[]"]
    for limit, reason, status in (
        ("--deadline=8s", "deadline 8s reached", ExitStatus.TRY_AGAIN),
        ("--budget=8", "budget of 8 spent; raise it with --budget", ExitStatus.BUDGET_SPENT),
    ):
        out = tmp_path / limit
        with asleep(servers):
            assert main([*command, limit, "--output", str(out), *servers.options]) == 0
            detached = noted(out / ".work")
            assert detached is not None and detached.until is not None
            time.sleep(max(0.0, detached.until.at - time.time()))
        found = wait_until_over(out, capsys)
        assert (found["stop"], found["written"]) == (reason, 0)
        assert main(["finish", str(out)]) == status
        assert f"stopped ({reason}); none of 64 rows is finished yet" in capsys.readouterr().err


@pytest.mark.long
def test_why_workers_have_failed_is_said(servers: Servers, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job(tmp_path, judges=[])
    no_numbers(tmp_path / "base")
    assert main(["run", str(job), "--detach", *servers.options]) == 0
    found = wait_until_over(tmp_path / "out", capsys)
    assert str(found["detached"]["state"]).startswith("FAILED: model.id: model ")
    assert main(["finish", str(tmp_path / "out")]) == ExitStatus.TRY_AGAIN
    assert "before its last row (FAILED: model.id: model " in (said := capsys.readouterr().err)
    assert "its logits are not numb" in said and "Traceback" not in said


@pytest.mark.long
def test_judges_behind_endpoints_are_asked_by_finish(
    servers: Servers, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    out, server = tmp_path / "out", JudgeServer()
    with serving(server) as url:
        judges = json.dumps([{"kind": "openai", "model": "m", "base_url": url}])
        command = ["run", str(place / "job.yaml"), "--output", str(out), "--set", f"judges={judges}"]
        assert main([*command, "--detach", *servers.options]) == 0
        wait_until_over(out, capsys)
        assert not server.calls
        assert main([*command, "--detach", *servers.options]) == 0
        assert f"nothing is left for workers to do; mpg finish {out}" in capsys.readouterr().out
        assert main(["finish", str(out)]) == 0
    assert "64 rows (64 new, 0 kept, 0 rejected)" in capsys.readouterr().out
    assert server.calls and rows(out, "judgments")


@pytest.mark.long
def test_from_a_machine_that_has_nothing_but_the_bucket(place: Path, tmp_path: Path) -> None:
    with s3_server() as environment, pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        url, servers = f"s3://{BUCKET}/detached", Servers(tmp_path / "servers")
        for name in files_below(place):
            copy(place / name, expanded(url) / "jobs" / name)
        try:
            servers.start()
            job = f"{url}/jobs/job.yaml"
            _mpg(tmp_path / "driver", "run", job, "--output", f"{url}/out", "--detach", *servers.options)
            wait_for(lambda: exists(expanded(url) / "out" / ".work" / "books.json"), "the last row", LONGEST_S)
        finally:
            servers.end()
        assert "data set: none" in _mpg(tmp_path / "other", "status", f"{url}/out")
        assert "64 rows (64 new, " in _mpg(tmp_path / "other", "finish", f"{url}/out")
        _mpg(tmp_path / "ref", "run", job, "--output", f"{url}/ref")
        found, wanted = (checksums(here(expanded(url) / name)) for name in ("out", "ref"))
        assert found == wanted


def _mpg(folder: Path, *arguments: str) -> str:
    """What a command that ends well prints, on a machine of its own."""
    for name in ("home", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    environment = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    ran = subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--detach: the workers of DirectRunner end with this process; give a job service (--runner=Portable"),
        (["--direct_num_workers=2", "--direct_running_mode=multi_processing"], "the workers of DirectRunner end with"),
        (["--runner=PortableRunner", "--job_endpoint=embed"], "ends with this process; add --job_endpoint=HOST:PORT"),
        (["--runner=FlinkRunner", "--flink_job_server_jar=x.jar"], "the job service of FlinkRunner ends with this"),
        (
            ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--environment_type=LOOPBACK"],
            "--environment_type=LOOPBACK: its workers end with this process; with --detach give another",
        ),
        (["--runner=FlinkRunner", "--job_endpoint=localhost:1"], "--environment_type: none is given; with --detach"),
    ],
)
def test_nobody_who_ends_with_this_process_is_handed_rows(
    job_file: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main(["run", str(job_file), "--detach", "--", *options]) == ExitStatus.BAD_INPUT
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mpg: ")]
    assert words in line
    assert not (job_file.parent / "out").exists()


def test_what_needs_a_driver_is_refused(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = ["--runner=PortableRunner", "--job_endpoint=localhost:1", "--environment_type=EXTERNAL"]
    accept = ["--set", "accept={min_score: 0.5, rows_per_cell: 1, max_candidates: 2}"]
    command = ["run", str(job_file), *accept, "--detach", "--", *elsewhere, "--environment_config=localhost:1"]
    assert main(command) == ExitStatus.BAD_INPUT
    assert "accept: --detach can't look at scores and draw more" in capsys.readouterr().err


def test_where_nobody_can_tell_a_person_says_that_it_is_over(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The job service is gone, with all that it knew."""
    assert main(["run", str(job_file)]) == 0
    out = job_file.parent / "out"
    work, job = out / ".work", json.loads((out / "job.json").read_text())
    (work / "books.json").unlink()
    before = checksums(out)
    service = (f"--job_endpoint=localhost:{free_port()}",)
    note(work, Detached("PortableRunner", service, time.time() - 60, 1, 0.0, job_id="job-1"))
    note_job(work, {"folder": str(job_file.parent), "job": job})
    capsys.readouterr()
    for command in (["finish", str(out)], ["run", str(job_file)]):
        assert main(command) == ExitStatus.TRY_AGAIN
        said = capsys.readouterr().err
        assert "nobody can say whether it has ended (its service does not say: " in said
        assert "its last files were written at 20" in said and f"if it has: mpg finish {out} --anyway" in said
    assert main(["finish", str(out), "--anyway"]) == 0
    assert checksums(out) == before and noted(work) is None


def test_a_job_that_can_not_be_read_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "out" / ".work"
    work.mkdir(parents=True)
    note(work, Detached("PortableRunner", ("--job_endpoint=localhost:1",), 0.0, 1, 0.0, None))
    assert main(["finish", str(tmp_path / "out")]) == ExitStatus.BAD_INPUT
    assert "detached-job.json is gone, which says what was detached" in capsys.readouterr().err
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://localhost:{free_port()}")
    assert main(["finish", "s3://bucket/out"]) == ExitStatus.TRY_AGAIN
    (line,) = capsys.readouterr().err.splitlines()
    assert "s3://bucket/out" in line and "<<" not in line
