"""What Beam would drop in silence is refused, for every runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.beam.arguments import argument_notes, argument_problems
from pipeline.beam.options import beam_options, in_processes, n_workers

ROOT = Path(__file__).resolve().parents[3]
PROCESSES = "--direct_running_mode=multi_processing"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--direct_num_workers=2", PROCESSES],
        ["--direct_num_workers", "2", "--direct_running_mode", "multi_processing"],
        ["--direct_num_workers=0", PROCESSES],
        ["--direct_num_workers=1"],
        [PROCESSES],
        ["--direct_num_workers=3", "--direct_running_mode=multi_threading"],
        ["--runner=direct", "--job_name=x"],
        ["--runner=FlinkRunner", "--parallelism=2", "--flink_master=localhost:8081"],
        ["--runner=SparkRunner", "--spark_master_url=local[2]"],
        ["--runner=PortableRunner", "--job_endpoint=localhost:8099", "--environment_type=LOOPBACK"],
    ],
)
def test_what_beam_takes_is_taken(arguments: list[str]) -> None:
    assert argument_problems(arguments) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--direct_numworkers=2"], "--direct_numworkers=2: no option of Beam's; did you mean '--direct_num_workers'?"),
        (["--direct_numworkers", "2"], "--direct_numworkers: no option of Beam's; did you mean '--direct_num_workers'"),
        (["--direct_num=2"], "--direct_num=2: no option of Beam's; did you mean"),
        (["--direct_running_mod=multi_processing"], "did you mean '--direct_running_mode'?"),
        (["--wholly-unlike=1"], "--wholly-unlike=1: no option of Beam's; see"),
        (["-n", "2"], "-n: no option of Beam's"),
        (["--help"], "--help: no option of Beam's"),
        (["two"], "two: belongs to no option; write --option=value"),
        (
            ["--direct_num_workers=4"],
            "--direct_num_workers=4: one worker, in running mode in_memory; add --direct_run",
        ),
        (["--direct_num_workers=0"], "--direct_num_workers=0: one worker"),
        (["--direct_num_workers=4", "--direct_running_mode=in_memory"], "make it --direct_running_mode=multi_proc"),
        (["--direct_num_workers=-1", PROCESSES], "--direct_num_workers=-1: out of range; give 0 or more (0: as many"),
        (["--num_workers=-2"], "--num_workers=-2: out of range; give 0 or more"),
        (["--direct_num_workers=two", PROCESSES], "--direct_num_workers=two: can't be read; give a whole number"),
        (["--direct_num_workers"], "--direct_num_workers: expected one argument"),
        (
            ["--direct_running_mode=multiprocessing"],
            "=multiprocessing: not one of its values; did you mean 'multi_p",
        ),
        (["--direct_running_mode=fast"], "fast: not one of its values; choose from in_memory, multi_threading, multi"),
        (["--runner=DirectRuner"], "--runner=DirectRuner: no such runner; did you mean 'DirectRunner'?"),
        (["--runner=Nobody"], "--runner=Nobody: no such runner; choose from DirectRunner, FlinkRunner"),
        (["--runner=PrismRunner"], "--runner=PrismRunner: PrismRunner fetches a program"),
        (["--runner=prism"], "--runner=prism: PrismRunner fetches a program"),
        (["--runner", "apache_beam.runners.dask.dask_runner.DaskRunner"], "DaskRunner loses rows without a word"),
        (["--runner=DaskRunner"], "--runner=DaskRunner: DaskRunner loses rows without a word"),
        (["--runner=BundleBasedDirectRunner"], "is not known to work here; choose from DirectRunner"),
        (["--runner=no.such.Runner"], "--runner=no.such.Runner: can't be imported"),
        (["--runner=json.JSONDecoder"], "--runner=json.JSONDecoder: is no runner of Beam's"),
        (
            ["--runner=FlinkRunner", "--direct_num_workers=2"],
            "--direct_num_workers: an option of DirectRunner",
        ),
        (
            ["--runner=FlinkRunner", "--flink_mster=x"],
            "--flink_mster=x: no option of Beam's; did you mean '--flink_m",
        ),
    ],
)
def test_the_rest_is_one_line_with_the_remedy(arguments: list[str], words: str) -> None:
    (line,) = argument_problems(arguments)
    assert words in line and "\n" not in line


def test_every_mistake_has_its_line() -> None:
    lines = argument_problems(["--direct_numworkers=2", "--direct_num_workers=-1", "--regoin=x"])
    assert [line.partition("=")[0] for line in lines] == ["--direct_numworkers", "--regoin", "--direct_num_workers"]


def test_a_runner_needs_its_own_options() -> None:
    lines = argument_problems(["--runner=DataflowRunner"])
    assert lines and all(line.startswith("--runner=DataflowRunner: ") for line in lines)


RUNNER_TO_COME = """
from apache_beam.options.pipeline_options import PipelineOptions
from pipeline.beam.arguments import argument_problems

class RunnerToCome(PipelineOptions):
    @classmethod
    def _add_argparse_args(cls, parser):
        parser.add_argument("--to_come_workers", type=int, required=True)

print(argument_problems(["--to_come_workers=2"]), argument_problems(["--to_come_worker=2"])[0])
"""


def test_options_of_a_runner_to_come_are_known_once_it_is_named() -> None:
    """In a process of its own: Beam would ask every later pipeline of this one for the option."""
    run = subprocess.run([sys.executable, "-c", RUNNER_TO_COME], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.startswith("[] ") and "did you mean '--to_come_workers'" in run.stdout


def test_a_runner_is_the_same_however_it_is_written() -> None:
    for name in ("DirectRunner", "direct", "directrunner", "apache_beam.runners.direct.direct_runner.DirectRunner"):
        options = beam_options([f"--runner={name}", PROCESSES, "--direct_num_workers=3"])
        assert in_processes(options) and n_workers(options) == 3
    assert not in_processes(beam_options(["--runner=FlinkRunner", PROCESSES]))


def test_more_workers_than_cores_are_worth_a_note() -> None:
    (note,) = argument_notes(["--direct_num_workers=5000", PROCESSES])
    assert "cores" in note
    assert argument_notes([]) == []
