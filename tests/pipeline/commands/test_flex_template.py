"""The Dataflow Flex Template: parameters against schema and options, and a launch up to the job's specification."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import google.cloud.storage
import pytest
import yaml
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.portability.common_urns import resource_hints

from pipeline.beam.detached import launched_as
from pipeline.cli import main
from pipeline.commands import flex_launch, flex_template
from pipeline.commands.flex_launch import IMAGE_VARIABLE, _yaml, command_line
from pipeline.commands.flex_template import OPTIONS, Parameter, metadata, parameters
from pipeline.commands.shared import InputError
from pipeline.job.fields import Decoder
from pipeline.job.model import Job, Model
from pipeline.job.read import apply_overrides
from pipeline.store.detached import noted
from pipeline.store.files import write_bytes
from pipeline.store.places import expanded
from tests.dataflow_stub import DataflowStub
from tests.store_servers import gcs_server
from tests.tiny_job import make_job
from tools.flex_metadata import FILE, text

FOLDER = FILE.parent
ID = "2026-11-28_00_30_18-1234567890123456789"
SPECIFICATION = f"gs://bucket/staging/template_launches/{ID}/job_object"
IMAGE = "europe-docker.pkg.dev/some-project/images/mpg-scr:1"
GPU = "type:nvidia-l4;count:1;install-nvidia-driver:5xx"
# What Dataflow's launcher adds to a template's parameters, of its own and of gcloud's flags.
ADDED = {
    "runner": "DataflowRunner",
    "project": "some-project",
    "region": "europe-west4",
    "job_name": "mpg-tiny",
    "staging_location": "gs://bucket/staging",
    "temp_location": "gs://bucket/tmp",
    "template_location": SPECIFICATION,
    "num_workers": "1",
    "max_num_workers": "4",
    "machine_type": "g2-standard-8",
    "service_account_email": "me@some-project.iam.gserviceaccount.com",
    "labels": '{"team": "corpora"}',
}


def test_the_file_is_what_schema_and_options_give() -> None:
    assert FILE.read_text("utf-8") == text(), "python -m tools.flex_metadata writes it"


def test_parameters_have_the_form_that_the_service_takes() -> None:
    found = metadata()["parameters"]
    names = [each["name"] for each in found]
    assert len(names) == len(set(names)) and all(re.fullmatch("[a-z][a-z0-9_]*", name) for name in names)
    assert [each["name"] for each in found if not each["isOptional"]] == ["job", "output"]
    for each in found:
        assert each["label"] and each["helpText"]
        (pattern,) = each["regexes"]
        assert not re.search(r"\\[dwsb]|\(\?", pattern), f"{pattern} is no POSIX egrep"
        assert all(re.search(pattern, option["value"]) for option in each.get("enumOptions", ()))
    done = subprocess.run(
        ["grep", "-E", "-f", "-"], input="\n".join(each["regexes"][0] for each in found), text=True, capture_output=True
    )
    assert done.returncode < 2, done.stderr  # 2: a pattern that egrep can't read


def test_every_field_that_holds_one_value_is_a_parameter() -> None:
    """Those that are none hold more than one value, or have a parameter of their own."""
    paths = {each.path for each in parameters() if each.path}
    rest = {name for name in Job.model_fields if name not in paths}
    assert rest == {
        "model",
        "attributes",
        "personas",
        "prompts",
        "decoder",
        "judges",
        "accept",
        "split",
        "gate",
        "card",
        "output",
    }
    assert {f"decoder.{name}" for name in Decoder.model_fields} - paths == {"decoder.strength"}
    assert {f"model.{name}" for name in Model.model_fields} - paths == {"model.template_arguments"}


def test_no_parameter_hides_an_option_of_beams() -> None:
    from pipeline.beam.arguments import options_of_beam

    beam = options_of_beam()
    assert {each.name for each in parameters() if f"--{each.name}" in beam} == set(OPTIONS)


def outcome(path: str, value: str) -> object:
    """What the job's own model makes of a field's value, read as ``--set`` reads it; an exception is one."""
    data: dict[str, Any] = {
        "name": "x", "model": {"id": "m"}, "attributes": ["E"], "personas": {"kind": "one-hot"},
        "prompts": {"dataset": "d"} if path.split(".")[-1] in OF_A_DATA_SET else {"file": "p"}, "output": "o",
    }  # fmt: skip
    apply_overrides(data, [f"{path}={value}"], "job")
    context = {"folder": Path(), "shipped": {}}
    return Job.model_validate(data, context=context)


OF_A_DATA_SET = ("split", "config", "revision", "streaming")
SAMPLES = ("0", "1", "7", "64", "0.5", ".5", "1.0", "2.5", "1e-3", "-1", "", "true", "false", "null", "some words",
           "2026-11-28", "6h", "1h30m", "scr", "best-of-n", "auto", "median", "a b", "x;y", "$x", "0.9.1",
           "2026-11-23 06:30", "2026-W48", "2026-W48-1T06:30+01:00", "20261123T063000Z")  # fmt: skip


@pytest.mark.parametrize("parameter", [each for each in parameters() if each.path], ids=lambda each: each.name)
def test_a_parameters_check_says_what_the_schema_says(parameter: Parameter) -> None:
    """What its pattern takes the job takes, but for ranges, which are in the help; what it refuses the job refuses."""
    assert parameter.path is not None
    for value in SAMPLES:
        fits = re.fullmatch(parameter.pattern, value) is not None
        written = _yaml(parameter, value) if fits else json.dumps(value) if parameter.is_text else value
        try:
            outcome(parameter.path, written)
        except ValueError as error:
            ranges = "greater than|less than|no deadline|no day|no interval|give either|encoding|licen[cs]e"
            assert not fits or re.search(ranges, str(error)), (value, str(error))
        else:
            assert fits or not value, value  # an empty one is as good as none


@pytest.fixture
def bucket(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A job in an emulator of Google's storage, whose model and adapters are this machine's, as an image's would be."""
    monkeypatch.setenv(IMAGE_VARIABLE, IMAGE)
    with gcs_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        folder = job_file.parent
        job = yaml.safe_load(job_file.read_text())
        job["model"]["id"] = str(folder / "base")
        job["attributes"] = [{"name": name, "adapter": str(folder / name)} for name in "EJ"]
        write_bytes(yaml.safe_dump(job | {"output": "out"}).encode(), expanded("gs://bucket/jobs/job.yaml"))
        write_bytes((folder / "prompts.jsonl").read_bytes(), expanded("gs://bucket/jobs/prompts.jsonl"))
        yield "gs://bucket/jobs/job.yaml"


