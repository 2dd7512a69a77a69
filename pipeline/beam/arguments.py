"""Beam's own options as given, checked before anything is started: what Beam would drop in silence is refused.

Beam's parser reads what it knows and drops the rest, so that a typo runs with the default. Which options there are is
asked of Beam itself, the chosen runner's module included, so that a runner of a later version brings its own.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Iterator, Sequence
from typing import NoReturn

from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    _BeamArgumentParser,
)
from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

from personas.words import show
from pipeline.beam import elsewhere
from pipeline.beam.options import beam_options, hints_of
from pipeline.beam.owners import UNFIT, owners
from pipeline.beam.runners import DIRECT, KNOWN, Runner, Workers, runner_of
from pipeline.job.errors import did_you_mean

_PROCESSES = "multi_processing"


class _Unreadable(ValueError):
    """What argparse says of a command line."""


class _Parser(_BeamArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Unreadable(message)


def argument_problems(arguments: Sequence[str]) -> list[str]:
    """What is wrong with Beam's options; a line for each, with option, value and remedy."""
    parser = _named()
    try:
        runner = runner_named(arguments)
        parser, owner = _parser()
        known, unknown = parser.parse_known_args(list(arguments))
    except _Unreadable as error:
        return [_unreadable(str(error), parser)]
    except ValueError as error:
        return [str(error)]
    problems = [*_strangers(unknown, parser), *_without_effect(arguments, runner, owner, parser)]
    problems += [*_out_of_range(known, parser), *_of_direct(known, arguments, runner)]
    if not problems:  # from here on Beam's own parser reads them
        problems += _hints(arguments)
        problems += elsewhere.problems_of(beam_options(arguments), runner)
    return problems or list(_missing(arguments, runner))


def argument_notes(arguments: Sequence[str]) -> list[str]:
    """What is worth a word and no error."""
    options, runner = beam_options(arguments), runner_named(arguments)
    notes, direct = elsewhere.notes_of(options, runner), options.view_as(DirectOptions)
    cores = os.cpu_count() or 1
    if runner.name == DIRECT and direct.direct_num_workers > cores:
        notes.append(f"--direct_num_workers={direct.direct_num_workers}: this machine has {cores} cores; it is slower")
    if runner.name not in KNOWN:
        notes.append(
            f"--runner={runner.name}: not a runner that is known here; the run says at its end if rows are missing"
        )
    return notes


def look_at(arguments: Sequence[str], output: str) -> tuple[list[str], list[str], list[str]]:
    """All that can be known of Beam's options before a run.

    Args:
        output: where the job writes, as its file has it.

    Returns:
        what is wrong; servers that don't answer; notes: lines each.
    """
    problems = argument_problems(arguments)
    if problems:
        return problems, [], []
    runner = runner_named(arguments)
    return (
        elsewhere.output_problems(output, runner),
        unreachable(arguments),
        [*argument_notes(arguments), *elsewhere.output_notes(output, beam_options(arguments), runner)],
    )


def unreachable(arguments: Sequence[str]) -> list[str]:
    """Servers that a run with these options, in which nothing is wrong, has to reach and that do not answer now."""
    return elsewhere.unreachable(beam_options(arguments))


def _named() -> _Parser:
    parser = _Parser(allow_abbrev=False, add_help=False)
    parser.add_argument("--runner", default=DIRECT)
    return parser


def runner_named(arguments: Sequence[str]) -> Runner:
    """The runner that Beam's options ask for. Raises ValueError: one line: it can't be used."""
    return runner_of(_named().parse_known_args(list(arguments))[0].runner)


def _parser() -> tuple[_Parser, dict[str, str]]:
    """All options of all classes that are imported, and the name of each one's class."""
    parser, owner = _Parser(allow_abbrev=False, add_help=False, conflict_handler="resolve"), dict[str, str]()
    seen: set[str] = set()
    todo = [PipelineOptions]
    while todo:
        for each in todo.pop().__subclasses__():
            if str(each) not in seen:
                seen.add(str(each))
                todo.append(each)
                if "_add_argparse_args" in each.__dict__:
                    n = len(parser._actions)
                    each._add_argparse_args(parser)
                    owner |= {name: each.__name__ for act in parser._actions[n:] for name in act.option_strings}
    for action in parser._actions:
        action.required = False
    return parser, owner


