"""Options of the commands without a job that put chats to a model: what its chat template is told beside them."""

from __future__ import annotations

import argparse
import json
from datetime import date

from mpg.models.template import ChatStyle
from mpg.settings import DEFAULT_DATE
from pipeline.commands.shared import InputError


def add_chat_options(parser: argparse.ArgumentParser) -> None:
    """As the fields ``model.template_arguments``, ``model.date`` and ``model.system_role`` of a job."""
    group = parser.add_argument_group("the model's chat template (as in the jobs that use the result)")
    group.add_argument("--template-argument", action="append", default=[], metavar="NAME=VALUE",
                       help="what it is given beside the messages, in JSON: enable_thinking=false")  # fmt: skip
    group.add_argument("--date", metavar="YYYY-MM-DD",
                       help=f"the day that it reads, if it asks for today's date ({DEFAULT_DATE})")  # fmt: skip
    group.add_argument("--system-role", choices=("template", "fold"), default="template",
                       help="where system messages stand: as it has it, or before the user's turn")  # fmt: skip


def style_of(options: argparse.Namespace) -> ChatStyle:
    """The options as one thing. Raises InputError: one that can't be read."""
    arguments = {}
    for entry in options.template_argument:
        name, equals, value = entry.partition("=")
        if not (equals and name.isidentifier()):
            raise InputError(f"--template-argument {entry}: write NAME=VALUE, as enable_thinking=false")
        if name in arguments:
            raise InputError(f"--template-argument {entry}: {name} is given twice; remove one")
        try:
            arguments[name] = json.loads(value, parse_constant=_no_constant)
        except ValueError as error:
            raise InputError(f'--template-argument {entry}: {value!r} is no JSON; put text in "quotes"') from error
    if options.date is not None:
        try:
            if date.fromisoformat(options.date).isoformat() != options.date:
                raise ValueError("another form")
        except ValueError as error:
            raise InputError(f"--date: {options.date!r} is no day ({error}); give YYYY-MM-DD") from error
    return ChatStyle.of(arguments, options.date, fold_system=options.system_role == "fold")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON's")
