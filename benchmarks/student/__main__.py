"""``python -m benchmarks.student [FILE]``: is a corpus worth training on? Killed, the same command goes on."""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from benchmarks.student.study import load_study
from pipeline.compare.tables import Made
from pipeline.exit_status import ExitStatus
from pipeline.job.errors import JobError
from pipeline.judging.registry import JudgeError
from pipeline.plan.errors import RunError

ROOT = Path(__file__).parents[2]
# Whether it runs, in a minute or less: numbers of such a size say nothing.
SMOKE = (
    "job.decoder.max_new_tokens=8",
    "prompts.limit=2",
    "test_prompts.limit=2",
    "samples_per_cell=2",
    "keep=2",
    "training.seeds=[0,1]",
    "training.steps=2",
    "training.batch_size=2",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is not there yet, print the tables and write them."""
    parser = argparse.ArgumentParser(prog="benchmarks.student", description=__doc__)
    parser.add_argument("study", nargs="?", default=ROOT / "workflows" / "student.yaml", type=Path, metavar="FILE")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="override a field")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="of corpora, students and texts (default: the file's)"
    )
    parser.add_argument("--results", type=Path, metavar="DIR",
                        help="of the tables (default: benchmarks/results; of a smoke test, the output)")  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help="a few texts and steps: whether it runs")
    parser.add_argument("--check", action="store_true", help="say what it would write and train; no more")
    options = parser.parse_args(arguments)
    output = options.output
    if options.smoke and output is None:
        output = ROOT / "out" / "student-smoke"
    try:
        study = load_study(options.study, [*(SMOKE if options.smoke else ()), *options.set], output)
    except JobError as error:
        print("\n".join(error.lines), file=sys.stderr)
        return ExitStatus.BAD_INPUT
    if options.check:
        n, seeds = len(study.corpora), len(study.training.seeds)
        each = study.corpus_job(study.corpora[0])
        tested = len(study.test_personas()) * len(study.test_prompts_of()) * study.test_samples * seeds
        print(f"{n} corpora of {each.n_cells(len(each.load_prompts()))} texts, {n * seeds} students, "
              f"{n + 1} x {tested} texts of tests, to {study.output_folder}")  # fmt: skip
        return ExitStatus.DONE
    from benchmarks.student.run import run  # what is heavy: not for a mistake in the file
    from benchmarks.student.tables import write_tables

    try:
        with _progress():
            found = run(study)
    except KeyboardInterrupt:
        print(f"{options.study}: stopped; the same command goes on", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except (RunError, JudgeError) as error:
        print(f"{options.study}: {error}", file=sys.stderr)
        return error.status if isinstance(error, RunError) else ExitStatus.BAD_INPUT
    results = options.results or (study.output_folder if options.smoke else ROOT / "benchmarks" / "results")
    made = Made(_command(options), "; ".join(found.machines), f"{date.today()}")
    *tables, text = write_tables(study, found, made, results)
    print(text.read_text("utf-8"), end="")
    print("\n".join(f"written: {path}" for path in (*tables, text)))
    return ExitStatus.DONE


@contextmanager
def _progress() -> Iterator[None]:
    """What the study is at, on standard error, whatever other loggers do."""
    logger, handler = logging.getLogger("benchmarks.student"), logging.StreamHandler()
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = before


def _command(options: argparse.Namespace) -> str:
    """As it was given, without where its output goes on this machine."""
    file = [] if options.study == ROOT / "workflows" / "student.yaml" else [options.study.name]
    words = ["python", "-m", "benchmarks.student", *file, *(word for each in options.set for word in ("--set", each))]
    return shlex.join([*words, *["--smoke"] * options.smoke])


if __name__ == "__main__":
    sys.exit(main())
