"""``mpg run`` as a process of its own, as a shell would start it, for tests that kill it, stop it, or take its disk."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.tiny_job import make_job

TWO_WORKERS = ["--", "--direct_num_workers=2", "--direct_running_mode=multi_processing"]
LONGEST_S = 120.0


def make_place(folder: Path) -> Path:
    """A job of 64 rows in 16 shards; one thread, whoever runs it."""
    prompts = tuple(f"tell me more {a} {b}" for a in "abcd" for b in "efgh")
    make_job(folder, prompts, rows_per_shard=4, threads=1)
    return folder


def start(place: Path, here: Path, *more: str, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """``mpg run`` into ``here/out``, in a process and a process group of its own, as a shell would start it."""
    command = [sys.executable, "-m", "pipeline.cli", "run", str(place / "job.yaml"), "--output", "out", *more]
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
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
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
