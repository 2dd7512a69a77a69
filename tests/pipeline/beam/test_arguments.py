"""What Beam would drop in silence is refused, for every runner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.runner import create_runner

from pipeline.beam.arguments import argument_notes, argument_problems
from pipeline.beam.elsewhere import output_notes, output_problems
from pipeline.beam.options import beam_options, cost_note, devices_named, in_processes, n_devices, n_workers
from pipeline.beam.runners import IN_PROCESS, in_process_runner, runner_of

ROOT = Path(__file__).resolve().parents[3]
SERVICE, LOOPBACK = ["--job_endpoint=localhost:8099"], ["--environment_type=LOOPBACK"]
PORTABLE = ["--runner=PortableRunner", *SERVICE]
FLINK = ["--runner=FlinkRunner", *SERVICE, *LOOPBACK]
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
        ["--runner", "direct"],
        ["--runner=FnApiRunner"],
        ["--runner=FlinkRunner", "--parallelism=2", "--flink_master=localhost:8081", *SERVICE, *LOOPBACK],
        ["--runner=SparkRunner", "--spark_master_url=local[2]", *SERVICE, *LOOPBACK],
        ["--runner", "flink", "--job_endpoint", "localhost:8099", "--environment_type", "LOOPBACK"],
        ["--runner=PortableRunner", *SERVICE, *LOOPBACK],
        ["--runner=PortableRunner", "--parallelism=2", *SERVICE, *LOOPBACK],
        ["--runner=PortableRunner", "--job_endpoint=embed", *LOOPBACK],
        ["--runner=PortableRunner", *SERVICE, "--environment_type=EXTERNAL", "--environment_config=pool:50000"],
        ["--runner=PortableRunner", *SERVICE, "--environment_type=EXTERNAL", '--environment_config={"url": "a:5"}'],
        [
            "--runner=PortableRunner",
            *SERVICE,
            "--environment_type=EXTERNAL",
            "--environment_option=external_service_address=pool:50000",
        ],
        ["--runner=PortableRunner", *SERVICE, "--environment_type=PROCESS", '--environment_config={"command": "sh"}'],
        ["--runner=PortableRunner", *SERVICE, *LOOPBACK, "--resource_hint=min_ram=16GB", "--setup_file=pyproject.toml"],
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
        (["--runner=DataflowRunner", "--num_workers=-2"], "--num_workers=-2: out of range; give 0 or more"),
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
        (["--runner=dask"], "--runner=dask: DaskRunner loses rows without a word"),
        (["--runner", "daskrunner"], "--runner=daskrunner: DaskRunner loses rows without a word"),
        (["--runner=apache_beam.runners.PrismRunner"], "PrismRunner fetches a program"),
        (["--runner=SwitchingDirectRunner"], "SwitchingDirectRunner may choose Prism, which fetches a program"),
        (["--runner=tests.pipeline.beam.own_runners.Alias"], "SwitchingDirectRunner may choose Prism"),
        (["--runner=tests.pipeline.beam.own_runners.OwnPrism"], "PrismRunner fetches a program"),
        (["--runner=apache_beam.runners.runner.PipelineRunner"], "is no runner of Beam's; choose from"),
        (["--runner="], "--runner=: no such runner; choose from"),
        (["--run=DirectRunner"], "--run=DirectRunner: no option of Beam's; did you mean '--runner'?"),
        (["--runner=BundleBasedDirectRunner"], "is not known to work here; choose from DirectRunner"),
        (["--runner=no.such.Runner"], "--runner=no.such.Runner: can't be imported"),
        (["--runner=json.JSONDecoder"], "--runner=json.JSONDecoder: is no runner of Beam's"),
        (
            ["--runner=FlinkRunner", "--direct_num_workers=2"],
            "--direct_num_workers: an option of DirectRunner",
        ),
        (["--runner=direct", "--flink_master=x"], "--flink_master: an option of FlinkRunner, PortableRunner, without"),
        (["--job_endpoint", "x:1"], "--job_endpoint: an option of PortableRunner, FlinkRunner, SparkRunner, without"),
        ([*FLINK, "--spark_rest_url=x"], "--spark_rest_url: an option of SparkRunner, PortableRunner, without effect"),
        ([*FLINK, "--num_workers=2"], "--num_workers: an option of DataflowRunner, without effect on FlinkRunner"),
        ([*FLINK, "--region=x"], "--region: an option of DataflowRunner, without effect on FlinkRunner"),
        ([*FLINK, "--prism_location=x"], "--prism_location: an option of a runner that is refused, without effect"),
        (["--setup_file=pyproject.toml"], "--setup_file: an option of PortableRunner, FlinkRunner, SparkRunner, Data"),
        (["--streaming"], "--streaming: this job is a batch, which ends; remove it"),
        (["--streaming=true"], "--streaming: takes no value; write --streaming alone, or remove it"),
        (["--dry_run=True"], "--dry_run: runs nothing; remove it"),
        ([*PORTABLE, *LOOPBACK, "--output_executable_path=x"], "--output_executable_path: makes an executable and"),
        (["--runner=DataflowRunner", "--template_location=gs://b/t"], "--template_location: makes a template and"),
        ([*FLINK, "--resource_hint=gpu=1"], "--resource_hint: unknown resource hint: gpu; write accelerator=..."),
        ([*FLINK, "--resource_hint=accelerator"], "--resource_hint: resource hint accelerator has no value; write acc"),
        (["--resource_hint=min_ram=1GB"], "--resource_hint: an option of PortableRunner, FlinkRunner, SparkRunner, Da"),
        ([*FLINK, "--parallelism=-2"], "--parallelism=-2: out of range; give -1 or more"),
        ([*FLINK, "--resource_hint=min_ram=much"], "--resource_hint: resource hint min_ram has invalid value much;"),
        (
            ["--runner=FlinkRunner", "--flink_mster=x"],
            "--flink_mster=x: no option of Beam's; did you mean '--flink_m",
        ),
    ],
)
def test_the_rest_is_one_line_with_the_remedy(arguments: list[str], words: str) -> None:
    (line,) = argument_problems(arguments)
    assert words in line and "\n" not in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--runner=PortableRunner", *LOOPBACK], "--runner=PortableRunner: needs a job service; add --job_endpoint=ho"),
        (["--runner=flink", *LOOPBACK], "--runner=flink: needs a job service, and Beam would fetch one from the netw"),
        (["--runner=SparkRunner", *LOOPBACK], "add --job_endpoint=host:port, or --spark_job_server_jar=FILE"),
        (["--runner=SparkRunner", *LOOPBACK, "--spark_job_server_jar=no.jar"], "=no.jar: no such file; give the job"),
        (["--runner=PortableRunner", "--job_endpoint=localhost", *LOOPBACK], "=localhost: no address; write host:port"),
        (["--runner=PortableRunner", "--job_endpoint=http://a:1", *LOOPBACK], "=http://a:1: no address; write host:po"),
        (["--runner=PortableRunner", "--job_endpoint=localhost:99999", *LOOPBACK], ": no address; write host:port"),
        ([*PORTABLE, "--environment_type=external"], "=external: not one that Beam knows; did you mean 'EXTERNAL'?"),
        ([*PORTABLE, "--environment_type=THREAD"], "=THREAD: not one that Beam knows; choose from DOCKER, EXTERNAL"),
        ([*PORTABLE, "--environment_type=EXTERNAL"], "needs the address of a pool of workers; add --environment_conf"),
        (
            [*PORTABLE, "--environment_type=EXTERNAL", "--environment_config=pool"],
            "--environment_config=pool: no address of a pool of workers; write host:port",
        ),
        ([*PORTABLE, "--environment_type=EXTERNAL", "--environment_config={}"], "={}: no address of a pool of workers"),
        ([*PORTABLE, "--environment_type=PROCESS"], "needs the command that starts a worker; add --environment_config"),
        ([*PORTABLE, "--environment_type=PROCESS", "--environment_config=sh"], "=sh: can't be read; for PROCESS write"),
        (
            [*PORTABLE, "--environment_type=PROCESS", '--environment_config={"command": "no-such"}'],
            "'no-such' is no pr",
        ),
        ([*PORTABLE, "--environment_type=PROCESS", "--environment_config={}"], "needs the command that starts a worke"),
        ([*FLINK, "--setup_file=no.py"], "--setup_file=no.py: no such file; give one on this machine"),
        (
            ["--runner=PortableRunner", "--job_endpoint=far:8099", "--environment_type=DOCKER"],
            "--environment_type=DOCKER: Beam's own image has not this project in it; add --environment_config=IMAGE",
        ),
        (["--runner=PortableRunner", "--job_endpoint=far:8099"], "--environment_type: none is given, so DOCKER: Beam"),
        (["--runner=DataflowRunner"], "its workers have not this project installed; add --sdk_container_image=IMAGE"),
        (["--runner=dataflow", "--extra_package=no.whl"], "--extra_package=no.whl: no such file; give one on this"),
    ],
)
def test_what_workers_elsewhere_need_is_one_line_with_the_remedy(arguments: list[str], words: str) -> None:
    (line,) = argument_problems(arguments)
    assert words in line and "\n" not in line


def test_a_container_needs_docker_where_the_job_service_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    (line,) = argument_problems([*PORTABLE, "--environment_type=DOCKER", "--environment_config=image"])
    assert line.startswith("--environment_type=DOCKER: docker is not on this machine; install it, or give another of")
    assert argument_problems(["--runner=PortableRunner", "--job_endpoint=far:1", "--environment_config=image"]) == []


def test_workers_elsewhere_do_not_see_a_folder_here() -> None:
    image = ["--runner=DataflowRunner", "--sdk_container_image=image"]
    (line,) = output_problems("out/x", runner_of("dataflow"))
    assert line.startswith("output: out/x is a folder of this machine, which Dataflow's workers don't see; give one")
    assert output_problems("gs://bucket/x", runner_of("dataflow")) == [] == output_problems("out/x", runner_of("flink"))
    assert output_notes("out/x", beam_options(image), runner_of("dataflow")) == []
    (note,) = output_notes("out/x", beam_options(FLINK), runner_of("flink"))
    assert note == "output: out/x is a folder of this machine: workers of FlinkRunner on others have to see it too"
    assert output_notes("s3://bucket/x", beam_options(FLINK), runner_of("flink")) == []
    assert output_notes("out/x", beam_options([]), runner_of("direct")) == []


def test_beam_does_not_choose_the_runner() -> None:
    """Its DirectRunner is a switch; what is named is one class."""
    for arguments in ([], ["--runner=direct"], ["--runner", "apache_beam.runners.DirectRunner"], ["--runner=fnapi"]):
        options = beam_options(arguments)
        assert options.view_as(StandardOptions).runner == IN_PROCESS
        assert type(in_process_runner(options)) is FnApiRunner is type(create_runner(IN_PROCESS))


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


GPUS = "--resource_hint=accelerator=type:nvidia-l4;count:2;install-nvidia-driver"


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], 1),
        ([PROCESSES, "--direct_num_workers=3"], 3),
        (["--runner=DataflowRunner", "--num_workers=2"], 2),
        (["--runner=DataflowRunner", "--num_workers=2", "--max_num_workers=5", GPUS], 10),
        (["--runner=DataflowRunner", GPUS], None),
        (["--runner=FlinkRunner", "--parallelism=4"], 4),
        (["--runner=FlinkRunner"], None),
        (["--runner=PortableRunner", "--parallelism=4"], 4),
        (["--runner=SparkRunner"], None),
    ],
)
def test_devices_that_a_run_pays_for(options: list[str], wanted: int | None) -> None:
    """The same whether it is attached or detached; where nobody can know, that is said."""
    assert devices_named(beam_options(options)) == wanted
    assert n_devices(beam_options(options)) == (wanted or 1)
    note = cost_note(options)
    assert (note is None) == (wanted is not None)
    assert note is None or (note.startswith("device_price: ") and "count one device" in note)


def test_more_workers_than_cores_are_worth_a_note() -> None:
    (note,) = argument_notes(["--direct_num_workers=5000", PROCESSES])
    assert "cores" in note
    assert argument_notes([]) == []