def options_of_beam() -> dict[str, argparse.Action]:
    """Beam's options as they are written (``--num_workers``), each with its type, choices and help."""
    return {name: action for action in _parser()[0]._actions for name in action.option_strings}


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
    """Counts below 0, or below what the option has by default."""
    for action in parser._actions:
        value = getattr(known, action.dest, None)
        least = min(0, action.default) if isinstance(action.default, int) else 0
        if action.type is int and isinstance(value, int) and value < least:
            also = " (0: as many as there are cores)" if action.dest == "direct_num_workers" else ""
            yield f"{action.option_strings[-1]}={value}: out of range; give {least} or more{also}"


def _without_effect(arguments: Sequence[str], runner: Runner, owner: dict[str, str], parser: _Parser) -> Iterator[str]:
    """Options of another runner, and those with which no job of this kind can be run."""
    given = {each.partition("=")[0] for each in arguments if each.startswith("-")}
    canonical = {name: action.dest for action in parser._actions for name in action.option_strings}
    for name in sorted(given & canonical.keys()):
        whose = owners(owner.get(name, ""), canonical[name])
        if name in UNFIT:
            yield f"{name}: {UNFIT[name]}; remove it"
        elif whose is not None and runner.workers is not Workers.UNKNOWN and runner.name not in whose:
            of = f"an option of {', '.join(whose)}" if whose else "an option of a runner that is refused"
            yield f"{name}: {of}, without effect on {runner.name}; remove it"


def _of_direct(known: argparse.Namespace, arguments: Sequence[str], runner: Runner) -> Iterator[str]:
    """Workers that would not be there."""
    given = {each.partition("=")[0] for each in arguments}
    if runner.name != DIRECT:
        return
    if known.direct_num_workers != 1 and known.direct_num_workers >= 0 and known.direct_running_mode == "in_memory":
        remedy = f"add --direct_running_mode={_PROCESSES}"
        if "--direct_running_mode" in given:
            remedy = f"make it --direct_running_mode={_PROCESSES}"
        yield f"--direct_num_workers={known.direct_num_workers}: one worker, in running mode in_memory; {remedy}"


def _hints(arguments: Sequence[str]) -> Iterator[str]:
    """A resource hint that Beam would not read."""
    try:
        hints_of(beam_options(arguments))
    except ValueError as error:
        yield f"--resource_hint: {str(error).rstrip('.').lower()}; write accelerator=..., min_ram=16GB or cpu_count=4"


def _missing(arguments: Sequence[str], runner: Runner) -> Iterator[str]:
    """What Beam itself finds, such as options that a runner needs."""
    from apache_beam.runners.runner import create_runner

    options = beam_options(arguments)
    try:
        if runner.workers is Workers.DATAFLOW:
            importlib.import_module("apache_beam.runners.dataflow.internal.apiclient")
        found = PipelineOptionsValidator(options, create_runner(runner.path)).validate()
    except ImportError as error:
        extra = "; pip install 'mpg-scr[gcp]'" if runner.workers is Workers.DATAFLOW else ""
        found = [f"lacks a package ({' '.join(str(error).split())}){extra}"]
    except Exception as error:  # of a runner of somebody else's
        found = [f"{type(error).__name__}: {' '.join(str(error).split())}"]
    for each in found:
        yield f"--runner={runner.asked}: {' '.join(str(each).split())}"


def _unreadable(message: str, parser: _Parser) -> str:
    """argparse's own words, in the form of this house: `argument --x: invalid int value: 'y'`."""
    _, _, rest = message.partition("argument ")
    name, _, what = rest.partition(": ")
    action = next((each for each in parser._actions if name.split("/")[-1] in each.option_strings), None)
    choices = None if action is None else action.choices
    value = what.rpartition(": ")[2].partition(" (")[0].strip("'") if "invalid" in what else ""
    if "ignored explicit argument" in what:
        return f"{name}: takes no value; write {name} alone, or remove it"
    if choices is not None and value:
        hint = did_you_mean(value, [str(each) for each in choices])
        return f"{name}={value}: not one of its values; {hint}"
    if "invalid" in what:
        kind = "a whole number" if action is not None and action.type is int else "a value of its type"
        return f"{name}={show(value)[1:-1]}: can't be read; give {kind}"
    return f"{name}: {what or message}; write {name}=value"
