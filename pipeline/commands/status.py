"""``mpg status`` and ``mpg stop``: how far a run is, and an end to it, from any machine that reaches its output."""

from __future__ import annotations

import argparse
import socket
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.commands.arguments import anywhere
from pipeline.commands.shared import InputError, NotNow, Outcome

if TYPE_CHECKING:
    from pipeline.store.detached import Detached
    from pipeline.store.state import State

_LOOK_EVERY_S = 2.0  # whether a detached job has ended


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``mpg status``."""
    parser.add_argument("output", metavar="DIR", type=anywhere, help="a run's output: a folder, or s3://..., gs://...")


def add_stop_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``mpg stop``."""
    parser.add_argument("output", metavar="DIR", type=anywhere, help="a run's output: a folder, or s3://..., gs://...")
    parser.add_argument("--wait", action="store_true", help="come back once nobody works there any more")


def status(options: argparse.Namespace) -> Outcome:
    """Say how far it is.

    Raises:
        InputError: no run has an output there. NotNow: it can't be read.
    """
    state = _state(options.output)
    detached = None if state.detached is None else _detached(state.detached, options.output)
    return Outcome(_shown(state, detached, options.output), facts=asdict(state) | {"detached": detached})


def stop(options: argparse.Namespace) -> Outcome:
    """Ask whoever works there to finish the rows in flight and end.

    Raises:
        InputError: no run has an output there. NotNow: it can't be read or written.
    """
    from pipeline.store.dataset import WORK_FOLDER
    from pipeline.store.look import holder
    from pipeline.store.stop import StopFile

    output: Path = options.output
    state = _state(output)
    detached = None if state.detached is None else _detached(state.detached, output)
    is_over = detached is None or detached["is_over"] is True
    if state.at_work is None and is_over:
        return Outcome(f"nobody works in {output}: there is nothing to stop")
    try:
        StopFile.of(output / WORK_FOLDER).request(f"mpg stop on {socket.gethostname()}")
        while options.wait and holder(output, wait=True) is not None:
            pass
        while options.wait and detached is not None and detached["is_over"] is False:
            time.sleep(_LOOK_EVERY_S)
            detached = None if state.detached is None else _detached(state.detached, output)
    except OSError as error:
        raise NotNow(f"{output}: {error.strerror or error}; see to it that it can be written") from error
    who = state.at_work or f"the job detached to {detached['where'] if detached else ''}"
    asked = f"{who} is asked to stop: rows in flight are finished and written"
    has_ended = options.wait and (detached is None or detached["is_over"] is True)
    ended = "it has ended" if has_ended else "mpg status says when it has ended"
    then = "the same mpg run goes on" if detached is None else f"mpg finish {output} shows what there is"
    return Outcome(f"{asked}; {ended}, and {then}")


def _state(output: Path) -> State:
    from pipeline.store.state import is_output, state_of

    try:
        if not is_output(output):
            raise InputError(f"{output}: no run has its output there; give the output of mpg run")
        return state_of(output)
    except OSError as error:
        raise NotNow(f"{output}: {error.strerror or error}; see to it that it can be read") from error


def _detached(job: Detached, output: Path) -> dict[str, Any]:
    """What is to be said of a detached job; its service is asked. Raises NotNow: the output can't be read."""
    from pipeline.quiet import quiet_libraries

    quiet_libraries()
    from pipeline.beam.at_work import moment
    from pipeline.beam.detached import place_of, standing
    from pipeline.store.dataset import WORK_FOLDER

    try:
        found = standing(output / WORK_FOLDER, job)
    except OSError as error:
        raise NotNow(f"{output}: {error.strerror or error}; see to it that it can be read") from error
    return {
        "where": place_of(job),
        "since": moment(job.submitted),
        "until": None if job.until is None else moment(job.until.at),
        "is_over": found.is_over,
        "state": found.words,
    }


def _shown(state: State, detached: dict[str, Any] | None, output: Path) -> str:
    of = "" if state.planned is None else f" of {state.planned}"
    lines = [
        f"output: {output}",
        "data set: none that is complete" if state.rows is None else f"data set: {state.rows} rows, {state.ended}",
        f"written: {state.written}{of} rows, in {state.shards} shards; {state.rejected} rejected",
    ]
    if detached is None or state.at_work is not None:
        lines.append(f"at work: {state.at_work or 'nobody'}")
    if detached is not None:
        until = "" if detached["until"] is None else f" until {detached['until']}"
        then = f"; mpg finish {output}" if detached["is_over"] is True else ""
        lines.append(f"detached: {detached['where']}, since {detached['since']}{until}: {detached['state']}{then}")
    return "\n".join(lines if state.stop is None else [*lines, f"stop: {state.stop}"])
