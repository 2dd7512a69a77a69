"""What the commands of `mpg` share: reading jobs and adapters, refusing bad input, what is left to be printed."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from personas import Prompt, PromptError
from pipeline.exit_status import ExitStatus
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.job.model import Job, shipped_adapters

logger = logging.getLogger(__name__)


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
    """The job of a command line (``options.job``, ``options.set``) and its prompts. Raises InputError.

    Rows of the prompts' source that are left out are said, in a line each kind.
    """
    try:
        job = load_job(options.job, options.set)
        for note in job.read_prompts().notes:
            logger.warning("prompts: %s", note)
        return job, job.load_prompts()
    except JobError as error:
        raise InputError("\n".join(error.lines)) from error
    except PromptError as error:
        raise InputError(f"{options.job}: prompts: {error}") from error


def columns_by_name(entries: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """``--column NAME=COLUMN`` of a command line: name -> column.

    Raises:
        ValueError: one line: no ``=``, a name that is not known, or one given twice.
    """
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, column = entry.partition("=")
        if not equals or not column or name not in known:
            raise ValueError(f"--column {entry}: write NAME=COLUMN, with a name of {', '.join(known)}")
        if name in found:
            raise ValueError(f"--column {entry}: {name!r} is given twice; remove one")
        found[name] = column
    return found


def adapters_by_name(entries: Sequence[str], option: str) -> dict[str, str]:
    """Adapters on a command line, shipped ones by name, others as ``NAME=FOLDER``: name -> folder, in the order given.

    Raises:
        ValueError: one line that begins with ``option``: not shipped, no adapter folder, or given twice.
    """
    shipped, adapters = shipped_adapters(), {}
    for entry in entries:
        name, equals, place = entry.partition("=")
        if name in adapters:
            raise ValueError(f"{option} {entry}: {name!r} is given twice; remove one")
        if not equals and name not in shipped:
            known = ", ".join(shipped) or "none"
            raise ValueError(f"{option} {entry}: not shipped (shipped: {known}); give {name}=FOLDER of its adapter")
        if equals and not (Path(place) / "adapter_config.json").is_file():
            raise ValueError(f"{option} {entry}: {place!r} is no folder with adapter_config.json; give one")
        adapters[name] = place if equals else str(shipped[name])
    return adapters
