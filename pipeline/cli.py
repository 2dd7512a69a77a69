"""The `mpg` command."""

from __future__ import annotations

import argparse
import atexit
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, chdir
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import mpg
from evaluation.tables import plain
from personas.secrets import masked_words
from pipeline.commands import (
    calibrate,
    check,
    compare,
    export,
    finish,
    gate,
    infer_weights,
    init,
    judge,
    plan,
    publish,
    questionnaire,
    report,
    run,
    status,
    train,
    verify,
)
from pipeline.commands.arguments import add_directory, anywhere
from pipeline.commands.shared import InputError, Outcome
from pipeline.commands.stage import add_stage_options, check_interval, fill_places, line_of
from pipeline.events import FORMATS, TEXT, VARIABLE, event, is_json, log_to_stderr, redacted
from pipeline.exit_status import ExitStatus
from pipeline.plan.errors import RunError
from pipeline.store.copies import with_urls

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status, see :class:`pipeline.exit_status.ExitStatus`."""
    _print_anything()
    arguments = list(sys.argv[1:] if argv is None else argv)
    ours, beam_arguments = arguments, []
    if "--" in arguments:
        split = arguments.index("--")
        ours, beam_arguments = arguments[:split], arguments[split + 1 :]
    parser = _parser()
    options = parser.parse_args(ours)
    if options.command is None:
        parser.print_help()
        return ExitStatus.BAD_INPUT
    if beam_arguments and options.command not in _TAKE_BEAM_ARGUMENTS:
        text = f"{options.command}: takes no options after --; remove {beam_arguments[0]}"
        return _ended(options, Outcome("", text, ExitStatus.BAD_INPUT))
    settle = getattr(options, "settle", None)
    if settle is not None:
        settle(options)
    options.beam_arguments = beam_arguments
    if options.log_format is not None:
        os.environ[VARIABLE] = options.log_format  # worker processes ask for it, too
    if os.environ.get(VARIABLE, TEXT) not in FORMATS:
        text = f"{VARIABLE}={os.environ[VARIABLE]}: choose from {', '.join(FORMATS)}"
        return _ended(options, Outcome("", text, ExitStatus.BAD_INPUT))
    if is_json():
        os.environ["TQDM_DISABLE"] = "1"  # bars are no records
    log_to_stderr(options.verbose, also=with_urls)
    command = _COMMANDS[options.command]
    if command.loads_models:
        from pipeline.quiet import quiet_libraries

        quiet_libraries()
    with ExitStack() as folders:
        try:
            fill_places(options)
            for folder in (*options.directory, *options.directory_after):
                folders.enter_context(_inside(folder))
            check_interval(options)
            outcome = command.function(options)
        except InputError as error:
            outcome = Outcome("", str(error), error.status)
        except RunError as error:
            job = getattr(options, "job", None)
            outcome = Outcome("", str(error) if job is None else f"{job}: {error}", error.status)
        except KeyboardInterrupt:
            outcome = Outcome("", f"stopped{command.again}", ExitStatus.INTERRUPTED)
        return _ended(options, outcome)


def _ended(options: argparse.Namespace, outcome: Outcome) -> int:
    """Print what a command left; returns its exit status."""
    status = ExitStatus.DONE if outcome.problem is None else outcome.status
    # Before what is said on the other stream: both may go into one log.
    as_json = getattr(options, "json", False)
    if outcome.report:
        print(with_urls(outcome.report), file=sys.stderr if as_json else sys.stdout, flush=True)
    if as_json:
        problem = None if outcome.problem is None else _line_by_line(outcome.problem)
        print(with_urls(line_of(options, status, outcome.facts, problem)), flush=True)
    return status if outcome.problem is None else _fail(outcome.problem, status)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line without the keys that may stand in it."""

    def error(self, message: str) -> NoReturn:
        super().error(masked_words(message))


