"""A run whose driver or workers are killed loses nothing: real processes, real signals."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from tests.run_process import TWO_WORKERS, finished, log_of, shards_in, start, wait_for, workers_of
from tests.tiny_job import checksums


@pytest.mark.long
@pytest.mark.parametrize(("drivers", "workers"), [(1, 0), (12, 8)], ids=["once", "20 times"])
def test_killed_at_random_moments_a_run_gives_the_same_bytes(
    place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path, drivers: int, workers: int
) -> None:
    """kill -9 of the driver, then of worker processes; then the same command."""
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

    while kills < drivers:
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
    while kills < drivers + workers:
        run = start(place, here, *TWO_WORKERS)
        while kills < drivers + workers and run.poll() is None:
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


@pytest.mark.long
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


@pytest.mark.long
def test_a_worker_that_is_killed_again_and_again_ends_the_run(place: Path, tmp_path: Path) -> None:
    run = start(place, tmp_path, *TWO_WORKERS)
    while run.poll() is None:
        for worker in workers_of(run):
            if not shards_in(tmp_path):
                worker.kill()
        time.sleep(0.02)
    last = log_of(tmp_path).strip().splitlines()[-1]
    assert run.returncode == 75
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
