"""``mpg finish``: the data set of what a detached run has written, from any machine that reaches its output."""

from __future__ import annotations

import argparse
import logging

from pipeline.commands.arguments import anywhere
from pipeline.commands.run import outcome_of
from pipeline.commands.shared import InputError, Outcome

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument(
        "output", metavar="DIR", type=anywhere, help="the run's output: a folder, or s3://..., gs://..."
    )
    parser.add_argument("--anyway", action="store_true",
                        help="take the job for ended where nobody can tell, as its service is gone")  # fmt: skip


def finish(options: argparse.Namespace) -> Outcome:
    """Decode nothing, ask endpoints' judges for what is left to them, write the data set. Raises InputError, RunError.

    Beam's options after ``--`` name workers that put the data set together; left out, this process does.
    """
    from pipeline.run.detach import finish as finished

    if options.beam_arguments:
        from pipeline.beam.arguments import look_at

        wrong, silent, notes = look_at(options.beam_arguments, str(options.output))
        if wrong or silent:
            raise InputError("\n".join(f"{options.output}: {problem}" for problem in wrong + silent))
        for note in notes:
            logger.warning("%s", note)
    result = finished(options.output, options.beam_arguments, anyway=options.anyway, interruptible=True)
    return outcome_of(result, options.output)
