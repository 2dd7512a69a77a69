"""Waiting for a graph that a runner has, wherever it runs: it has ended well, or one line says why not."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import apache_beam as beam
import grpc
from apache_beam.runners.runner import PipelineState

from pipeline.beam.supervise import GraphFailed

# Name that Beam gives the thread which logs, as the root's, all that a job service says: tracebacks of workers too.
_LISTENER = "wait_until_finish_read"


def run_to_end(pipeline: beam.Pipeline) -> None:
    """Hand the graph to its runner and wait until it has ended.

    Raises:
        GraphFailed: the service that runs it is gone, or says that it was cancelled, say. Else what the graph raises.
    """
    try:
        with _without_its_log():
            state = pipeline.run().wait_until_finish()
    except grpc.RpcError as error:
        why = f"the job service is gone ({error.code().name.lower()}: {error.details()})"
        raise GraphFailed(f"{why}; start it again, the same command goes on from the rows that are written") from error
    if state not in (None, PipelineState.DONE):  # in this process, a result may have no state
        raise GraphFailed(f"the graph has ended as {state}, not as {PipelineState.DONE}; the same command goes on")


@contextmanager
def _without_its_log() -> Iterator[None]:
    """What fails the graph is raised, its traceback in the text: it need not be said twice."""

    def others(record: logging.LogRecord) -> bool:
        return record.threadName != _LISTENER

    root = logging.getLogger()
    root.addFilter(others)
    try:
        yield
    finally:
        root.removeFilter(others)
