"""What makes commands stages of a schedule: ``--interval``, and with ``--json`` a line that the next stage reads.

The line is the last of stdout, whatever the command ends with: ``stage``, ``status`` (the exit status), ``output`` (the
data set's folder or URL), ``interval``, what the command found, and ``problem``, the line that stands on stderr, too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.commands.shared import InputError
from pipeline.job.interval import PLACE, filled, interval_of
from pipeline.store.dataset import JOB_FILE
from pipeline.store.files import exists
from pipeline.store.interval import noted_interval
from pipeline.store.places import expanded, is_local


def add_stage_options(parser: argparse.ArgumentParser, *, place: str | None = None, fills: Sequence[str] = ()) -> None:
    """``--interval`` and ``--json``.

    Args:
        place: which argument is the data set's folder; ``None``: the command takes a job, which says where it is.
        fills: further arguments in which ``{interval}`` may stand.
    """
    where = "the job's interval, {interval} in its places" if place is None else "{interval} in DIR and names"
    parser.add_argument("--interval", type=_interval, action=_Once, metavar="DATE",
                        help=f"start of the interval (2026-11-23, or a date and time): {where}")  # fmt: skip
    if not any("--json" in action.option_strings for action in parser._actions):
        parser.add_argument("--json", action="store_true", help="end with one line of JSON on stdout, for programs")
    parser.set_defaults(place=place, fills=(*([] if place is None else [place]), *fills), of_job={})


class _Once(argparse.Action):
    """An option that is given once, or always the same."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest)
        if before not in (None, values):
            parser.error(f"argument {option_string}: {before} and {values} are given; give one")
        setattr(namespace, self.dest, values)


def _interval(text: str) -> str:
    try:
        return interval_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def fill_places(options: argparse.Namespace) -> None:
    """Put the interval where it stands in a command's arguments. Raises InputError: it stands there, and is not given.

    A job's own places are filled where the job is read.
    """
    for name in getattr(options, "fills", ()):
        value = getattr(options, name)
        several = isinstance(value, list)
        setattr(options, name, [_put(options, each) for each in value] if several else _put(options, value))


def check_interval(options: argparse.Namespace) -> None:
    """Raises InputError: the command's folder holds another interval's rows than the one that is given."""
    place, interval = getattr(options, "place", None), getattr(options, "interval", None)  # stages have them
    if place is None or interval is None:
        return
    value = getattr(options, place)
    folder = value[0] if isinstance(value, list) else value
    if folder is None:
        return
    with suppress(OSError):
        there = noted_interval(folder)
        if there != interval and (there is not None or exists(folder / JOB_FILE)):
            has = "no interval" if there is None else f"the interval {there}"
            raise InputError(f"--interval {interval}: {folder} is of {has}; name its folder, or that")


def _put(options: argparse.Namespace, value: Any) -> Any:
    if value is None or PLACE not in str(value):
        return value
    if options.interval is None:
        raise InputError(f"{value}: names the interval, and none is given; give --interval 2026-11-23")
    text = filled(str(value), options.interval)
    return text if isinstance(value, str) else expanded(text)


def line_of(options: argparse.Namespace, status: int, facts: Mapping[str, Any], problem: str | None) -> str:
    """See the module.

    Args:
        options: of the command line; ``of_job``: what was known of the job whatever came then.
        facts: that the command found.
    """
    stage = getattr(options, "only", None) or options.command
    known: dict[str, Any] = {"output": None, "interval": options.interval, **options.of_job}
    if options.place is not None:
        value = getattr(options, options.place)
        folder: Path | None = value[0] if isinstance(value, list) else value
        if folder is not None:
            known["output"] = str(folder.absolute() if is_local(folder) else folder)
            with suppress(OSError):
                known["interval"] = noted_interval(folder) or options.interval
    return json.dumps({"stage": stage, "status": int(status), **known, **facts, "problem": problem})
