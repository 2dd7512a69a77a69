"""``mpg plan``: what a job will take, before it runs: cells, tokens, time, money, see :mod:`pipeline.run.estimate`."""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pipeline.commands.shared import InputError, NotNow, Outcome, job_of, looked_at
from pipeline.job.model import Job
from pipeline.plan.computed_with import settled
from pipeline.plan.merged import texts_of
from pipeline.store.dataset import PLAN_FILE, prepare
from pipeline.store.errors import OutputError, what_happened
from pipeline.store.files import write_bytes

if TYPE_CHECKING:
    from pipeline.run.estimate import Estimate, Forecast
    from pipeline.run.left import Left

logger = logging.getLogger(__name__)

# Cells of each persona that the pilot decodes at least; of a thousand personas, of as many as the pilot's size allows.
CELLS_A_PERSONA, MOST_CELLS = 2, 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options, beside the job file."""
    parser.add_argument("--cells", type=int, default=CELLS_A_PERSONA, metavar="N",
                        help=f"cells of each persona that the pilot decodes ({CELLS_A_PERSONA})")  # fmt: skip
    parser.add_argument("--no-pilot", dest="pilot", action="store_false",
                        help="decode nothing: check the job, and say what there is to do")  # fmt: skip


def plan(options: argparse.Namespace) -> Outcome:
    """Decode a pilot, extrapolate, and keep what is expected for the run's ``run.json``; or count what is left.

    Raises:
        InputError, RunError: before a model is loaded where that can be known.
    """
    if not 2 <= options.cells <= MOST_CELLS:
        raise InputError(f"--cells: {options.cells} is out of range; give 2 (for a spread) to {MOST_CELLS}")
    job, prompts = job_of(options)
    for note in looked_at(options, job, prompts, runs=False).notes:
        logger.warning("%s", note)
    from pipeline.beam.options import beam_options, n_devices, n_workers
    from pipeline.plan.plan import Plan
    from pipeline.run.estimate import EstimateError, forecast
    from pipeline.run.judges import rubric_problems
    from pipeline.run.left import left_of

    try:
        output = job.output_folder
        work, of_beam = prepare(output), beam_options(options.beam_arguments)
        texts = texts_of(job, prompts)
        computed_with = settled(output, job, n_workers(of_beam), texts.n)
        planned = Plan.of(job, computed_with.dtype, computed_with.attributes)
        left = left_of(work, planned, prompts, computed_with.rows_per_shard)
    except OutputError as error:
        raise InputError(f"{options.job}: {error}") from error
    except OSError as error:
        raise NotNow(f"{options.job}: output: {what_happened(error, output)}") from error
    if texts.note is not None:
        logger.info("%s", texts.note)
    facts = _facts(job, left)
    if left.nothing:
        rejected = f", {left.rejected} were rejected" if left.rejected else ""
        return Outcome(f"{job.name}: nothing is left: {left.there} texts are in {output}{rejected}", facts=facts)
    for problem in rubric_problems(job):
        raise InputError(f"{options.job}: {problem}")
    if not options.pilot:
        return Outcome(_counted(job, left), facts=facts)
    try:
        made = forecast(planned, left, computed_with, options.cells, n_devices(of_beam))
    except EstimateError as error:
        raise InputError(str(error)) from error
    kept = asdict(made) | {"of": job.work_hash()}
    try:
        write_bytes((json.dumps(kept, indent=2) + "\n").encode(), work / PLAN_FILE)
    except OSError as error:
        raise NotNow(f"{options.job}: output: {what_happened(error, output)}") from error
    return Outcome(report(made, job), facts=facts | {"expected": asdict(made)})


def _facts(job: Job, left: Left) -> dict[str, Any]:
    """``hash`` names what is to be done, whatever its limits are: a schedule names its jobs by it."""
    return {
        "hash": job.work_hash(),
        "to_decode": len(left.cells),
        "there": left.there,
        "rejected": left.rejected,
        "to_judge": sum(left.unjudged.values()),
    }


def _counted(job: Job, left: Left) -> str:
    """What there is to do, without a pilot."""
    rejected = f", {left.rejected} were rejected" if left.rejected else ""
    unjudged = "".join(f"; {n} of those there wait for {name}" for name, n in left.unjudged.items() if n)
    return f"{job.name}: {len(left.cells)} texts to decode, {left.there} are there already{rejected}{unjudged}"


def report(made: Forecast, job: Job) -> str:
    """The plan in lines."""

    def shown(estimate: Estimate, form: str) -> str:
        return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"

    there = f" are left, {made.there} are there already" if made.there else ""
    lines = [
        f"{made.job}: {made.cells} texts{there}; pilot: {made.pilot_cells} of them, {made.tokens_per_s:.0f} tokens/s",
        f"tokens        {shown(made.tokens, ',.0f')}",
        f"time          {_clock(made.seconds.value)} ({_clock(made.seconds.low)} to {_clock(made.seconds.high)}), "
        f"{made.workers} worker{'s with a device each' if made.workers > 1 else ''}",
        f"device-hours  {shown(made.device_hours, '.3g')}",
    ]
    if made.judge_prompt_tokens:
        lines.append(
            f"judge tokens  {made.judge_prompt_tokens:,} asked, {shown(made.judge_completion_tokens, ',.0f')} answered"
        )
    if made.cost.high > 0:
        lines.append(f"cost          {shown(made.cost, '.4g')}, in the currency of the job's prices")
    elif job.device_price == 0:
        lines.append("cost          unknown: the job has no device_price")
    if job.accept is not None:
        n = made.cells * job.accept.rows_per_cell, made.cells * job.accept.max_candidates
        lines.append(f"accept        draws {n[0]:,} to {n[1]:,} texts; the figures above are for one text a cell")
    lines.append("in brackets: 95 % intervals; the run notes them beside what it took, in run.json")
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
