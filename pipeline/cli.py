"""The `mpg` command."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence

from personas import PromptError
from pipeline import infer, judge_command, train_command
from pipeline.job import Job, JobError, job_schema, load_job

USAGE_ERROR = 2  # bad input: nothing was started
FAILURE = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status (0 done, 1 failed, 2 bad input)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours, beam_arguments = arguments, []
    if "--" in arguments:
        split = arguments.index("--")
        ours, beam_arguments = arguments[:split], arguments[split + 1 :]
    options = _parser().parse_args(ours)
    if options.command is None:
        _parser().print_help()
        return USAGE_ERROR
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(levelname)s: %(message)s")
    for name in ("mpg", "pipeline"):
        logging.getLogger(name).setLevel(logging.INFO)
    if options.command == "schema":
        print(json.dumps(job_schema(), indent=2))
        return 0
    if options.command in ("infer-weights", "train"):
        return _learn(options)
    if options.command == "judge":
        return _judge(options)
    try:
        job = load_job(options.job, options.set)
        prompts = job.load_prompts()
    except JobError as error:
        print("\n".join(f"mpg: {line}" for line in error.lines), file=sys.stderr)
        return USAGE_ERROR
    except PromptError as error:
        print(f"mpg: {options.job}: prompts: {error}", file=sys.stderr)
        return USAGE_ERROR
    if options.command == "check":
        n_prompts = len(prompts)
        print(f"{options.job}: {n_prompts} prompts x {job.n_personas} personas x {job.samples_per_cell} samples")
        print(f"{job.n_cells(n_prompts)} texts of at most {job.decoder.max_new_tokens} tokens, to {job.output}")
        return 0
    return _run(options.job, job, beam_arguments)


def _learn(options: argparse.Namespace) -> int:
    from pipeline.quiet import quiet_libraries

    quiet_libraries()
    try:
        report = infer.infer_weights(options) if options.command == "infer-weights" else train_command.train(options)
        if report:
            print(report)
    except (infer.InferError, train_command.TrainInputError) as error:
        print(f"mpg: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        again = "; the same command goes on from its last checkpoint" if options.command == "train" else ""
        print(f"mpg: stopped{again}", file=sys.stderr)
        return 130
    return 0


def _judge(options: argparse.Namespace) -> int:
    from pipeline.quiet import quiet_libraries

    quiet_libraries()
    try:
        judged = judge_command.judge(options)
    except judge_command.JudgeInputError as error:
        print(f"mpg: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        print("mpg: stopped; the same command goes on from what is judged", file=sys.stderr)
        return 130
    print(judged.report)
    if judged.stopped is not None:
        print(f"mpg: stopped: {judged.stopped}; the same command asks for the rest", file=sys.stderr)
        return FAILURE
    return 0


def _run(path: str, job: Job, beam_arguments: Sequence[str]) -> int:
    from pipeline.quiet import quiet_libraries

    quiet_libraries()
    from pipeline.report import print_report
    from pipeline.run import RunError, run_job

    try:
        result = run_job(job, beam_arguments)
    except RunError as error:
        print(f"mpg: {path}: {error}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print(f"mpg: stopped; the same command goes on from the rows in {job.output}", file=sys.stderr)
        return 130
    print_report(result)
    return 0


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
    for command in (run, check):
        command.add_argument("job", metavar="JOB.yaml", type=str, help="the job file")
        command.add_argument(
            "--set",
            metavar="FIELD=VALUE",
            action="append",
            default=[],
            help="override a field, e.g. --set decoder.name=scr (may be repeated)",
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
