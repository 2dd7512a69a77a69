"""Beam's own job service and a pool of workers, each a process with a home, a folder and temporary files of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.run_process import wait_for

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server in a session of its own, on a port that stays its own when it is started again."""

    def __init__(self, folder: Path, module: str, option: str) -> None:
        self.folder, self.port = folder, free_port()
        self._command = [sys.executable, "-m", module, f"{option}={self.port}"]
        for name in ("home", "here", "tmp"):
            (folder / name).mkdir(parents=True)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"localhost:{self.port}"

    def start(self) -> None:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # the pool starts `python`
        here = {"HOME": str(self.folder / "home"), "TMPDIR": str(self.folder / "tmp")}
        self.process = subprocess.Popen(
            self._command,
            cwd=self.folder / "here",
            env=os.environ | here | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            stdout=(self.folder / "log.txt").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        wait_for(self._answers, f"{self._command[2]} answers")

    def _answers(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.folder / "log.txt").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("localhost", self.port)) == 0

    def workers(self) -> list[psutil.Process]:
        """The processes that it has started."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children(recursive=True)

    def kill(self) -> None:
        """It and all that it has started, without a word."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Servers:
    """A job service and a pool of workers, which share nothing but the disk."""

    def __init__(self, folder: Path) -> None:
        self.service = Server(folder / "service", "apache_beam.runners.portability.local_job_service_main", "--port")
        self.pool = Server(folder / "pool", "apache_beam.runners.worker.worker_pool_main", "--service_port")

    @property
    def options(self) -> list[str]:
        """Beam's options of a run on them."""
        external = ["--environment_type=EXTERNAL", f"--environment_config={self.pool.address}"]
        return ["--", "--runner=PortableRunner", f"--job_endpoint={self.service.address}", *external]

    def start(self) -> None:
        self.service.start()
        self.pool.start()

    def end(self) -> None:
        self.service.kill()
        self.pool.kill()


@contextmanager
def asleep(servers: Servers) -> Iterator[None]:
    """The pool takes no work, though it answers: nobody can write a row."""
    assert servers.pool.process is not None
    os.kill(servers.pool.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(servers.pool.process.pid, signal.SIGCONT)
