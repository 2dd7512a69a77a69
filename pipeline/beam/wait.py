"""Waiting for a graph that a runner has, wherever it runs: it has ended well, or one line says why not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.runners.runner import PipelineState

from pipeline.beam.metrics import counts_of
from pipeline.beam.supervise import GraphFailed
from pipeline.events import redacted
from pipeline.exit_status import ExitStatus
from pipeline.store.errors import readable
from pipeline.store.stop import before_it_ends_at_once

logger = logging.getLogger(__name__)

# Name that Beam gives the thread which logs, as the root's, all that a job service says: tracebacks of workers too.
_LISTENER = "wait_until_finish_read"
# How long it may take to end once the graph has, in seconds.
_LISTENER_ENDS_S = 2.0
# How often it is asked whether what the runner needs is gone, in seconds.
_EVERY_S = 2.0


class ServiceGone(GraphFailed):
    """A service that ran the graph no longer answers; what is written is kept."""

    status = ExitStatus.TRY_AGAIN


def run_to_end(
    pipeline: beam.Pipeline,
    gone: Callable[[], str | None] | None = None,
    seen: Callable[[Mapping[str, int]], object] | None = None,
    *,
    is_elsewhere: bool = False,
) -> None:
    """Hand the graph to its runner and wait until it has ended.

    Args:
        gone: asked now and then while it runs: what the runner needs and is gone, which it may not notice; or ``None``.
        seen: told as often what has been counted so far (:mod:`pipeline.beam.metrics`).
        is_elsewhere: whether it would go on without this process: it is cancelled where this one is ended at once.

    Raises:
        GraphFailed: the service that runs it, or what that needs, is gone (ServiceGone), or it was cancelled, say.
            Else what the graph raises.
    """
    try:
        with _without_its_log():
            result = pipeline.run()
            with _cancelled_with_this(result) if is_elsewhere else nullcontext():
                state = _ended(result, gone, seen)
    except grpc.RpcError as error:
        raise _gone(f"the job service is gone ({error.code().name.lower()}: {error.details()})") from error
    except Exception as error:
        first, _, rest = str(error).partition("\n")
        if rest.strip() != "None":
            raise
        raise GraphFailed(f"{first.rstrip(':')}: no reason was given; the job's page has its messages") from error
    if state not in (None, PipelineState.DONE):  # in this process, a result may have no state
        raise GraphFailed(f"the graph has ended as {state}, not as {PipelineState.DONE}; the same command goes on")


def _ended(
    result: Any, gone: Callable[[], str | None] | None, seen: Callable[[Mapping[str, int]], object] | None
) -> Any:
    """The state in which a graph has ended."""
    if gone is None and seen is None:
        return result.wait_until_finish()
    state: Future[Any] = Future()

    def wait() -> None:
        try:
            state.set_result(result.wait_until_finish())
        except BaseException as error:
            state.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    while True:
        with suppress(TimeoutError):
            return state.result(timeout=_EVERY_S)
        if seen is not None:
            with suppress(Exception):  # a service may have no counts yet, or none at all: the run goes on
                seen(counts_of(result))
        why = gone() if gone is not None else None
        if why is not None:
            with suppress(grpc.RpcError):
                result.cancel()
            raise _gone(why)


@contextmanager
def _cancelled_with_this(result: Any) -> Iterator[None]:
    """Whoever ends this process at once, or what it waits in, ends the graph too: nobody would come back for it."""

    def cancel() -> str:
        try:
            result.cancel()
        except Exception as error:
            why = error.details() if isinstance(error, grpc.Call) else readable(error)
            return f"its job could not be cancelled and goes on ({redacted(str(why))})"
        return "its job is cancelled"

    with before_it_ends_at_once(cancel):
        try:
            yield
        except KeyboardInterrupt:
            logger.warning("%s", cancel())
            raise


def _gone(why: str) -> ServiceGone:
    return ServiceGone(f"{why}; start it again, the same command goes on from the rows that are written")


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
        for thread in threading.enumerate():
            if thread.name == _LISTENER:  # it learns of the end a moment later than who waits
                thread.join(_LISTENER_ENDS_S)
        threading.excepthook = before
        root.removeFilter(others)
