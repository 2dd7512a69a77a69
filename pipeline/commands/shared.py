"""What the commands of `mpg` share: reading jobs and adapters, refusing bad input, what is left to be printed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personas import Prompt, PromptError
from pipeline.commands.arguments import source
from pipeline.exit_status import ExitStatus
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.job.model import Job, shipped_adapters
from pipeline.plan.merged import texts_of


class InputError(ValueError):
    """Bad input, found before anything was started: a line for each problem, with field, value and remedy."""


@dataclass(frozen=True)
class Outcome:
    """What a command left.

    Attributes:
        report: for the terminal; may be empty.
        problem: why it did not do all that it was asked for, in a line; ``None``: it did.
        status: exit status where there is a problem.
    """

    report: str
    problem: str | None = None
    status: ExitStatus = ExitStatus.FAILED


def job_of(options: argparse.Namespace) -> tuple[Job, list[Prompt]]:
    """The job of a command line (``options.job``, ``options.set``) and its prompts. Raises InputError."""
    try:
        job = load_job(options.job, options.set, output=getattr(options, "output_folder", None))
        merged = texts_of(job).problems
        if merged:
            raise JobError(str(options.job), merged)
        return job, job.load_prompts()
    except JobError as error:
        raise InputError("\n".join(error.lines)) from error
    except PromptError as error:
        raise InputError(f"{options.job}: prompts: {error}") from error


def adapters_by_name(entries: Sequence[str], option: str) -> dict[str, str]:
    """Adapters on a command line, shipped ones by name, others as ``NAME=FOLDER``: name -> folder, in the order given.

    Raises:
        ValueError: one line that begins with ``option``: not shipped, no adapter folder, or given twice.
    """
    shipped, adapters = shipped_adapters(), {}
    for entry in entries:
        name, equals, given = entry.partition("=")
        place = source(given)
        if name in adapters:
            raise ValueError(f"{option} {entry}: {name!r} is given twice; remove one")
        if not equals and name not in shipped:
            known = ", ".join(shipped) or "none"
            raise ValueError(f"{option} {entry}: not shipped (shipped: {known}); give {name}=FOLDER of its adapter")
        if equals and not (Path(place) / "adapter_config.json").is_file():
            raise ValueError(f"{option} {entry}: {place!r} is no folder with adapter_config.json; give one")
        adapters[name] = place if equals else str(shipped[name])
    return adapters
