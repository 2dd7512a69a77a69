"""A run that is stopped, locked out, or can't write, says so in a line and loses nothing: real processes and errors."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
from pathlib import Path

import psutil
import pytest

from pipeline.cli import main
from pipeline.store.lock import FolderInUse, FolderLock
from tests.run_process import TWO_WORKERS, finished, log_of, shards_in, start, wait_for
from tests.tiny_job import checksums, rows, write_job


def test_a_second_run_on_one_folder_is_refused_with_the_firsts_pid(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = job_file.parent / "out" / ".work"
    work.mkdir(parents=True)
    with FolderLock(work):
        assert main(["run", str(job_file)]) == 75
    holder = f"another process (host {socket.gethostname()}, pid {os.getpid()})"
    assert f"is in use by {holder}; wait for it, or stop it" in capsys.readouterr().err
    assert not list(work.rglob("*.parquet"))
    assert main(["run", str(job_file)]) == 0


def test_a_lock_may_be_shared_but_not_beside_a_run(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text('{"host": "old", "pid": 4242}')  # of a run that was killed
    with (
        FolderLock(tmp_path, shared=True),
        FolderLock(tmp_path, shared=True),
        pytest.raises(FolderInUse, match="is in use by another process; wait"),  # nobody's pid, not an old one's
    ):
        FolderLock(tmp_path).__enter__()
    with FolderLock(tmp_path), pytest.raises(FolderInUse, match=f"pid {os.getpid()}"):
        FolderLock(tmp_path, shared=True).__enter__()
    with FolderLock(tmp_path), FolderLock(tmp_path, name="other"):  # two locks that do not know of each other
        pass


@pytest.mark.parametrize(
    ("number", "more"),
    [(signal.SIGINT, []), pytest.param(signal.SIGTERM, TWO_WORKERS, marks=pytest.mark.long)],
    ids=["Ctrl-C", "SIGTERM, two workers"],
)
def test_one_ctrl_c_finishes_the_rows_in_flight(
    place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path, number: int, more: list[str]
) -> None:
    run = start(place, tmp_path, *more)
    wait_for(lambda: shards_in(tmp_path), "a shard")
    run.send_signal(number)
    assert finished(run, timeout=60) == 130
    said = log_of(tmp_path)
    assert "rows in flight are finished and written" in said and "the same command goes on" in said
    assert "Traceback" not in said
    kept = rows(tmp_path / "out" / "partial")
    assert 4 <= len(kept) < 64 and not (tmp_path / "out" / "run.json").exists()
    assert finished(start(place, tmp_path)) == 0
    after = {row["row_id"]: row for row in rows(tmp_path / "out")}
    assert len(after) == 64 and all(after[row["row_id"]] == row for row in kept)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["kept_from_earlier_runs"] == len(kept)


@pytest.mark.long
def test_the_second_ctrl_c_stops_at_once_and_loses_nothing(
    place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    run = start(place, tmp_path, *TWO_WORKERS)
    wait_for(lambda: shards_in(tmp_path), "a shard")
    family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(signal.SIGINT)
    wait_for(lambda: "Ctrl-C again" in log_of(tmp_path), "an answer")
    run.send_signal(signal.SIGINT)
    assert finished(run, timeout=10) == 130
    assert not psutil.wait_procs(family, timeout=15)[1]
    assert finished(start(place, tmp_path)) == 0
    assert len(rows(tmp_path / "out")) == 64


@pytest.mark.parametrize(
    ("limits", "why", "status"),
    [
        (["--deadline", "0.1s"], "deadline 0.1s reached", 75),
        (["--set", "device_price=3600", "--budget", "0.1"], "budget of 0.1 spent; raise it with --budget", 3),
    ],
)
def test_a_limit_stops_a_run_cleanly(
    job_file: Path, limits: list[str], why: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    output = job_file.parent / "out"
    job_file = write_job(job_file.parent, samples_per_cell=16, rows_per_shard=8)
    assert main(["run", str(job_file), *limits]) == status
    said = capsys.readouterr().err
    assert f"stopped ({why})" in said and "the same command goes on" in said
    assert len(rows(output / "partial")) < 192 and not (output / "run.json").exists()
    assert main(["run", str(job_file), "--deadline", "1h", "--set", "device_price=36", "--budget", "500"]) == 0
    assert len(rows(output)) == 192
    actual = json.loads((output / "run.json").read_text())["actual"]
    assert actual["cost"] == pytest.approx(actual["seconds"] / 100, rel=0.05)


@pytest.mark.parametrize(
    "more", [[], pytest.param(TWO_WORKERS, marks=pytest.mark.long)], ids=["one process", "two workers"]
)
def test_a_disk_without_room_is_one_line_and_nothing_written_is_lost(
    place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path, more: list[str]
) -> None:
    """The system refuses every file of more than 9 kB, as it would on a full disk: a real error of a real write."""

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    run = start(place, tmp_path, *more, before=no_room)
    assert finished(run) == 75
    last = log_of(tmp_path).strip().splitlines()[-1]
    assert last.startswith("mpg: ") and "output: " in last and "file too large; make room" in last
    assert "Traceback" not in log_of(tmp_path)
    assert finished(start(place, tmp_path)) == 0
    assert checksums(tmp_path / "out") == undisturbed[0]


def test_a_folder_that_vanishes_is_one_line(place: Path, tmp_path: Path) -> None:
    run = start(place, tmp_path)
    wait_for(lambda: shards_in(tmp_path), "a shard")
    (tmp_path / "out").rename(tmp_path / "gone")  # in one step: a tree removed file by file is still written to
    assert finished(run) == 75
    last = log_of(tmp_path).strip().splitlines()[-1]
    assert last.startswith("mpg: ") and "the same command goes on" in last
    assert "Traceback" not in log_of(tmp_path)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("/proc/mpg", "output: /proc can't be written"),
        ("azure://bucket/corpus", "azure:// is no store that is known here"),
        ("hf://datasets/me/x", "hf:// can be read only"),
    ],
)
def test_an_output_that_can_not_be_is_one_line_before_a_model_is_loaded(
    job_file: Path, output: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(job_file), "--set", f"output={output}"]) in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]
