"""The `mpg` command."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from personas import PromptError
from pipeline.commands import infer_weights as infer
from pipeline.commands import judge as judge_command
from pipeline.commands import plan, verify
from pipeline.commands import questionnaire as questionnaire_command
from pipeline.commands import train as train_command
from pipeline.commands.shared import InputError, Outcome
from pipeline.job.load import Job, JobError, job_schema, load_job

USAGE_ERROR = 2  # bad input: nothing was started
FAILURE = 1
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status (0 done, 1 failed, 2 bad input, 130 stopped by Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours, beam_arguments = arguments, []
    if "--" in arguments:
        split = arguments.index("--")
        ours, beam_arguments = arguments[:split], arguments[split + 1 :]
    parser = _parser()
    options = parser.parse_args(ours)
    if options.command is None:
        parser.print_help()
        return USAGE_ERROR
    options.beam_arguments = beam_arguments
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s: %(message)s")
    for name in ("mpg", "pipeline"):
        logging.getLogger(name).setLevel(logging.INFO)
    command = _COMMANDS[options.command]
    if command.loads_models:
        from pipeline.commands.quiet import quiet_libraries

        quiet_libraries()
    try:
        outcome = command.function(options)
    except InputError as error:
        return _fail(str(error), USAGE_ERROR)
    except KeyboardInterrupt:
        return _fail(f"stopped{command.again}", INTERRUPTED)
    if outcome.report:
        print(outcome.report)
    return 0 if outcome.problem is None else _fail(outcome.problem, outcome.status)


def _fail(problem: str, status: int) -> int:
    print("\n".join(f"mpg: {line}" for line in problem.splitlines()), file=sys.stderr)
    return status


def _schema(options: argparse.Namespace) -> Outcome:
    return Outcome(json.dumps(job_schema(), indent=2))


def _check(options: argparse.Namespace) -> Outcome:
    job, n_prompts = _load(options)
    return Outcome(
        f"{options.job}: {n_prompts} prompts x {job.n_personas} personas x {job.samples_per_cell} samples\n"
        f"{job.n_cells(n_prompts)} texts of at most {job.decoder.max_new_tokens} tokens, to {job.output}"
    )


def _load(options: argparse.Namespace) -> tuple[Job, int]:
    """The job and its number of prompts. Raises InputError."""
    try:
        job = load_job(options.job, options.set)
        return job, len(job.load_prompts())
    except JobError as error:
        raise InputError("\n".join(error.lines)) from error
    except PromptError as error:
        raise InputError(f"{options.job}: prompts: {error}") from error


def _run(options: argparse.Namespace) -> Outcome:
    limits = {name: getattr(options, name) for name in ("deadline", "budget")}
    options.set += [f"{name}={value}" for name, value in limits.items() if value is not None]
    job, _ = _load(options)
    from pipeline.commands.run_report import run_report
    from pipeline.plan.sources import RunError
    from pipeline.run.run import RunStopped, run_job

    try:
        return Outcome(run_report(run_job(job, options.beam_arguments, interruptible=True)))
    except RunStopped as error:
        return Outcome("", f"{options.job}: {error}", INTERRUPTED if error.interrupted else FAILURE)
    except RunError as error:
        return Outcome("", f"{options.job}: {error}")


class _Command(NamedTuple):
    function: Callable[[argparse.Namespace], Outcome]
    loads_models: bool = True
    again: str = ""  # what the same command does after it was stopped


_COMMANDS = {
    "run": _Command(_run, again="; the same command goes on from the rows that are written"),
    "check": _Command(_check, loads_models=False),
    "infer-weights": _Command(infer.infer_weights),
    "train": _Command(train_command.train, again="; the same command goes on from its last checkpoint"),
    "judge": _Command(judge_command.judge, again="; the same command goes on from what is judged"),
    "questionnaire": _Command(questionnaire_command.questionnaire),
    "plan": _Command(plan.plan),
    "verify": _Command(verify.verify),
    "schema": _Command(_schema, loads_models=False),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mpg",
        description="Write personalised text corpora: attributes composed at decoding time (MPG, SCR).",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log what the libraries say, too")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    run = commands.add_parser(
        "run",
        help="run a job file: decode its grid, judge the texts, write the data set",
        epilog="What follows -- goes to Apache Beam: mpg run JOB.yaml -- --direct_num_workers=2 "
        "--direct_running_mode=multi_processing",
    )
    check = commands.add_parser("check", help="check a job file and say how many texts it will write")
    asked = commands.add_parser(
        "questionnaire", help="put questions to a job's personas: what type do they answer like?"
    )
    planned = commands.add_parser(
        "plan", help="what a job will take: tokens, time, money, from a pilot on this machine"
    )
    for command in (run, check, planned, asked):
        command.add_argument("job", metavar="JOB.yaml", type=str, help="the job file")
        command.add_argument(
            "--set",
            metavar="FIELD=VALUE",
            action="append",
            default=[],
            help="override a field, e.g. --set decoder.name=scr (may be repeated)",
        )
    run.add_argument("--deadline", help="stop cleanly then: 6h, 1h30m, 2026-11-26T07:00 (as --set deadline=...)")
    run.add_argument("--budget", type=float, help="stop cleanly when so much is spent (as --set budget=...)")
    plan.add_arguments(planned)
    questionnaire_command.add_arguments(asked)
    verify.add_arguments(
        commands.add_parser("verify", help="check a data set's files, and write some of its rows again")
    )
    infer.add_arguments(
        commands.add_parser(
            "infer-weights",
            help="find the weights that explain examples a user liked, and write them as a persona",
        )
    )
    train_command.add_arguments(
        commands.add_parser("train", help="train an adapter from preference pairs, or from two descriptions")
    )
    judge_command.add_arguments(
        commands.add_parser("judge", help="score any corpus, without generating again, and say how far to believe it")
    )
    commands.add_parser("schema", help="print the JSON schema of job files, for editors")
    return parser


def entry_point() -> None:
    """Installed as `mpg`."""
    sys.exit(main())


if __name__ == "__main__":
    entry_point()
