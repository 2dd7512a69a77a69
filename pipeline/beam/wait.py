"""Waiting for a graph that a runner has, wherever it runs: it has ended well, or one line says why not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import apache_beam as beam
import grpc
from apache_beam.runners.runner import PipelineState

from pipeline.beam.supervise import GraphFailed
from pipeline.exit_status import ExitStatus

# Name that Beam gives the thread which logs, as the root's, all that a job service says: tracebacks of workers too.
_LISTENER = "wait_until_finish_read"


class ServiceGone(GraphFailed):
    """A service that ran the graph no longer answers; what is written is kept."""

    status = ExitStatus.TRY_AGAIN


def run_to_end(pipeline: beam.Pipeline) -> None:
    """Hand the graph to its runner and wait until it has ended.

    Raises:
        GraphFailed: the service that runs it is gone (ServiceGone), or says that it was cancelled, say. Else what the
            graph raises.
    """
    try:
        with _without_its_log():
            state = pipeline.run().wait_until_finish()
    except grpc.RpcError as error:
        why = f"the job service is gone ({error.code().name.lower()}: {error.details()})"
        raise ServiceGone(f"{why}; start it again, the same command goes on from the rows that are written") from error
    if state not in (None, PipelineState.DONE):  # in this process, a result may have no state
        raise GraphFailed(f"the graph has ended as {state}, not as {PipelineState.DONE}; the same command goes on")


@contextmanager
def _without_its_log() -> Iterator[None]:
    """What fails the graph is raised, its traceback in the text: it need not be said twice, nor how a thread ended."""
    root, before = logging.getLogger(), threading.excepthook

    def others(record: logging.LogRecord) -> bool:
        return record.threadName != _LISTENER

    def of_others(ended: threading.ExceptHookArgs) -> None:
        if ended.thread is None or ended.thread.name != _LISTENER:
            before(ended)

    root.addFilter(others)
    threading.excepthook = of_others
    try:
        yield
    finally:
        threading.excepthook = before
        root.removeFilter(others)
