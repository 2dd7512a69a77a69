"""What a run is worth when processes are killed, stopped, locked out, or can't write: real processes, real signals."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pipeline.cli import main
from pipeline.lock import FolderInUse, FolderLock
from tests.tiny_job import checksums, make_job, rows

TWO_WORKERS = ["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
LONGEST_S = 120.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of 64 rows in 16 shards, whose output is relative to where a run stands."""
    folder = tmp_path_factory.mktemp("job")
    prompts = tuple(f"tell me more {a} {b}" for a in "abcd" for b in "efgh")
    make_job(folder, prompts, rows_per_shard=4, output="out")
    return folder


@pytest.fixture(scope="module")
def undisturbed(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], float]:
    """Checksums of a data set that nothing happened to, and how long it took."""
    here = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    run = start(place, here)
    assert finished(run) == 0
    return checksums(here / "out"), time.monotonic() - started


def start(place: Path, here: Path, *more: str, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """``mpg run`` in a process and a process group of its own, as a shell would start it."""
    command = [sys.executable, "-m", "pipeline.cli", "run", str(place / "job.yaml"), *more]
    here.mkdir(exist_ok=True)
    log = (here / "log.txt").open("a")
    return subprocess.Popen(
        command,
        cwd=here,
        stdout=subprocess.DEVNULL,
        stderr=log,
        text=True,
        process_group=0,
        preexec_fn=before,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def finished(run: subprocess.Popen[str], timeout: float = LONGEST_S) -> int:
    return run.wait(timeout)


def log_of(here: Path) -> str:
    return (here / "log.txt").read_text()


def workers_of(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """Beam's worker processes."""
    found = []
    try:
        for child in psutil.Process(run.pid).children(recursive=True):
            if "apache_beam.runners.worker.sdk_worker_main" in child.cmdline():
                found.append(child)
    except psutil.Error:
        return found
    return found


def wait_for(condition: Callable[[], object], what: str, timeout: float = LONGEST_S) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {timeout:.0f} s"
        time.sleep(0.05)


def shards_in(here: Path, table: str = "generations") -> int:
    return len(list((here / "out" / ".work" / table).glob("*.parquet")))


def test_killed_at_twenty_random_moments_a_run_gives_the_same_bytes(
    place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """kill -9 of the driver (12 times) and of a worker process (8 times), then the same command."""
    wanted, duration = undisturbed
    rng = random.Random(20)
    kills, n_sets, here = 0, 0, tmp_path / "set-0"

    def ended(run: subprocess.Popen[str]) -> bool:
        """Whether the run has come to its end; then its data set is compared and the next is begun."""
        nonlocal n_sets, here
        if run.poll() is None:
            return False
        if run.returncode == 0:
            assert checksums(here / "out") == wanted
            n_sets, here = n_sets + 1, tmp_path / f"set-{n_sets + 1}"
        return True

    while kills < 12:
        run = start(place, here)
        lock = here / "out" / ".work" / "lock"
        before = lock.stat().st_mtime_ns if lock.exists() else 0
        # From when it has the folder, which is after most imports, to past its end.
        wait_for(lambda: lock.exists() and lock.stat().st_mtime_ns > before, "the lock")  # noqa: B023
        wait_until = time.monotonic() + rng.uniform(0.0, 0.8) * duration
        while time.monotonic() < wait_until and run.poll() is None:
            time.sleep(0.02)
        if not ended(run):
            run.kill()
            finished(run)
            kills += 1
    while kills < 20:
        run = start(place, here, *TWO_WORKERS)
        while kills < 20 and run.poll() is None:
            wait_for(lambda: workers_of(run) or run.poll() is not None, "a worker")  # noqa: B023
            time.sleep(rng.uniform(0.0, 0.8) * duration)
            victims = workers_of(run)
            if victims and run.poll() is None:
                rng.choice(victims).kill()
                kills += 1
        finished(run)
        assert ended(run)
    last = start(place, here)
    assert finished(last) == 0
    assert checksums(here / "out") == wanted
    assert not list(here.rglob("*.corrupt"))


def test_a_killed_worker_is_noticed_and_the_run_goes_on_by_itself(
    place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    run = start(place, tmp_path, *TWO_WORKERS)
    wait_for(lambda: shards_in(tmp_path), "a shard")
    workers_of(run)[0].kill()
    wait_for(lambda: "was killed" in log_of(tmp_path), "a word on it", timeout=30)
    assert finished(run) == 0
    assert "its shard is made again" in log_of(tmp_path)
    assert checksums(tmp_path / "out") == undisturbed[0]


def test_a_worker_that_is_killed_again_and_again_ends_the_run(place: Path, tmp_path: Path) -> None:
    run = start(place, tmp_path, *TWO_WORKERS)
    while run.poll() is None:
        for worker in workers_of(run):
            if not shards_in(tmp_path):
                worker.kill()
        time.sleep(0.02)
    last = log_of(tmp_path).strip().splitlines()[-1]
    assert run.returncode == 1
    assert last.startswith("mpg: ") and "was killed" in last and "the same command goes on" in last
    assert "Traceback" not in log_of(tmp_path)


def test_no_worker_outlives_a_killed_driver(place: Path, tmp_path: Path) -> None:
    run = start(place, tmp_path, *TWO_WORKERS)
    wait_for(lambda: len(workers_of(run)) == 2, "two workers")
    family = psutil.Process(run.pid).children(recursive=True)
    run.kill()
    finished(run)
    gone, alive = psutil.wait_procs(family, timeout=15)
    assert not alive and len(gone) >= 3


def test_a_second_run_on_one_folder_is_refused_with_the_firsts_pid(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = job_file.parent / "out" / ".work"
    work.mkdir(parents=True)
    with FolderLock(work):
        assert main(["run", str(job_file)]) == 1
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
    ("number", "more"), [(signal.SIGINT, []), (signal.SIGTERM, TWO_WORKERS)], ids=["Ctrl-C", "SIGTERM, two workers"]
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
    kept = rows(tmp_path / "out")
    assert 4 <= len(kept) < 64 and not (tmp_path / "out" / "run.json").exists()
    assert finished(start(place, tmp_path)) == 0
    after = {row["row_id"]: row for row in rows(tmp_path / "out")}
    assert len(after) == 64 and all(after[row["row_id"]] == row for row in kept)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["kept_from_earlier_runs"] == len(kept)


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
    ("limits", "why"),
    [
        (["--deadline", "0.1s"], "deadline 0.1s reached"),
        (["--set", "device_price=3600", "--budget", "0.1"], "budget of 0.1 spent"),  # a tenth of a second's worth
    ],
)
def test_a_limit_stops_a_run_cleanly(
    job_file: Path, limits: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = job_file.parent / "out"
    assert main(["run", str(job_file), *limits]) == 1
    said = capsys.readouterr().err
    assert f"stopped ({why})" in said and "the same command goes on" in said
    assert len(rows(output)) < 12 and not (output / "run.json").exists()
    assert main(["run", str(job_file), "--deadline", "1h", "--set", "device_price=36", "--budget", "500"]) == 0
    assert len(rows(output)) == 12
    actual = json.loads((output / "run.json").read_text())["actual"]
    assert actual["cost"] == pytest.approx(actual["seconds"] / 100, rel=0.05)


@pytest.mark.parametrize("more", [[], TWO_WORKERS], ids=["one process", "two workers"])
def test_a_disk_without_room_is_one_line_and_nothing_written_is_lost(
    place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path, more: list[str]
) -> None:
    """The system refuses every file of more than 9 kB, as it would on a full disk: a real error of a real write."""

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    run = start(place, tmp_path, *more, before=no_room)
    assert finished(run) == 1
    last = log_of(tmp_path).strip().splitlines()[-1]
    assert last.startswith("mpg: ") and "output: " in last and "file too large; make room" in last
    assert "Traceback" not in log_of(tmp_path)
    assert finished(start(place, tmp_path)) == 0
    assert checksums(tmp_path / "out") == undisturbed[0]


def test_a_folder_that_vanishes_is_one_line(place: Path, tmp_path: Path) -> None:
    run = start(place, tmp_path)
    wait_for(lambda: shards_in(tmp_path), "a shard")
    shutil.rmtree(tmp_path / "out")
    assert finished(run) == 1
    last = log_of(tmp_path).strip().splitlines()[-1]
    assert last.startswith("mpg: ") and "the same command goes on" in last
    assert "Traceback" not in log_of(tmp_path)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("/proc/mpg", "output: /proc/mpg can't be written"),
        ("gs://bucket/corpus", "output: 'gs://bucket/corpus' is a URL; a run writes to a folder"),
    ],
)
def test_an_output_that_can_not_be_is_one_line_before_a_model_is_loaded(
    job_file: Path, output: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(job_file), "--set", f"output={output}"]) in (1, 2)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]
