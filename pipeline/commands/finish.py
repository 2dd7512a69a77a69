"""``mpg finish``: the data set of what a detached run has written, from any machine that reaches its output."""

from __future__ import annotations

import argparse

from pipeline.commands.arguments import anywhere
from pipeline.commands.run import outcome_of
from pipeline.commands.shared import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "output", metavar="DIR", type=anywhere, help="the run's output: a folder, or s3://..., gs://..."
    )
    parser.add_argument("--anyway", action="store_true",
                        help="take the job for ended where nobody can tell, as its service is gone")  # fmt: skip


def finish(options: argparse.Namespace) -> Outcome:
    """Decode nothing, ask endpoints' judges for what is left to them, write the data set. Raises RunError."""
    from pipeline.run.detach import finish as finished

    return outcome_of(finished(options.output, anyway=options.anyway, interruptible=True), options.output)
