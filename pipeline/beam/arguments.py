"""Beam's own options as given, checked before anything is started: what Beam would drop in silence is refused.

Beam's parser reads what it knows and drops the rest, so that a typo runs with the default. Which options there are is
asked of Beam itself, the chosen runner's module included, so that a runner of a later version brings its own.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    _BeamArgumentParser,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator
from apache_beam.runners.runner import PipelineRunner

from personas.words import show
from pipeline.beam.options import DIRECT, beam_options, runner_path
from pipeline.job.errors import did_you_mean

# Runners that are known to keep every row of this graph.
_KNOWN = (DIRECT, "FlinkRunner", "SparkRunner", "PortableRunner", "DataflowRunner")
# Why some others are not among them.
_REFUSED = {
    "PrismRunner": "fetches a program from the network and runs it",
    "DaskRunner": "loses rows without a word",
}
_PROCESSES = "multi_processing"


class _Parser(_BeamArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def argument_problems(arguments: Sequence[str]) -> list[str]:
    """What is wrong with Beam's options; a line for each, with option, value and remedy."""
    parser = _Parser(allow_abbrev=False, add_help=False)
    parser.add_argument("--runner", default=DIRECT)
    try:
        asked = parser.parse_known_args(list(arguments))[0].runner
        runner, problem = _runner(asked)
        if problem is not None:
            return [problem]
        parser = _parser()
        known, unknown = parser.parse_known_args(list(arguments))
    except ValueError as error:
        return [_unreadable(str(error), parser)]
    problems = [*_strangers(unknown, parser), *_out_of_range(known, parser), *_of_direct(known, arguments, runner)]
    return problems or list(_missing(arguments, asked))


def argument_notes(arguments: Sequence[str]) -> list[str]:
    """What is worth a word and no error."""
    options = beam_options(arguments)
    runner, notes = runner_path(options.view_as(StandardOptions).runner or DIRECT).rpartition(".")[2], []
    direct = options.view_as(DirectOptions)
    cores = os.cpu_count() or 1
    if runner == DIRECT and direct.direct_num_workers > cores:
        notes.append(f"--direct_num_workers={direct.direct_num_workers}: this machine has {cores} cores; it is slower")
    if runner not in _KNOWN:
        notes.append(f"--runner={runner}: not a runner that is known here; the run says at its end if rows are missing")
    return notes


def _runner(asked: str) -> tuple[str, str | None]:
    """The runner by its class's name, its module imported so that its options are known; or why it can't be used."""
    path = runner_path(asked)
    name = path.rpartition(".")[2]
    known = {each.rpartition(".")[2] for each in StandardOptions.ALL_KNOWN_RUNNERS}
    if name in _REFUSED:
        return name, f"--runner={asked}: {name} {_REFUSED[name]}; choose from {', '.join(_KNOWN)}"
    if name in known and name not in _KNOWN:
        return name, f"--runner={asked}: {name} is not known to work here; choose from {', '.join(_KNOWN)}"
    if "." not in path:
        return name, f"--runner={asked}: no such runner; {did_you_mean(asked, _KNOWN)}"
    try:
        found: Any = getattr(importlib.import_module(path.rpartition(".")[0]), name)
    except Exception as error:  # a module of somebody else's, at its import
        what = f"can't be imported ({type(error).__name__}: {' '.join(str(error).split())})"
        return name, f"--runner={asked}: {what}; choose from {', '.join(_KNOWN)}, or install what it needs"
    if not (isinstance(found, type) and issubclass(found, PipelineRunner)):
        return name, f"--runner={asked}: is no runner of Beam's; choose from {', '.join(_KNOWN)}"
    return name, None


def _parser() -> _Parser:
    """All options of all classes that are imported."""
    parser = _Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    seen: set[str] = set()
    todo = [PipelineOptions]
    while todo:
        for each in todo.pop().__subclasses__():
            if str(each) not in seen:
                seen.add(str(each))
                todo.append(each)
                if "_add_argparse_args" in each.__dict__:
                    each._add_argparse_args(parser)
    for action in parser._actions:
        action.required = False
    return parser


def _strangers(unknown: Sequence[str], parser: _Parser) -> Iterator[str]:
    options = [name for action in parser._actions for name in action.option_strings]
    value_of_stranger = False
    for each in unknown:
        if each.startswith("-"):
            name, equals, _ = each.partition("=")
            value_of_stranger = not equals
            hint = did_you_mean(name, options)
            if hint.startswith("choose"):  # from 160
                hint = "see the options of Beam and of your runner"
            yield f"{each}: no option of Beam's; {hint}"
        elif value_of_stranger:
            value_of_stranger = False
        else:
            yield f"{each}: belongs to no option; write --option=value"


def _out_of_range(known: argparse.Namespace, parser: _Parser) -> Iterator[str]:
    """Counts below 0, but where that is what the option has by default."""
    for action in parser._actions:
        value = getattr(known, action.dest, None)
        allowed = isinstance(action.default, int) and action.default < 0
        if action.type is int and isinstance(value, int) and value < 0 and not allowed:
            also = " (0: as many as there are cores)" if action.dest == "direct_num_workers" else ""
            yield f"{action.option_strings[-1]}={value}: out of range; give 0 or more{also}"


def _of_direct(known: argparse.Namespace, arguments: Sequence[str], runner: str) -> Iterator[str]:
    """Options of the DirectRunner that would have no effect."""
    given = {each.partition("=")[0] for each in arguments}
    if runner != DIRECT:
        for name in sorted(each for each in given if each.startswith("--direct_")):
            yield f"{name}: an option of {DIRECT}, without effect on {runner}; remove it"
    elif known.direct_num_workers != 1 and known.direct_num_workers >= 0 and known.direct_running_mode == "in_memory":
        remedy = f"add --direct_running_mode={_PROCESSES}"
        if "--direct_running_mode" in given:
            remedy = f"make it --direct_running_mode={_PROCESSES}"
        yield f"--direct_num_workers={known.direct_num_workers}: one worker, in running mode in_memory; {remedy}"


def _missing(arguments: Sequence[str], asked: str) -> Iterator[str]:
    """What Beam itself finds, such as options that a runner needs."""
    from apache_beam.runners.runner import create_runner

    options = beam_options(arguments)
    try:
        found = PipelineOptionsValidator(options, create_runner(runner_path(asked))).validate()
    except Exception as error:  # of a runner that lacks a package
        found = [f"{type(error).__name__}: {' '.join(str(error).split())}"]
    for each in found:
        yield f"--runner={asked}: {' '.join(str(each).split())}"


def _unreadable(message: str, parser: _Parser) -> str:
    """argparse's own words, in the form of this house: `argument --x: invalid int value: 'y'`."""
    _, _, rest = message.partition("argument ")
    name, _, what = rest.partition(": ")
    action = next((each for each in parser._actions if name.split("/")[-1] in each.option_strings), None)
    choices = None if action is None else action.choices
    value = what.rpartition(": ")[2].partition(" (")[0].strip("'") if "invalid" in what else ""
    if choices is not None and value:
        hint = did_you_mean(value, [str(each) for each in choices])
        return f"{name}={value}: not one of its values; {hint}"
    if "invalid" in what:
        kind = "a whole number" if action is not None and action.type is int else "a value of its type"
        return f"{name}={show(value)[1:-1]}: can't be read; give {kind}"
    return f"{name}: {what or message}; write {name}=value"
