"""Worker processes under watch.

Beam's DirectRunner waits for ever for a worker process that was killed (by the system, for want of memory, say). So
the graph that has worker processes runs in a process of its own, in a session of its own: this one watches all of
them, ends them when one is gone, and Ctrl-C reaches this one alone. They end by themselves when this one is gone.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from pipeline.exit_status import ExitStatus
from pipeline.plan.errors import RunError
from pipeline.store.errors import OutputError, line_in, readable, refusal_in
from pipeline.store.files import exists, remove

if TYPE_CHECKING:
    from pipeline.beam.work import Graph

# Worker processes that may be killed one after the other, with nothing finished between, before a run gives up.
MOST_DEATHS = 3
_EVERY_S = 0.5
# How long a graph whose worker is gone may take to end by itself: at its end, workers go before it does.
_GRACE_S = 5.0
_KEPT_LINES = 400
# What Beam says when it does notice that a worker is gone, as it does while it hands it work.
_WORKER_GONE, _CHANNEL_CLOSED = "Worker subprocess exited with return code", "Channel closed prematurely"
KILLED = "was killed, by hand or by the system for want of memory"
# How long the end of a graph may take after its work is done.
_END_S = 60.0
_WORKER = "apache_beam.runners.worker.sdk_worker_main"


class WorkerDied(RuntimeError):
    """A worker process is gone before its work was done; what it had finished is written."""


class GraphFailed(RuntimeError):
    """The graph ended with an error; the message is its last words, the status what a command ends with then."""

    status = ExitStatus.FAILED


def supervised(graph: Graph, arguments: Sequence[str]) -> None:
    """Run the graph in a process of its own to its end.

    Raises:
        WorkerDied: it, or one of its workers, was killed; noticed within seconds.
        OutputError: the output can't be written. RunError: a model can't be loaded. GraphFailed: any other error.
    """
    remove(graph.last)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.beam.child", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    said: deque[str] = deque(maxlen=_KEPT_LINES)
    listener = threading.Thread(target=_listen, args=(process.stdout, said), daemon=True)
    listener.start()
    try:
        try:
            process.stdin.write(pickle.dumps((graph, list(arguments))))
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended: what it said is looked at below
        dead = _wait(process, graph.last, said)
    finally:
        _end(process)
        listener.join(timeout=_GRACE_S)
    text = "\n".join(said)
    line = line_in(text)
    if line is not None:
        raise OutputError(line)
    refusal = refusal_in(text)
    if refusal is not None:
        raise RunError(refusal, ExitStatus.BAD_INPUT)
    if process.returncode and dead is None and a_worker_is_gone(text):
        dead = "a worker process"
    if process.returncode < 0 and dead is None:
        dead = f"the graph process (signal {-process.returncode})"
    if dead is not None:
        raise WorkerDied(f"{dead} {KILLED}")
    if process.returncode:
        raise GraphFailed(f"{readable(text)}\n{text}")


def a_worker_is_gone(text: str) -> bool:
    """Whether the text of an error is Beam's on a worker that is gone, of which its last line tells."""
    return _WORKER_GONE in text or _CHANNEL_CLOSED in (text.splitlines() or [""])[-1]


def _listen(pipe: IO[bytes], said: deque[str]) -> None:
    from pipeline.beam.worker_logs import passed_on

    for line in pipe:
        text = line.decode(errors="replace").rstrip()
        if not passed_on(text):
            said.append(text)


def _wait(process: subprocess.Popen[bytes], last: Path, said: Sequence[str]) -> str | None:
    """Until the graph ends by itself (``None``), or hangs for a worker that is gone: which one."""
    workers: dict[int, psutil.Process] = {}
    done_at: float | None = None
    while True:
        try:
            process.wait(_EVERY_S)
            return None
        except subprocess.TimeoutExpired:
            pass
        for child in _children(process.pid):
            if child.pid not in workers and _is_worker(child):
                workers[child.pid] = child
        gone = [f"worker process {pid}" for pid, worker in workers.items() if not _is_alive(worker)]
        if any(_WORKER_GONE in line for line in tuple(said)):  # as soon as it was there, so that it was never seen
            gone.append("a worker process")
        if done_at is None and exists(last):  # it is written while all workers live
            done_at = time.monotonic()
        if gone and (done_at is None or time.monotonic() - done_at > _END_S):
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
                return None  # it has noticed by itself, or ends its workers because of an error
            return gone[0]


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _is_worker(process: psutil.Process) -> bool:
    try:
        return _WORKER in process.cmdline()
    except psutil.Error:
        return False


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the graph's process and all that it has started."""
    for each in _children(process.pid):
        try:
            each.kill()
        except psutil.Error:
            continue
    if process.poll() is None:
        process.kill()
    process.wait()