def launch() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location("launch", FOLDER / "launch.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module.launch  # type: ignore[no-any-return]


def written(place: str) -> Any:
    name = place.removeprefix("gs://bucket/")
    return google.cloud.storage.Client.create_anonymous_client().bucket("bucket").blob(name).download_as_bytes()


def arguments(parameters: Mapping[str, str]) -> list[str]:
    return [*(f"--{name}={value}" for name, value in (dict(parameters) | ADDED).items()), "--no_auth"]


def test_a_launch_writes_the_jobs_specification_and_a_later_command_finds_the_job(
    bucket: str, capfd: pytest.CaptureFixture[str]
) -> None:
    given = {
        "job": bucket,
        "output": "gs://bucket/{interval}",
        "set": "judges=[]",
        "accelerator": GPU,
        "disk_size_gb": "100",
    }
    given |= {"autoscaling_algorithm": "THROUGHPUT_BASED", "deadline": "9h", "device_price": "2", "decoder_top_k": "3"}
    given["interval"] = "2026-11-23"
    with DataflowStub("JOB_STATE_RUNNING") as stub:
        assert launch()([*arguments(given), f"--dataflow_endpoint={stub.address}"]) == 0, capfd.readouterr().err
        assert stub.jobs == []  # the launcher submits it
        assert main(["finish", "gs://bucket/2026-11-23"]) == 75
    said = capfd.readouterr()
    assert f"12 rows to decode: submitted to DataflowRunner at some-project, europe-west4, job {ID}" in said.out
    assert "(4 devices at 2 an hour)" in said.out and "is at work there (RUNNING)" in said.err
    job = json.loads(written(SPECIFICATION))
    assert job["type"] == "JOB_TYPE_BATCH" and job["name"] == "mpg-tiny" and job["labels"] == {"team": "corpora"}
    (pool,) = job["environment"]["workerPools"]
    assert (pool["machineType"], pool["diskSizeGb"], pool["numWorkers"]) == ("g2-standard-8", 100, 1)
    assert pool["autoscalingSettings"] == {"algorithm": "AUTOSCALING_ALGORITHM_BASIC", "maxNumWorkers": 4}
    assert pool["numThreadsPerWorker"] == 2  # one for the GPU, one that reads and writes
    assert {each["containerImage"] for each in pool["sdkHarnessContainerImages"]} == {IMAGE}
    experiments = job["environment"]["experiments"]
    assert "no_use_multiple_sdk_containers" in experiments and "use_multiple_sdk_containers" not in experiments
    place = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    pipeline = beam_runner_api_pb2.Pipeline.FromString(written(place))
    environments = pipeline.components.environments
    hinted = {
        step.unique_name.split("/")[0]: dict(environments[step.environment_id].resource_hints)
        for step in pipeline.components.transforms.values()
        if step.environment_id and environments[step.environment_id].resource_hints
    }
    assert hinted == {"Decode every cell": {resource_hints.ACCELERATOR.urn: GPU.encode()}}
    detached = noted(expanded("gs://bucket/2026-11-23/.work"))
    assert detached is not None and detached.job_id == ID and detached.until is not None


def test_a_launch_of_what_is_there_writes_a_graph_that_does_nothing(
    bucket: str, job_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """So that a launch that is repeated ends well; on workers without GPUs, too."""
    assert main(["run", bucket, "--output", "gs://bucket/out", "--set", "judges=[]", "--set", "threads=1"]) == 0
    given = {"job": bucket, "output": "gs://bucket/out", "set": "judges=[]"}
    assert launch()(arguments(given)) == 0, capfd.readouterr().err
    assert "nothing is left for workers to do; mpg finish gs://bucket/out" in capfd.readouterr().out
    job = json.loads(written(SPECIFICATION))
    experiments = job["environment"]["experiments"]
    assert "use_multiple_sdk_containers" in experiments  # a process for each vCPU, with a thread
    assert job["environment"]["workerPools"][0]["numThreadsPerWorker"] == 1
    assert main(["finish", "gs://bucket/out"]) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "job: is missing; The job file"),
        ({"job": "job.yaml"}, "job: 'job.yaml' has not its form (gs://"),
        ({"job": "gs://bucket/j.yaml", "output": "out"}, "output: 'out' has not its form"),
        (
            {"job": "gs://bucket/j.yaml", "output": "gs://bucket/o", "decoder_top_p": "two"},
            "decoder_top_p: 'two' has not",
        ),
        (
            {"job": "gs://bucket/j.yaml", "output": "gs://bucket/o", "accelerator": "nvidia-l4"},
            "accelerator: 'nvidia-l4'",
        ),
        ({"job": "gs://bucket/j.yaml", "output": "gs://bucket/o", "set": "a"}, "set: 'a' has not its form"),
    ],
)
def test_a_mistake_is_a_line_before_anything_is_read(
    given: dict[str, str], words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launch()(arguments(given)) == 2
    assert f"launch: {words}" in capfd.readouterr().err


def test_parameters_become_fields_and_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts stay texts, repeated options stay repeated, and what a user says of processes holds."""
    monkeypatch.setattr(flex_template, "_BUCKET", "")  # places of this machine
    monkeypatch.setitem(flex_template._PATTERNS, "output", ".+")
    job = make_job(tmp_path)
    given = ["--job", str(job), f"--output={tmp_path / 'out'}", "--model_system=123", "--seed=7", "--deadline="]
    found = command_line(
        [*given, "--set=personas.steps=3;judges=[]", f"--accelerator={GPU}", "--resource_hint=min_ram=16GB",
         "--labels=a=b", "--labels=c=d", "--experiments=use_multiple_sdk_containers,x",
         "--number_of_worker_harness_threads=5"]
    )  # fmt: skip
    ours, beam = found[: found.index("--")], found[found.index("--") + 1 :]
    assert ours[:5] == ["run", str(job), "--output", str(tmp_path / "out"), "--detach"]
    assert [ours[i + 1] for i, word in enumerate(ours) if word == "--set"] == [
        'model.system="123"', "seed=7", "personas.steps=3", "judges=[]",
    ]  # fmt: skip
    assert [word for word in beam if "hint" in word] == [
        "--resource_hint=min_ram=16GB",
        f"--resource_hint=accelerator={GPU}",
    ]
    assert [word for word in beam if "labels" in word] == ["--labels=a=b", "--labels=c=d"]
    assert [word for word in beam if "experiments" in word] == ["--experiments=use_multiple_sdk_containers,x"]
    assert "--number_of_worker_harness_threads=5" in beam and "--number_of_worker_harness_threads=2" not in beam
    service = f"--dataflow_service_options=enable_x,worker_accelerator={GPU.replace('count:1', 'count:4')}"
    beam = command_line([*given, service])
    assert "--number_of_worker_harness_threads=5" in beam and "--experiments=no_use_multiple_sdk_containers" in beam
    assert service in beam and "threads=1" not in beam
    with pytest.raises(InputError, match="model_dtype: auto is decided by the machine that submits"):
        command_line([*given, f"--accelerator={GPU}", "--model_dtype=auto"])


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (["--interval=2026-11-16", "--set=interval=2026-11-23"], False),
        (["--interval=2026-11-23", "--set=judges=[];interval=2026-11-23"], True),
        (["--interval=2026-W48", "--set=interval='2026-W48'"], True),
        (["--budget=4", "--set=budget=4.0"], True),
        (["--budget=4", "--set=budget=5"], False),
        (["--set=output=gs://bucket/p"], False),
        (["--decoder_top_p=0.5", "--set=decoder={name: scr}"], False),
        (["--decoder_top_p=0.5", "--set=decoder={name: scr, top_p: 0.5}"], True),
        (["--model_system=123", '--set=model.system="123"'], True),
        (["--decoder_top_p=0.5", "--set=decoder.top_k=3;accept=null"], True),
    ],
)
def test_a_parameter_and_set_do_not_contradict_each_other(given: list[str], same: bool) -> None:
    job = ["--job=gs://bucket/j.yaml", "--output=gs://bucket/o"]
    found = dict(flex_launch._read([*job, *given])[0])
    problems = list(flex_launch._twice(found, {each.name: each for each in parameters()}))
    assert len(problems) == (not same), problems
    if not same:
        with pytest.raises(InputError, match=r"and set says .*; remove one of the two, or give the same value"):
            command_line([*job, *given])


def test_where_a_launcher_wants_a_specification_says_which_job_it_is() -> None:
    assert launched_as(SPECIFICATION) == ID
    assert launched_as("gs://bucket/template/job.json") is None


def test_a_specification_needs_dataflow_and_nobody_else_to_submit(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(job_file), "--specification", "x"]) == 2
    assert "--specification: somebody else submits the job; add --detach" in capsys.readouterr().err
    portable = ["--", "--runner=PortableRunner", "--job_endpoint=h:1", "--environment_type=DOCKER"]
    assert main(["run", str(job_file), "--detach", "--specification", "x", *portable]) == 2
    assert "--specification: PortableRunner has none" in capsys.readouterr().err
    dataflow = ["--", "--runner=DataflowRunner"]
    assert main(["run", str(job_file), "--detach", "--specification", "s3://b/x", *dataflow]) == 2
    assert "--specification s3://b/x: Beam writes it to gs://" in capsys.readouterr().err