def _print_anything() -> None:
    """What a terminal or a log can't show is spelled out: it never ends a command."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _inside(folder: Path) -> chdir[Path]:
    """Work there. Raises InputError: nobody can."""
    if not os.access(folder, os.X_OK) or not folder.is_dir():
        what = "no such folder" if not folder.exists() else "is no folder that can be entered"
        raise InputError(f"-C {folder}: {what}; check the path")
    return chdir(folder)


def _line_by_line(problem: str, start: str = "") -> str:
    """Each of the problems as a line that any terminal can show, without secrets."""
    return "\n".join(f"{start}{redacted(plain(line))}" for line in with_urls(problem).splitlines())


def _fail(problem: str, status: int) -> int:
    if is_json():
        event(logger, "failed", level=logging.ERROR, status=int(status), message=problem)
    else:
        print(_line_by_line(problem, "mpg: "), file=sys.stderr)
    return status


class _Command(NamedTuple):
    function: Callable[[argparse.Namespace], Outcome]
    loads_models: bool = True
    again: str = ""  # what the same command does after it was stopped


_COMMANDS = {
    "run": _Command(run.run, again="; the same command goes on from the rows that are written"),
    "compare": _Command(compare.compare, again="; the same command goes on, and what is written is kept"),
    "calibrate": _Command(calibrate.calibrate, again="; the same command goes on, and what is written is kept"),
    "init": _Command(init.init, loads_models=False),
    "check": _Command(check.check),
    "infer-weights": _Command(infer_weights.infer_weights),
    "train": _Command(train.train, again="; the same command goes on from its last checkpoint"),
    "judge": _Command(judge.judge, again="; the same command goes on from what is judged"),
    "questionnaire": _Command(questionnaire.questionnaire),
    "plan": _Command(plan.plan),
    "verify": _Command(verify.verify),
    "publish": _Command(publish.publish, again="; the same command goes on, and what is uploaded is not sent again"),
    "gate": _Command(gate.gate),
    "export": _Command(export.export, loads_models=False),
    "report": _Command(report.report, loads_models=False),
    "status": _Command(status.status, loads_models=False),
    "stop": _Command(status.stop, loads_models=False),
    "finish": _Command(finish.finish, again="; the same command goes on"),
    "schema": _Command(check.schema, loads_models=False),
}


# Commands on what a run has written: which argument is its folder, and in which others {interval} may stand.
_ON_A_DATA_SET: dict[str, tuple[str, tuple[str, ...]]] = {
    "judge": ("corpus", ("output",)),
    "verify": ("folder", ()),
    "publish": ("folder", ("repo_id", "revision", "tag", "message")),
    "export": ("folder", ()),
    "gate": ("folder", ("against", "job_file")),
    "report": ("folders", ("output",)),
    "status": ("output", ()),
    "stop": ("output", ()),
    "finish": ("output", ()),
}
_TAKE_BEAM_ARGUMENTS = ("run", "compare", "calibrate", "check", "plan", "finish")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mpg",
        description="Write personalised text corpora: attributes composed at decoding time (MPG, SCR).",
    )
    parser.add_argument("-v", "--verbose", action="count", default=0,
                        help="log each shard, and what libraries say; twice: dead letters' own words, too")  # fmt: skip
    parser.add_argument("--log-format", choices=FORMATS, help=f"of what is logged on stderr (or {VARIABLE}=json): "
                        "a JSON object a line, of every shard, without a bar, for programs")  # fmt: skip
    parser.add_argument("--version", action="version", version=f"mpg-scr {mpg.__version__}")
    add_directory(parser, "directory")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    init.add_arguments(commands.add_parser("init", help="write a small job file of your own, to begin with"))
    runs = commands.add_parser(
        "run",
        help="run a job file: decode its grid, judge the texts, write the data set",
        epilog="What follows -- goes to Apache Beam: mpg run JOB.yaml -- --direct_num_workers=2 "
        "--direct_running_mode=multi_processing",
    )
    checked = commands.add_parser(
        "check",
        help="check a job file and say how many texts it will write",
        epilog="What follows -- are Apache Beam's options, checked too: mpg check JOB.yaml -- --direct_num_workers=2",
    )
    asked = commands.add_parser(
        "questionnaire", help="put questions to a job's personas: what type do they answer like?"
    )
    planned = commands.add_parser(
        "plan", help="what a job will take: tokens, time, money, from a pilot on this machine"
    )
    calibrated = commands.add_parser(
        "calibrate", help="strengths by attribute from a pilot, so that what is judged follows the weights"
    )
    for command in (runs, checked, planned, asked, calibrated):
        nargs = "?" if command is asked else None  # its --items may have swallowed it
        command.add_argument("job", metavar="JOB.yaml", nargs=nargs, help="the job file, or a data set's job.json")
        command.add_argument(
            "--set",
            metavar="FIELD=VALUE",
            action="append",
            default=[],
            help="override a field, e.g. --set decoder.name=scr (may be repeated)",
        )
        add_stage_options(command)
        if command not in (asked, calibrated):
            command.add_argument("--output", dest="output_folder", type=anywhere, metavar="DIR",
                                 help="folder of the data set, from where you stand; left out: the job's")  # fmt: skip
    run.add_arguments(runs)
    plan.add_arguments(planned)
    calibrate.add_arguments(calibrated)
    questionnaire.add_arguments(asked)
    compare.add_arguments(
        commands.add_parser(
            "compare", help="compare methods: tasks x methods x strengths, on the same prompts and seeds"
        )
    )
    verify.add_arguments(
        commands.add_parser("verify", help="check a data set's files, and write some of its rows again")
    )
    gate.add_arguments(
        commands.add_parser("gate", help="may a data set follow the last revision? what changed, and why not")
    )
    publish.add_arguments(commands.add_parser("publish", help="publish a data set on the Hugging Face Hub"))
    infer_weights.add_arguments(
        commands.add_parser(
            "infer-weights",
            help="find the weights that explain examples a user liked, and write them as a persona",
        )
    )
    train.add_arguments(
        commands.add_parser("train", help="train an adapter from preference pairs, or from two descriptions")
    )
    judge.add_arguments(
        commands.add_parser("judge", help="score any corpus, without generating again, and say how far to believe it")
    )
    export.add_arguments(
        commands.add_parser("export", help="put a data set's rows into a form to train on: messages, pairs, ...")
    )
    report.add_arguments(
        commands.add_parser("report", help="write one HTML page to look at a data set, or several side by side")
    )
    status.add_arguments(commands.add_parser("status", help="how far a run is, told from its output, wherever it runs"))
    status.add_stop_arguments(commands.add_parser("stop", help="end a run, wherever it runs; the same command goes on"))
    finish.add_arguments(
        commands.add_parser(
            "finish",
            help="write the data set of a run that was detached, once its workers are done",
            description="After mpg run JOB --detach: once its workers are done, ask the judges behind endpoints and "
            "write data set, record and card. Decodes nothing; goes from any machine that reaches the output. Workers "
            "that Beam's options name after -- put a large one together.",
        )
    )
    check.add_schema_arguments(commands.add_parser("schema", help="print the JSON schema of job files, for editors"))
    for name, (place, fills) in _ON_A_DATA_SET.items():
        add_stage_options(commands.choices[name], place=place, fills=fills)
    for command in commands.choices.values():
        add_directory(command, "directory_after")
    return parser


class _Pipe(io.FileIO):
    """A standard stream whose reader may leave (``mpg schema | head``): what it would have read is let go.

    Attributes:
        lost: why something else could not be written, if so.
    """

    lost: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return super().write(content) or 0
        except BrokenPipeError:
            return memoryview(content).nbytes
        except OSError as error:
            self.lost = error
            return memoryview(content).nbytes


def _streams_that_outlive_their_readers() -> list[_Pipe]:
    """And that print what their encoding lacks as escapes."""
    pipes = []
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            pipes.append(_Pipe(stream.fileno(), "w", closefd=False))
            wrapped = io.TextIOWrapper(
                io.BufferedWriter(pipes[-1]),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=name == "stderr" or stream.isatty(),
            )
            setattr(sys, name, wrapped)
    return pipes


def entry_point() -> None:
    """Installed as `mpg`."""
    pipes = _streams_that_outlive_their_readers()
    try:
        status = main()
    except SystemExit as end:  # of argparse
        status = end.code if isinstance(end.code, int) else ExitStatus.FAILED
    sys.stdout.flush()
    lost = next((pipe.lost for pipe in pipes if pipe.lost is not None), None)
    if lost is not None:
        status = _fail(f"what was printed could not be written ({lost.strerror})", status or ExitStatus.FAILED)
    sys.stderr.flush()
    atexit._run_exitfuncs()
    # No further: threads of libraries that are still at their beginning would abort an interpreter that is taken down.
    os._exit(status)


if __name__ == "__main__":
    entry_point()
