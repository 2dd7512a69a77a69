"""The logs of workers, from the process that writes a record to whoever looks after the run.

Beam's handler of a worker sends a record's message and drops its other attributes (2.77 has ``LogEntry.custom_data``
and does not fill it), so what this project logs there *is* a JSON object: on Dataflow in Cloud Logging, on Flink and
Spark in the task managers' logs. A pool of workers gives those that it starts no handler at all: they write to stderr,
the pool's. Worker processes of this machine are the graph process's, which hands their lines to the driver.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.log_handler import FnApiLogRecordHandler
from google.protobuf import text_format

from pipeline.events import FIELDS, MESSAGE, OURS, AsJson, Readable, words_of

logger = logging.getLogger(__name__)

_BEGIN = '{"event": '
_has_graph = False


def has_graph() -> None:
    """This process makes a graph and hands it over: its handlers are its own, though workers may be in it."""
    global _has_graph
    _has_graph = True


def log_as_worker() -> None:
    """In a process that a runner has started for workers: what this project logs is JSON, and nothing is secret."""
    root = logging.getLogger()
    if _has_graph or any(isinstance(each.formatter, _OfWorker) for each in root.handlers):
        return
    if not any(isinstance(each, FnApiLogRecordHandler) for each in root.handlers):  # with it, Beam's options set levels
        if not root.handlers:
            root.addHandler(logging.StreamHandler(sys.stderr))
        for name in OURS:
            logging.getLogger(name).setLevel(logging.INFO)
    for handler in root.handlers:
        handler.setFormatter(_OfWorker())
        handler.addFilter(_trace_in_message)


class _OfWorker(AsJson):
    """What this project logs as JSON; when, and how grave it is, stands beside it. Another record for people."""

    def format(self, record: logging.LogRecord) -> str:
        if record.name.split(".")[0] not in OURS:
            return Readable.format(self, record)
        return self.line(self.values(record) | {"level": record.levelname})


def _trace_in_message(record: logging.LogRecord) -> bool:
    """Where it is redacted: Beam's handler would send it beside the message, as it is."""
    if record.exc_info:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
    return True


# ------------------------------------------------------------------ worker processes of this machine


class OfGraphProcess(logging.Handler):
    """Writes what :func:`passed_on` reads: what this project logs, here and in workers; beside it, libraries' warnings.

    Beam logs here what its workers have sent, as the text of a ``LogEntry``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ours, self._others = _OfWorker(), Readable(logging.BASIC_FORMAT)

    def emit(self, record: logging.LogRecord) -> None:
        entry = _entry(record.getMessage())
        if entry is not None and entry.message.startswith(_BEGIN):
            print(entry.message, flush=True)
        elif record.name.split(".")[0] in OURS:
            print(self._ours.format(record), flush=True)
        elif record.levelno >= logging.WARNING:
            print(self._others.format(record), flush=True)


def log_as_graph_process() -> None:
    """In the process that a graph with worker processes runs in."""
    root = logging.getLogger()
    root.handlers[:] = [OfGraphProcess()]
    root.setLevel(logging.INFO)


def _entry(text: str) -> beam_fn_api_pb2.LogEntry | None:
    text = text.removeprefix("Worker: ")
    if not text.startswith("severity: "):
        return None
    try:
        return text_format.Parse(text, beam_fn_api_pb2.LogEntry())
    except text_format.ParseError:
        return None


def passed_on(line: str) -> bool:
    """Log here what a worker process has logged; whether the line was such a record."""
    if not line.startswith(_BEGIN):
        return False
    try:
        values: dict[str, Any] = dict(json.loads(line))
    except ValueError:  # cut off, as its process was killed
        return False
    name, level = str(values["event"]), logging.getLevelNamesMapping().get(values.pop("level", ""), logging.INFO)
    rest = {key: value for key, value in values.items() if key != "event"}
    said = values.get("message") or words_of(name, rest)
    logger.log(level, "%s", said, extra={} if name == MESSAGE else {FIELDS: values})
    return True
