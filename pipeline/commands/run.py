"""``mpg run``: a job to its data set, and the end of it on the terminal: the table, two texts, the path."""

from __future__ import annotations

import argparse
import logging
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.tables import aligned, plain
from pipeline.commands.shared import InputError, Outcome, job_of, looked_at, opened_by
from pipeline.events import is_json
from pipeline.publish.summary import header, table_rows
from pipeline.store.dataset import FOLDERS

if TYPE_CHECKING:
    from pipeline.job.model import Job
    from pipeline.run.run import Result

logger = logging.getLogger(__name__)

_MOST_SHOWN = 5
_LONGEST = 300  # characters of a question or a name on the terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options, beside the job file."""
    parser.add_argument("--deadline", help="stop cleanly then: 6h, 1h30m, 2026-11-26T07:00 (as --set deadline=...)")
    parser.add_argument("--budget", type=float, help="stop cleanly when so much is spent (as --set budget=...)")
    whose = "give the rows to workers elsewhere (-- --runner=...) and come back; mpg finish writes the data set"
    parser.add_argument("--detach", action="store_true", help=whose)
    parser.add_argument("--only", choices=("decode", "judge"), help="one stage alone: decode every row, or have the "
                        "job's judges score what is decoded and write the data set")  # fmt: skip
    what = (
        "with --detach on Dataflow: write the job's specification there and submit nothing (a template's launcher does)"
    )
    parser.add_argument("--specification", metavar="PLACE", help=what)


def run(options: argparse.Namespace) -> Outcome:
    """Run the job, or go on with it. Raises InputError, RunError."""
    limits = {name: getattr(options, name) for name in ("deadline", "budget")}
    options.set += [f"{name}={value}" for name, value in limits.items() if value is not None]
    job, prompts = job_of(options)
    if options.only is not None and job.accept is not None:
        why = "what is drawn next depends on what judges say of the last"
        raise InputError(f"{options.job}: accept: {why}; leave --only {options.only} out, or accept")
    if options.detach or options.specification:
        _look_whether_it_can_be_detached(options, job)
    for note in looked_at(options, job, prompts, asks=options.only != "decode").notes:
        logger.warning("%s", note)
    logger.info("output: %s", job.output_folder)
    if options.detach:
        from pipeline.run.detach import detach, words_of

        found = detach(job, options.beam_arguments, options.specification)
        facts = {"detached": True, "to_decode": found.n_cells, "to_judge": found.n_to_judge, "job_id": found.job.job_id}
        return Outcome(words_of(found, job.output_folder), facts=facts)
    from pipeline.run.run import run_job
    from pipeline.run.stages import STAGES

    result = run_job(job, options.beam_arguments, interruptible=True, of=STAGES[options.only])
    return _decoded(result, options) if options.only == "decode" else outcome_of(result, options.job)


def _look_whether_it_can_be_detached(options: argparse.Namespace, job: Job) -> None:
    """Raises InputError: a line for each reason why not."""
    from pipeline.beam.detached import detach_problems, specification_problems

    problems = detach_problems(options.beam_arguments)
    if options.specification and not options.detach:
        problems.append("--specification: somebody else submits the job; add --detach")
    elif options.specification and not problems:
        problems += specification_problems(options.specification, options.beam_arguments)
    if options.only is not None:
        problems.append(f"--detach: hands over what is to decode and to judge at once; leave --only {options.only} out")
    if job.accept is not None:
        problems.append("accept: --detach can't look at scores and draw more; leave --detach out, or accept")
    if problems:
        raise InputError("\n".join(f"{options.job}: {problem}" for problem in problems))


def outcome_of(result: Result, of: object) -> Outcome:
    """What a run left, for the terminal. Args: of: the job, or its output, as the user named it."""
    problem = None if result.ending.why is None else f"{of}: {result.ending.why}"
    return Outcome(run_report(result), problem, result.ending.status, _facts(result))


def _facts(result: Result) -> dict[str, Any]:
    """``acceptance``: the part of the drafts that was accepted, over all texts; ``None``: nothing was drafted."""
    rates = [(p.acceptance_rate, p.n_rows) for p in result.summary.personas if p.acceptance_rate is not None]
    n = sum(rows for _, rows in rates)
    acceptance = round(sum(rate * rows for rate, rows in rates) / n, 4) if n else None
    return {"complete": result.ending.complete, **result.run["counts"], "acceptance": acceptance}


def _decoded(result: Result, options: argparse.Namespace) -> Outcome:
    """What the first of two stages left."""
    counts = result.run["counts"]
    new = f"{counts['generated']} new, {counts['kept_from_earlier_runs']} kept, {counts['rejected']} rejected"
    then = f"; {_next(options)} scores them and writes the data set"
    if _all_rejected(counts):
        then = f": there is nothing to judge; {_next(options)} writes why they were rejected"
    return Outcome(
        f"{counts['rows']} rows are decoded ({new}){then}",
        facts={"complete": False, **{name: n for name, n in counts.items() if name not in ("judgments", "unscored")}},
    )


