"""What the commands of `mpg` share: reading jobs and adapters, refusing bad input, what is left to be printed."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpg.models.errors import BankError
from mpg.models.hub import ADAPTER_CONFIG, Place, adapter_folder
from personas import Prompt, PromptError
from personas.text import one_line
from pipeline.exit_status import ExitStatus
from pipeline.job.checks import size_problems
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.job.model import Job, shipped_adapters
from pipeline.plan.merged import texts_of
from pipeline.plan.split import split_problems
from pipeline.store.dataset import FOLDERS, WORK_FOLDER
from pipeline.store.detached import noted
from pipeline.store.files import exists, listing, nothing_there, store_errors
from pipeline.store.layout import SPLITS
from pipeline.store.lock import FolderInUse
from pipeline.store.places import is_local

if TYPE_CHECKING:
    from pipeline.run.preflight import Findings

logger = logging.getLogger(__name__)


class InputError(ValueError):
    """Bad input, found before anything was started: a line for each problem, with field, value and remedy."""

    status = ExitStatus.BAD_INPUT


class NotNow(InputError):
    """What is asked for can't be done now, and may be another time: a folder in use, a disk that is full."""

    status = ExitStatus.TRY_AGAIN


@dataclass(frozen=True)
class Outcome:
    """What a command left.

    Attributes:
        report: for the terminal; may be empty.
        facts: the same for programs, see :mod:`pipeline.commands.stage`.
        problem: why it did not do all that it was asked for, in a line; ``None``: it did.
        status: exit status where there is a problem.
    """

    report: str
    problem: str | None = None
    status: ExitStatus = ExitStatus.FAILED
    facts: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def place_errors(place: Path, *, read: bool = True, kept: str | None = None) -> Iterator[None]:
    """Whatever goes wrong with a place, a folder of this machine or in a store, is one line that names it.

    Args:
        read: whether it is read alone, and not written, too. kept: what is not lost.

    Raises:
        InputError: it is not there. NotNow: somebody else works there, it can't be read or written now.
    """
    try:
        with store_errors(place):
            yield
    except FolderInUse as error:
        raise NotNow(str(error)) from error
    except OSError as error:
        why = error.strerror or one_line(error)
        if error.filename not in (None, str(place)):
            why = f"{error.filename}: {why}"
        if not is_local(place) and isinstance(error, FileNotFoundError) and not _is_there(place):
            raise InputError(f"{place}: {nothing_there(place)}; give the folder of a data set of mpg run") from error
        if is_local(place):
            remedy = "see to it that it can be read" + ("" if read else " and written")
        else:
            remedy = "see to its address, keys and rights, or give the command again"
        remedy += "" if kept is None else f"; {kept}"
        raise NotNow(f"{place}: can't be {'read' if read else 'written'} ({why}); {remedy}") from error


def look_for_detached(output: Path, *, writes: bool) -> None:
    """A job that was detached may have an output though nobody has its lock. Where nothing is written it is a note.

    Raises:
        RunError: it is at work there, or nobody can tell, and something is to be written.
    """
    with place_errors(output):
        if noted(output / WORK_FOLDER) is None:
            return
    from pipeline.beam.at_work import refuse, tell

    if writes:
        refuse(output)
    else:
        tell(output)


def _is_there(place: Path) -> bool:
    try:
        return exists(place)
    except OSError:
        return True


def opened_by(folder: Path, config: str | None = None) -> str:
    """A line with the Python that opens a data set, whatever its folder is called, or the URL of a store."""
    if not is_local(folder):
        data = folder / (config or FOLDERS["generations"])
        there = {"train"}
        with suppress(OSError):  # the data set is written: no store that is gone since makes that untrue
            there = {name.partition("-")[0] for name in listing(data, ".parquet")}
        files = {split: f"{data}/{split}-*.parquet" for split in SPLITS if split in there}
        return f'open it:  datasets.load_dataset("parquet", data_files={json.dumps(files)})'
    named = ", ".join(json.dumps(each, ensure_ascii=False) for each in (str(folder), config) if each is not None)
    return f"open it:  datasets.load_dataset({named})"


def job_of(options: argparse.Namespace) -> tuple[Job, list[Prompt]]:
    """The job of a command line (``options.job``, ``.set``, ``.interval``) and its prompts. Raises InputError.

    Rows of the prompts' source that are left out are said, in a line each kind.
    """
    interval = getattr(options, "interval", None)
    if interval is not None:
        if any(each.partition("=")[0].strip() == "interval" for each in options.set):
            raise InputError(f"{options.job}: interval: given by --set and by --interval; give one")
        options.set = [*options.set, f"interval={interval}"]
    try:
        job = load_job(options.job, options.set, output=getattr(options, "output_folder", None))
        options.of_job = {"output": str(job.output_folder), "interval": job.interval, "job": job.name}
        prompts = job.load_prompts()
        problems = [*size_problems(job, len(prompts))] or [*texts_of(job).problems, *split_problems(job, prompts)]
        if problems:
            raise JobError(str(options.job), problems)
        for note in job.read_prompts().notes:
            logger.warning("prompts: %s", note)
        return job, prompts
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


def looked_at(
    options: argparse.Namespace,
    job: Job,
    prompts: Sequence[Prompt],
    *,
    runs: bool = True,
    begins: bool = True,
    asks: bool = True,
    where: str = "",
) -> Findings:
    """What can be known of a job before a model is loaded (see :mod:`pipeline.run.preflight`).

    Args:
        runs, asks: see there. begins: whether models are loaded next: what can't be reached is an error then.
        where: before each line, of a job that is part of the file.

    Raises:
        InputError: it can't run so.
    """
    from pipeline.run.preflight import preflight

    found = preflight(job, prompts, options.beam_arguments, runs=runs, asks=asks)
    problems = (*found.problems, *found.unreachable) if begins else found.problems
    if problems:
        raise InputError("\n".join(f"{options.job}: {where}{problem}" for problem in problems))
    return found


def adapters_by_name(entries: Sequence[str], option: str) -> dict[str, Place]:
    """Adapters on a command line, shipped ones by name, others as ``NAME=PLACE``: name -> place, in the order given.

    A place is a folder, or ``owner/name``, ``owner/name@revision/subfolder`` on the Hub, which is asked here.

    Raises:
        ValueError: one line that begins with ``option``: not shipped, no adapter there, or given twice.
    """
    shipped, adapters = shipped_adapters(), dict[str, Place]()
    for entry in entries:
        name, equals, given = entry.partition("=")
        if name in adapters:
            raise ValueError(f"{option} {entry}: {name!r} is given twice; remove one")
        if not equals and name not in shipped:
            known = ", ".join(shipped) or "none"
            raise ValueError(f"{option} {entry}: not shipped (shipped: {known}); give {name}=FOLDER of its adapter")
        place = Place.written(given) if equals else Place(str(shipped[name]))
        is_adapter = place.folder is not None and (place.folder / ADAPTER_CONFIG).is_file()
        if not is_adapter and (place.folder is not None or "/" not in given.strip("./")):
            raise ValueError(f"{option} {entry}: {given!r} is no folder with adapter_config.json; give one")
        try:
            place = place.pinned()
            folder = adapter_folder(place)
        except BankError as error:
            raise ValueError(f"{option} {entry}: {error}") from error
        if folder is None:
            raise ValueError(f"{option} {entry}: {given!r} is no folder with adapter_config.json; give one")
        adapters[name] = place
    return adapters
