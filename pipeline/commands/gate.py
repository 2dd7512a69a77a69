"""``mpg gate``: may a data set follow the last revision? What changed, as a table; a line for each reason why not."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from evaluation.tables import aligned
from pipeline.commands.arguments import readable
from pipeline.commands.shared import InputError, Outcome, look_for_detached
from pipeline.exit_status import ExitStatus
from pipeline.job.errors import JobError
from pipeline.job.gate_section import Gate
from pipeline.job.load import load_job
from pipeline.store.interval import noted_interval

if TYPE_CHECKING:
    from pipeline.publish.gate.decide import Decision


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("folder", metavar="DIR", type=readable, help="folder of a data set, or its URL")
    parser.add_argument("--against", metavar="PREVIOUS",
                        help="the last revision: a folder, a URL, OWNER/NAME@REVISION of the Hub (@previous: the "
                        "interval before), or none; left out: none, absolute thresholds alone")  # fmt: skip
    parser.add_argument("--job", dest="job_file", metavar="JOB.yaml",
                        help="whose section gate counts; left out: the data set's own job.json")  # fmt: skip


def gate(options: argparse.Namespace) -> Outcome:
    """Say whether it may be published, and if not, why not. Raises InputError, RunError."""
    from pipeline.publish.gate.decide import decide

    look_for_detached(options.folder, writes=False)
    found = decide(options.folder, options.against, _thresholds(options))
    facts = {
        "against": found.against,
        "refused": [asdict(each) for each in found.refusals],
        "changes": [dict(zip(("what", "was", "is"), each, strict=True)) for each in found.changes],
        "notes": list(found.notes),
    }
    if not found.refusals:
        return Outcome("\n".join([*_shown(found), "gate: it may be published"]), facts=facts)
    problem = "\n".join(f"{options.folder}: not to be published: {each.line}" for each in found.refusals)
    return Outcome("\n".join(_shown(found)), problem, ExitStatus.REFUSED, facts)


def _thresholds(options: argparse.Namespace) -> Gate | None:
    """Of the job file that is named, for the interval of the data set. Raises InputError."""
    if options.job_file is None:
        return None
    interval = options.interval or noted_interval(options.folder)
    try:
        overrides = [] if interval is None else [f"interval={interval}"]
        return load_job(options.job_file, overrides, output=options.folder).gate  # its own output is not looked at
    except JobError as error:
        raise InputError("\n".join(error.lines)) from error


def _shown(found: Decision) -> list[str]:
    if found.against is None:
        table = aligned(["", "this"], [[what, now] for what, _, now in found.changes])
    else:
        table = aligned(["", "last", "this"], [[what, was or "-", now] for what, was, now in found.changes])
    against = [] if found.against is None else [f"last: {found.against}"]
    return [table, *against, *(f"note: {note}" for note in found.notes)]
