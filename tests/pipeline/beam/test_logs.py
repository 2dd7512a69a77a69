"""Logs that programs read: each shard and dead letter with its rows' ids, on every engine, and no text and no key."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.worker.log_handler import FnApiLogRecordHandler

from pipeline.beam import worker_logs
from pipeline.events import FIELDS, AsJson, Readable, event, redacted
from tests.beam_servers import ROOT, Servers
from tests.run_process import TWO_WORKERS
from tests.tiny_job import make_job, rows

MARKER = "zqxjvwk zqxjvwk"  # of every prompt: stands in no log
KEY = "k7Zp-marker-0123456789"  # of an API, in the environment
TOO_LONG = f"{MARKER} " * 40


def run(job: Path, out: Path, *options: str) -> tuple[str, str]:
    """What ``mpg run`` in a process of its own prints and logs."""
    command = [sys.executable, "-m", "pipeline.cli", "--log-format=json", "run", str(job), "--output", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MARKER_API_KEY": KEY}
    ran = subprocess.run([*command, *options], env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout, ran.stderr


def check(events: list[dict[str, Any]], out: Path) -> None:
    """Every row and dead letter of a data set, and every judgment, is told of, once."""
    written = [each for each in events if each["event"] == "shard_written"]
    ids = [row["row_id"] for row in rows(out)]
    dead = {row["row_id"]: row["reason"] for row in rows(out, "rejected")}
    assert sum(each["rows"] for each in written) == len(ids) and sum(each["rejected"] for each in written) == len(dead)
    assert {each["first"] for each in written} | {each["last"] for each in written} <= {*ids, None}
    assert {each["file"] for each in written if each["rows"]} == {
        path.name for path in (out / ".work" / "generations").glob("*.parquet")
    }
    assert all(each["seconds"] >= 0 and each["range"] for each in written)
    told = [each for each in events if each["event"] == "row_rejected"]
    assert {each["row"]: each["reason"] for each in told} == dead and len(told) == len(dead) > 0
    judged = [each for each in events if each["event"] == "shard_judged"]
    assert sum(each["judgments"] for each in judged) == len(rows(out, "judgments")) > 0
    assert any(each["event"] == "model_loaded" and each["seconds"] >= 0 for each in events)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of four prompts one is too long; in its output's name stands a key."""
    prompts = (f"{MARKER} a", f"{MARKER} b", TOO_LONG, f"{MARKER} c")
    return make_job(tmp_path_factory.mktemp("job"), prompts, max_rejected_fraction=1.0)


@pytest.mark.parametrize(
    "options", [[], pytest.param(TWO_WORKERS, marks=pytest.mark.long)], ids=["in_process", "processes"]
)
def test_a_driver_says_all_of_it_in_json(job: Path, tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / KEY
    printed, logged = run(job, out, *options)
    check([json.loads(line) for line in logged.splitlines()], out)
    assert MARKER.split()[0] not in printed + logged
    assert KEY not in logged and f"output: {tmp_path}/***" in logged


@pytest.mark.long
def test_workers_elsewhere_say_it_where_they_run(servers: Servers, job: Path, tmp_path: Path) -> None:
    """A pool gives its workers no handler: they write to its log."""
    printed, logged = run(job, tmp_path / KEY, *servers.options)
    assert all(json.loads(line) for line in logged.splitlines())
    of_workers = [
        (server.folder / "log.txt").read_text("utf-8", "replace") for server in (servers.pool, servers.service)
    ]
    check([json.loads(line) for line in of_workers[0].splitlines() if line.startswith('{"event": ')], tmp_path / KEY)
    assert MARKER.split()[0] not in printed + logged + "".join(of_workers)
    assert KEY not in logged


# ------------------------------------------------------------------ handlers


class Runner(beam_fn_api_pb2_grpc.BeamFnLoggingServicer):
    """A runner's logging service, as Beam's workers know one."""

    def __init__(self) -> None:
        self.entries: list[beam_fn_api_pb2.LogEntry] = []

    def Logging(self, request_iterator: Any, context: Any) -> Iterator[beam_fn_api_pb2.LogControl]:
        for each in request_iterator:
            self.entries += each.log_entries
        yield from ()


@contextmanager
def worker_of(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process logs as one of Beam's workers does."""
    server = grpc.server(ThreadPoolExecutor(2))
    beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(runner, server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    handler = FnApiLogRecordHandler(endpoints_pb2.ApiServiceDescriptor(url=f"localhost:{port}"))
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [handler])
    monkeypatch.setattr(root, "level", logging.INFO)
    monkeypatch.setattr(worker_logs, "_has_graph", False)
    try:
        worker_logs.log_as_worker()
        yield
    finally:
        handler.close()
        server.stop(None)


def test_a_runner_is_sent_json_and_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam's handler drops what is no message, and sends a trace beside it, past every formatter."""
    monkeypatch.setenv("MARKER_API_KEY", KEY)
    runner, ours, theirs = Runner(), logging.getLogger("pipeline.beam.decode_fn"), logging.getLogger("library")
    monkeypatch.setattr(ours, "level", logging.INFO)
    with worker_of(runner, monkeypatch):
        event(ours, "shard_written", file="a.parquet", rows=4)
        event(ours, "row_rejected", level=logging.DEBUG, message=MARKER)
        theirs.warning("GET https://user:%s@host/?sig=hunter2", "hunter3")
        for logger in (ours, theirs):
            try:
                raise ValueError(f"refused: {KEY}")
            except ValueError:
                logger.exception("a call")
    assert json.loads(runner.entries[0].message) == {
        "event": "shard_written", "file": "a.parquet", "rows": 4, "level": "INFO",
    }  # fmt: skip
    assert runner.entries[1].message == "WARNING: GET https://***@host/?sig=***"
    assert json.loads(runner.entries[2].message)["exception"].endswith("ValueError: refused: ***")
    assert runner.entries[3].message.endswith("ValueError: refused: ***") and len(runner.entries) == 4
    assert not any(each.trace or KEY in str(each) for each in runner.entries)


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return logging.getLogger("pipeline").makeRecord(
        "pipeline", logging.INFO, "file", 1, message, args, None, extra={FIELDS: extra} if extra else None
    )


def test_no_value_of_an_event_has_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARKER_API_KEY", KEY)
    values = json.loads(AsJson().format(record("made: x", event="made", place=f"s3://{KEY}", all=[f"a {KEY}", 1])))
    assert (values["place"], values["all"], values["level"]) == ("s3://***", ["a ***", 1], "INFO")
    assert json.loads(AsJson().format(record("as %s", KEY)))["message"] == "as ***"
    assert Readable().format(record("as %s", KEY)) == "INFO: as ***"


def test_what_only_looks_like_a_secrets_name_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A place that is named, such as that of a file with a key in it, and words too short to be hidden."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    text = f"{tmp_path}/x: no such file"
    assert redacted(text) == text


def test_a_line_that_was_cut_off_is_no_record(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline")
    assert not worker_logs.passed_on('{"event": "shard_wri') and not worker_logs.passed_on("severity: INFO")
    assert worker_logs.passed_on('{"event": "batch_size", "rows": 2, "message": "out of memory", "level": "WARNING"}')
    assert worker_logs.passed_on('{"event": "shard_written", "rows": 2, "level": "INFO"}')
    (first, second) = caplog.records
    assert (first.levelno, first.getMessage(), getattr(first, FIELDS)["rows"]) == (logging.WARNING, "out of memory", 2)
    assert (second.levelno, second.getMessage()) == (logging.INFO, "shard_written: rows 2")
