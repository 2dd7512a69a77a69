"""``mpg status`` and ``mpg stop``: how far a run is, and an end to it, from any machine that reaches its output."""

from __future__ import annotations

import argparse
import json
import socket
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.commands.arguments import anywhere
from pipeline.commands.shared import InputError, NotNow, Outcome

if TYPE_CHECKING:
    from pipeline.store.state import State


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``mpg status``."""
    parser.add_argument("output", metavar="DIR", type=anywhere, help="a run's output: a folder, or s3://..., gs://...")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")


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
    return Outcome(json.dumps(asdict(state), indent=2) if options.json else _shown(state, options.output))


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
    if state.at_work is None:
        return Outcome(f"nobody works in {output}: there is nothing to stop")
    try:
        StopFile.of(output / WORK_FOLDER).request(f"mpg stop on {socket.gethostname()}")
        while options.wait and holder(output, wait=True) is not None:
            pass
    except OSError as error:
        raise NotNow(f"{output}: {error.strerror or error}; see to it that it can be written") from error
    asked = f"{state.at_work} is asked to stop: rows in flight are finished and written"
    ended = "it has ended" if options.wait else "mpg status says when it has ended"
    return Outcome(f"{asked}; {ended}, and the same mpg run goes on")


def _state(output: Path) -> State:
    from pipeline.store.state import is_output, state_of

    try:
        if not is_output(output):
            raise InputError(f"{output}: no run has its output there; give the output of mpg run")
        return state_of(output)
    except OSError as error:
        raise NotNow(f"{output}: {error.strerror or error}; see to it that it can be read") from error


def _shown(state: State, output: Path) -> str:
    of = "" if state.planned is None else f" of {state.planned}"
    lines = [
        f"output: {output}",
        "data set: none that is complete" if state.rows is None else f"data set: {state.rows} rows, {state.ended}",
        f"written: {state.written}{of} rows, in {state.shards} shards; {state.rejected} rejected",
        f"at work: {state.at_work or 'nobody'}",
    ]
    return "\n".join(lines if state.stop is None else [*lines, f"stop: {state.stop}"])
