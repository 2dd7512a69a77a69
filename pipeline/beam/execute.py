"""The graph run to its end: in this process, or in worker processes under watch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from pipeline.beam import elsewhere
from pipeline.beam.options import beam_options, in_processes, take_hints, without_timeout
from pipeline.beam.progress import ProgressBar
from pipeline.beam.runners import IN_PROCESS, in_process_runner
from pipeline.beam.supervise import KILLED, GraphFailed, WorkerDied, a_worker_is_gone, supervised
from pipeline.beam.wait import ServiceGone, run_to_end
from pipeline.beam.work import Books, Graph, Work
from pipeline.beam.worker_logs import has_graph
from pipeline.exit_status import ExitStatus
from pipeline.plan.errors import RunError
from pipeline.store.errors import OutputError, line_in, readable, refusal_in
from pipeline.store.files import read_text, remove

# Told now and then what workers elsewhere have counted so far.
Seen = Callable[[Mapping[str, int]], object]


def execute(graph: Graph, options: PipelineOptions, seen: Seen | None = None) -> None:
    """Run a graph to its end; what it has counted or found is in the file that it writes last.

    Args:
        seen: told now and then what workers elsewhere have counted so far.

    Raises:
        GraphFailed: a service that runs it has ended it otherwise, or is gone. Else what the graph raises.
    """
    here = options.view_as(StandardOptions).runner == IN_PROCESS
    with reached(options):
        gone = elsewhere.gone(options)
        run_to_end(graph_of(graph, options), gone, None if here else seen, is_elsewhere=not here)


def graph_of(graph: Graph, options: PipelineOptions) -> beam.Pipeline:
    """A graph, ready to be run; what an earlier one has written last is gone. Raises OSError."""
    has_graph()
    remove(graph.last)
    hints = take_hints(options)
    without_timeout(options)
    here = options.view_as(StandardOptions).runner == IN_PROCESS
    pipeline = beam.Pipeline(runner=in_process_runner(options) if here else None, options=options)
    graph.build(pipeline, hints)
    return pipeline


@contextmanager
def reached(options: PipelineOptions) -> Iterator[None]:
    """Name the server that does not answer, before the graph is sent to it or after the graph has failed."""

    def look() -> None:
        for line in elsewhere.unreachable(options):
            raise ServiceGone(f"{line}; the same command goes on from the rows that are written")

    look()
    try:
        yield
    except GraphFailed:
        raise
    except Exception:
        look()
        raise


def run(work: Work, arguments: Sequence[str]) -> Books:
    """Decode and judge, and return what was counted.

    Args:
        arguments: Beam's own options.

    Raises:
        As :func:`run_graph`.
    """
    phases = [("decode", "decoding", work.n_cells), ("judge", "judging", work.n_to_judge)]
    with ProgressBar(work.ticks, phases) as bar:
        return Books(**run_graph(work, arguments, bar.seen))


def run_graph(graph: Graph, arguments: Sequence[str], seen: Seen | None = None) -> dict[str, Any]:
    """Run a graph to its end, and return what is in the file that it has written last.

    Raises:
        OutputError: the output can't be written. WorkerDied: a worker process is gone. GraphFailed: any other error.
        RunError: a model can't be loaded, which no later run cures.
    """
    options = beam_options(arguments)
    if in_processes(options):
        supervised(graph, arguments)
    else:
        with raised_in_a_line():
            execute(graph, options, seen)
    try:
        return dict(json.loads(read_text(graph.last)))
    except FileNotFoundError:
        place, why = graph.last.parent, "give an output that workers and this process see"
        raise GraphFailed(f"output: the workers have written to another {place} than this; {why}") from None


@contextmanager
def raised_in_a_line() -> Iterator[None]:
    """What a graph raises, as :func:`run` raises it."""
    try:
        yield
    except GraphFailed:
        raise
    except Exception as error:
        line, refusal = line_in(error), refusal_in(error)
        if refusal is not None:
            raise RunError(refusal, ExitStatus.BAD_INPUT) from None
        if line is None and a_worker_is_gone(str(error)):
            raise WorkerDied(f"a worker process {KILLED}") from error
        if line is None:
            raise GraphFailed(f"{readable(error)}\n{error}") from error
        raise OutputError(line) from None
