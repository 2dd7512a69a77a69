"""``mpg compare``: methods x tasks x strengths on the same prompts and seeds, measured and tabled."""

from __future__ import annotations

import argparse
import logging
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pipeline.commands.arguments import place
from pipeline.commands.shared import InputError, Outcome, looked_at, place_errors
from pipeline.job.errors import JobError

if TYPE_CHECKING:
    from pipeline.compare.model import Comparison

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("comparison", metavar="FILE.yaml", help="the comparison file")
    parser.add_argument("--set", metavar="FIELD=VALUE", action="append", default=[],
                        help="override a field, e.g. --set screening.texts=20 (may be repeated)")  # fmt: skip
    parser.add_argument("--output", dest="output_folder", type=place, metavar="DIR",
                        help="folder of all that it writes, from where you stand; left out: the file's")  # fmt: skip
    parser.add_argument("--check", action="store_true", help="say what it would write, and what is missing; no more")


def compare(options: argparse.Namespace) -> Outcome:
    """Run the comparison, or go on with it. Raises InputError, RunError."""
    from pipeline.compare.load import load_comparison
    from pipeline.compare.tasks import tasks_of

    options.job = options.comparison  # what lines begin with
    try:
        comparison = load_comparison(options.comparison, options.set, output=options.output_folder)
    except JobError as error:
        raise InputError("\n".join(error.lines)) from error
    from pipeline.compare.checks import missing

    if options.check:
        if not missing(comparison):
            tasks_of(comparison)  # whether there are prompts enough for both stages
        return Outcome(_check(comparison, options.comparison))
    from pipeline.compare.run import compare as run
    from pipeline.compare.tables import Made
    from pipeline.compare.write import write_tables

    absent = missing(comparison)
    if absent:
        raise InputError("\n".join(f"{options.comparison}: {line}" for line in absent))
    _look(options, comparison)
    logger.info("output: %s", comparison.output_folder)
    results = run(comparison, options.beam_arguments, interruptible=True)
    made = Made(_command(options), "; ".join(results.machines), f"{datetime.now(UTC):%Y-%m-%d}")
    with place_errors(comparison.output_folder, read=False, kept="all arms are"):
        written = write_tables(comparison, results, made)
    lines = [f"{len(results.arms)} arms, {len(results.differences)} comparisons at equal perplexity"]
    return Outcome("\n".join([*lines, *(f"written: {path}" for path in written)]))


def _look(options: argparse.Namespace, comparison: Comparison) -> None:
    """Look at each task's job, and at adapters of methods' own, before a model is loaded. Raises InputError."""
    from pipeline.compare.arms import Stage, job_of, personas_of, points_of, weighed

    for task in comparison.tasks:
        job = job_of(comparison, task, stage=Stage("look", 0, task.prompts.limit or 1_000, 1))
        looked_at(options, job, job.load_prompts())
    for method in comparison.scored:
        for task in comparison.tasks if method.attributes or method.models else ():
            names = weighed(job_of(comparison, task)), personas_of(comparison, task)
            point = next(points_of(method, *names), None)
            if point is not None:
                job = job_of(comparison, task, point, Stage("look", 0, 1, 1))
                looked_at(options, job, job.load_prompts(), where=f"method {method.name!r}: ")
                break  # the same adapters for all tasks


def _check(comparison: Comparison, file: str) -> str:
    """What it would write."""
    from pipeline.compare.arms import job_of, personas_of, points_of, weighed
    from pipeline.compare.checks import missing
    from pipeline.compare.model import SCREENING

    absent, lines, total = missing(comparison), list[str](), 0
    for index, task in enumerate(comparison.tasks):
        unknown = any(line.startswith(f"tasks[{index}].personas.") for line in absent)
        names = () if unknown else weighed(job_of(comparison, task))
        personas = () if unknown else personas_of(comparison, task)
        each = [n for method in comparison.scored if (n := len([*points_of(method, names, personas)]))]
        total += sum(each) if task.is_in(SCREENING) else 0
        only = "" if task.stage == "both" else f", {task.stage} only"
        lines.append(f"{task.name}: {sum(each)} arms of {len(each)} methods{only}")
    texts = comparison.screening.texts
    most = max((each.accept.max_candidates for each in comparison.scored if each.accept is not None), default=1)
    if most > 1:
        lines.append(f"of methods with accept up to {most:,} times as many texts are drawn as are kept")
    lines.append(f"screening: {total} arms of {texts} texts or a few more each, about {total * texts:,}")
    final = comparison.final
    if final.finalists:
        size = f"{final.texts} texts" if final.texts else f"as many texts as a power of {final.power:g} takes, and at "
        size += "" if final.texts else f"most {final.most_texts}"
        lines.append(f"final: {final.finalists} finalists and the baselines, {size}")
    lines += [f"not scored: {each.name}: {each.not_scored}" for each in comparison.methods if each.not_scored]
    lines.append(f"to {comparison.output_folder}")
    return "\n".join([f"{file}: {lines[0]}", *lines[1:], *(f"missing: {line}" for line in absent)])


def _command(options: argparse.Namespace) -> str:
    """As it was given, without where its output goes on this machine."""
    words = ["mpg", "compare", str(options.comparison), *(word for each in options.set for word in ("--set", each))]
    return shlex.join([*words, *(["--", *options.beam_arguments] if options.beam_arguments else [])])
