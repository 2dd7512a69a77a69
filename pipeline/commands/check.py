"""``mpg check``: what a job file has wrong, or how many texts it would write; ``mpg schema``: its JSON schema."""

from __future__ import annotations

import argparse
import json

from pipeline.commands.shared import Outcome, job_of, looked_at
from pipeline.compare.model import comparison_schema
from pipeline.job.adapters import judging_lines, own_judges
from pipeline.job.model import job_schema
from pipeline.plan.merged import texts_of
from pipeline.plan.split import split_note


def check(options: argparse.Namespace) -> Outcome:
    """Count the job's texts, and say what is known of the job before it runs. Raises InputError."""
    job, prompts = job_of(options)
    texts = texts_of(job, prompts)
    found = looked_at(options, job, prompts, begins=False)
    lines = [f"{options.job}: {texts.prompts} prompts x {texts.personas} personas x {texts.samples} samples"]
    if texts.note is not None:
        lines.append(texts.note)
    lines.append(f"{texts.n} texts of at most {job.decoder.max_new_tokens} tokens, to {job.output_folder}")
    split = split_note(job, prompts)
    if split is not None:
        lines.append(split)
    if job.accept is not None:
        most = texts.prompts * texts.personas * job.accept.max_candidates
        lines.append(f"accept: more candidates are drawn where too few pass, {most} at most")
    said = (*judging_lines(job, own_judges(job)), *found.notes, *found.unreachable, *found.unknown)
    lines += [f"note: {line}" for line in said]
    return Outcome("\n".join(lines))


def add_schema_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``mpg schema``."""
    parser.add_argument("of", metavar="KIND", nargs="?", choices=("job", "comparison"), default="job",
                        help="job (what mpg run takes; the default) or comparison (mpg compare)")  # fmt: skip


def schema(options: argparse.Namespace) -> Outcome:
    """The JSON schema of job files, or of comparison files."""
    return Outcome(json.dumps(job_schema() if options.of == "job" else comparison_schema(), indent=2))
