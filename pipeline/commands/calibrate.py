"""``mpg calibrate``: strengths by attribute from a pilot, within a budget of perplexity, put into the job file."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mpg.settings import MOST_STRENGTH
from pipeline.commands.arguments import place
from pipeline.commands.shared import InputError, Outcome, job_of, looked_at, place_errors
from pipeline.job.write_back import NotWritable, comment_lines, in_one_line
from pipeline.store.files import write_bytes
from pipeline.store.places import is_local

if TYPE_CHECKING:
    from pipeline.calibrate.job_file import JobFile
    from pipeline.calibrate.run import Asked
    from pipeline.job.model import Job

logger = logging.getLogger(__name__)

FILE = "calibration.json"
_GRID = "0.5,1,1.5,2"
_LEAST_TEXTS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options, beside the job file."""
    parser.add_argument("--perplexity", type=float, default=1.05, metavar="TIMES",
                        help="budget: the largest perplexity, as times the base's (1.05)")  # fmt: skip
    parser.add_argument("--base", choices=("reference", "prompting"), default="reference",
                        help="whose: the bare reference's, or the reference's told of each attribute")  # fmt: skip
    parser.add_argument("--strengths", default=_GRID, metavar="S,S,...",
                        help=f"that each attribute alone is tried at ({_GRID})")  # fmt: skip
    parser.add_argument("--texts", type=int, default=40, metavar="N",
                        help="of each attribute and strength, on half of the job's prompts; and on the other half of "
                        "each persona (40)")  # fmt: skip
    parser.add_argument("--lift", type=float, metavar="SCORE",
                        help="wanted of each attribute; left out: the most that all have in the budget")  # fmt: skip
    parser.add_argument("--before", action="store_true", help="check the strengths that the job has, too")
    parser.add_argument("--write", action="store_true",
                        help="put the strengths into the job file, under a comment with date and curve")  # fmt: skip
    parser.add_argument("--output", dest="work", type=place, metavar="DIR",
                        help="folder of its texts; left out: the job's, with -calibration behind")  # fmt: skip


def calibrate(options: argparse.Namespace) -> Outcome:
    """Write the pilot, or go on with it; choose, check, and write the strengths where that is asked for.

    Raises:
        InputError, RunError: before a model is loaded where that can be known.
    """
    asked = _asked(options)
    job, prompts = job_of(options)
    from pipeline.calibrate.run import calibrate as run
    from pipeline.calibrate.stages import problems_in
    from pipeline.calibrate.tables import comment, record, report

    problems = [f"{options.job}: {each.field}: {each.text}" for each in problems_in(job, len(prompts))]
    if problems:
        raise InputError("\n".join(problems))
    file = _file(options, job) if options.write else None
    work = options.work or job.output_folder.with_name(f"{job.output_folder.name}-calibration")
    if not is_local(work):
        raise InputError(
            f"{options.job}: output: {job.output!r} is in a store; name a folder of this machine: --output"
        )
    lowest = next((each for each in (work, *work.parents) if os.path.lexists(each)), work)
    if os.path.lexists(lowest) and not os.path.isdir(lowest):
        raise InputError(f"{work}: {lowest} is no folder, and texts go into one; name another: --output")
    for note in looked_at(options, job.changed(output=str(work.absolute() / "look")), prompts).notes:
        logger.warning("%s", note)
    found = run(job, asked, work.absolute(), options.beam_arguments, interruptible=True)
    date, command = f"{datetime.now(UTC):%Y-%m-%d}", _command(options)
    with place_errors(work, read=False, kept="all texts are"):
        kept = json.dumps(record(found, asked, command, date), indent=2) + "\n"
        write_bytes(kept.encode(), work / FILE)
    lines = [report(found, asked)]
    if found.machines:
        lines.append(f"on {'; '.join(found.machines)}; {work / FILE}")
    if found.choice.lift is None:
        return Outcome("\n".join(lines), f"{options.job}: nothing is chosen, and nothing is written; see the notes")
    said = comment(found, asked, command, date)
    if file is not None:
        _write(options, file, found.strengths, said)
        lines.append(f"written: {file.named}: decoder.strength, with its curve")
    else:
        inside = ", ".join(f"{name}: {strength:.15g}" for name, strength in found.strengths.items())
        lines += ["for the job file (or --write):", *comment_lines(said)]
        lines += ["decoder:", f"  strength: {{{inside}}}"]
    return Outcome("\n".join(lines))


def _asked(options: argparse.Namespace) -> Asked:
    """What the options ask for. Raises InputError: one is out of range."""
    from pipeline.calibrate.run import Asked

    if not (options.perplexity > 1 and math.isfinite(options.perplexity)):
        raise InputError(f"--perplexity: {options.perplexity:g} is no budget; give a number above 1, e.g. 1.05")
    if options.texts < _LEAST_TEXTS:
        raise InputError(f"--texts: {options.texts} is out of range; give {_LEAST_TEXTS} at least, for an interval")
    if options.lift is not None and not 0 < options.lift <= 1:
        raise InputError(f"--lift: {options.lift:g} is out of range; scores are from 0 to 1; give e.g. 0.2")
    try:
        grid = tuple(sorted({float(each) for each in options.strengths.split(",")}))
    except ValueError:
        grid = ()
    if not grid or not all(0 < each <= MOST_STRENGTH for each in grid):
        raise InputError(f"--strengths: {options.strengths!r}: give numbers above 0 in commas, e.g. {_GRID}")
    return Asked(options.perplexity, options.base, grid, options.texts, options.lift, options.before)


def _file(options: argparse.Namespace, job: Job) -> JobFile:
    """Of the job, if strengths can be put into it. Raises InputError: they can't be."""
    from pipeline.calibrate.job_file import JobFile

    try:
        return JobFile.of(options.job, job, [_command(options)])
    except NotWritable as error:
        raise InputError(f"{options.job}: {error}, or leave out --write for the lines") from error


def _write(options: argparse.Namespace, file: JobFile, strengths: Mapping[str, float], comment: Sequence[str]) -> None:
    """Raises InputError: somebody has changed the file since. NotNow: it can't be written now."""
    with place_errors(file.path, read=False, kept="the same command writes it, and makes no text anew"):
        try:
            file.write(strengths, comment)
        except NotWritable as error:
            raise InputError(f"{options.job}: {error}") from error


def _command(options: argparse.Namespace) -> str:
    """As it was given, without where its output goes on this machine."""
    words = ["mpg", "calibrate", str(options.job), "--perplexity", f"{options.perplexity:g}"]
    words += ["--base", options.base] if options.base != "reference" else []
    words += ["--strengths", options.strengths] if options.strengths != _GRID else []
    words += ["--texts", str(options.texts)]
    words += ["--lift", f"{options.lift:g}"] if options.lift is not None else []
    words += ["--before"] if options.before else []
    return command_line([*words, *(word for each in options.set for word in ("--set", each))])


def command_line(words: Sequence[str]) -> str:
    """Words as a shell reads them, on one line."""
    return " ".join(shlex.quote(word) if in_one_line(word) == word else _escaped(word) for word in words)


def _escaped(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{in_one_line(escaped)}'"
