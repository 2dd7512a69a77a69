"""``mpg check``: what a job file has wrong, or how many texts it would write; ``mpg schema``: its JSON schema."""

from __future__ import annotations

import argparse
import json

from pipeline.commands.shared import Outcome, job_of
from pipeline.job.adapters import judging_lines, own_judges
from pipeline.job.model import job_schema


def check(options: argparse.Namespace) -> Outcome:
    """Count the job's texts. Raises InputError."""
    job, prompts = job_of(options)
    lines = [
        f"{options.job}: {len(prompts)} prompts x {job.n_personas} personas x {job.samples_per_cell} samples",
        f"{job.n_cells(len(prompts))} texts of at most {job.decoder.max_new_tokens} tokens, to {job.output}",
        *judging_lines(job, own_judges(job)),
    ]
    return Outcome("\n".join(lines))


def schema(options: argparse.Namespace) -> Outcome:
    """The JSON schema of job files."""
    return Outcome(json.dumps(job_schema(), indent=2))