def _next(options: argparse.Namespace) -> str:
    """The command of the next stage, with what makes this one's job another than its file's."""
    given = [each for each in options.set if not each.startswith("interval=")]
    words = ["mpg", "run", str(options.job), *(word for each in given for word in ("--set", each))]
    words += ["--output", str(options.output_folder)] if options.output_folder is not None else []
    words += ["--interval", options.interval] if options.interval is not None else []
    return shlex.join([*words, "--only", "judge"])


def run_report(result: Result) -> str:
    """What the run made and where it is."""
    lines = []
    summary, run = result.summary, result.run
    if not _all_rejected(run["counts"]):
        lines.append("\njudged adherence (0 to 1) by persona and attribute\n")
        lines.append(aligned(header(summary), table_rows(summary)))
    if any("±?" in cell for row in table_rows(summary) for cell in row):
        lines.append("±?: too few prompts for an interval that says anything")
    lines += [f"{name}: judged by {each['judge']}: {each['worth']}" for name, each in run["own_judges"].items()]
    for sample in () if is_json() else summary.samples:  # its output is a log, and no texts stand in one
        question = sample["prompt"][-1]["content"]
        lines.append(f"\n{plain(sample['persona'], _LONGEST)} | {plain(question, _LONGEST)}")
        paragraphs = [plain(line) for line in sample["response"].splitlines() if line.strip()]
        lines += [textwrap.fill(line, 100, initial_indent="  ", subsequent_indent="  ") for line in paragraphs]
    counts, timings = run["counts"], run["timings"]
    speed = f", {counts['tokens']} tokens at {timings['tokens_per_s']:.0f} tokens/s" if timings["tokens_per_s"] else ""
    n_broken = counts["broken_prompts"]
    broken = f", and {n_broken} rows of the prompts' source that are no prompts" if n_broken else ""
    lines.append(
        f"\n{counts['rows']} rows ({counts['generated']} new, {counts['kept_from_earlier_runs']} kept, "
        f"{counts['rejected']} rejected{broken}), "
        f"{counts['unscored']} of {counts['judgments']} judgments unscored{speed}, "
        f"{timings['total_s']:.0f} s in all"
    )
    if counts["control_tokens"]:
        lines.append(control_line(counts["control_tokens"], counts["planned"], run["control_tokens"]))
    if run["accept"] is not None:
        lines += accept_lines(run["accept"])
    if run["planned"] is not None:
        seconds, tokens, there = (run["planned"][name] for name in ("seconds", "tokens", "there"))
        lines.append(
            f"planned: {tokens['value']:.0f} tokens in {seconds['value']:.0f} s "
            f"({seconds['low']:.0f} to {seconds['high']:.0f}); was: {run['actual']['tokens']} in "
            f"{run['actual']['seconds']:.0f} s{' and earlier runs' if counts['kept_from_earlier_runs'] > there else ''}"
        )
    here = Path.cwd()
    folder = result.folder.relative_to(here) if result.folder.is_relative_to(here) else result.folder
    opened = f"it has no texts: all rows were rejected, and {folder / FOLDERS['rejected']} says why"
    lines.append(f"data set: {folder}\n{opened if _all_rejected(counts) else opened_by(folder)}")
    return "\n".join(lines)


def _all_rejected(counts: Mapping[str, int]) -> bool:
    """Whether a run has no text for the reason that none could be decoded."""
    return counts["rows"] == 0 and counts["rejected"] > 0


def control_line(n: int, of: int, mode: str) -> str:
    """How many texts hold control tokens, and what becomes of them."""
    became = {"text": "read as text", "reject": "rejected", "allow": "read as control tokens"}[mode]
    return f"{n} of {of} cells hold control tokens of the model in their texts: {became} (control_tokens: {mode})"


def accept_lines(found: Mapping[str, Any]) -> list[str]:
    """How many candidates it took, and the cells that fell short."""
    lines = [
        f"{found['rows']} texts of {found['candidates']} candidates have a score of {found['min_score']:g} or more, "
        f"{found['rows_per_cell']} for each of {found['cells']} cells wanted"
    ]
    short = found["short"]
    if short:
        lines.append(f"{len(short)} cells fell short after {found['max_candidates']} candidates (all are in run.json):")
        lines += [
            f"  {plain(cell['prompt_id'], _LONGEST)}, {plain(cell['persona'], _LONGEST)}: {cell['rows']}"
            for cell in short[:_MOST_SHOWN]
        ]
    return lines
