"""A submission to Dataflow without a network: options, hints, the job's specification in a bucket, and its end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import apache_beam as beam
import google.cloud.storage
import pytest
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.portability.common_urns import resource_hints

from pipeline.beam import wait
from pipeline.beam.arguments import argument_problems, unreachable
from pipeline.beam.detached import Standing, standing
from pipeline.beam.execute import execute, run
from pipeline.beam.graph import build
from pipeline.beam.options import beam_options, take_hints
from pipeline.beam.supervise import GraphFailed
from pipeline.beam.to_do import keep_shards
from pipeline.beam.work import Work
from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.job.load import load_job
from pipeline.plan import computed_with
from pipeline.plan.plan import Plan
from pipeline.plan.stored import store_plan
from pipeline.store.detached import Detached
from pipeline.store.errors import refused
from tests.dataflow_stub import DataflowStub
from tests.store_servers import gcs_server

HINTS = {"accelerator": "type:nvidia-l4;count:1;install-nvidia-driver", "min_ram": "16GB"}
READ_BACK = {
    resource_hints.ACCELERATOR.urn: HINTS["accelerator"].encode(),
    resource_hints.MIN_RAM_BYTES.urn: b"%d" % 16e9,
}


@pytest.fixture
def work(job_file: Path) -> Work:
    """What a run of the tiny job has to do at its beginning."""
    job = load_job(job_file)
    settled = computed_with.settled(job.output_folder, job, 1, 12)
    plan = Plan.of(job, settled.dtype, settled.attributes)
    cells = plan.cells(grid := job.cells(job.load_prompts()))
    (folder := job.output_folder / ".work").mkdir(parents=True)
    stored = store_plan(folder, plan.rule, grid)
    return Work(keep_shards(folder, [cells[:6], cells[6:]]), [], stored, folder, settled)


def steps_with_hints(pipeline: beam_runner_api_pb2.Pipeline) -> dict[str, dict[str, bytes]]:
    """The steps whose environment has hints, by their labels."""
    environments, found = pipeline.components.environments, {}
    for step in pipeline.components.transforms.values():
        hints = dict(environments[step.environment_id].resource_hints) if step.environment_id else {}
        if hints:
            found[step.unique_name.split("/")[0]] = hints
    return found


def test_a_resource_hint_is_the_decode_steps_alone(work: Work) -> None:
    options = beam_options(["--runner=dataflow", *(f"--resource_hint={name}={of}" for name, of in HINTS.items())])
    hints = take_hints(options)
    assert hints == HINTS
    pipeline = beam.Pipeline(runner="FnApiRunner", options=options)
    build(pipeline, work, hints)
    assert steps_with_hints(pipeline.to_runner_api()) == {"Decode every cell": READ_BACK}


def test_without_a_hint_no_step_has_one(work: Work) -> None:
    pipeline = beam.Pipeline(runner="FnApiRunner", options=beam_options([]))
    build(pipeline, work, {})
    assert steps_with_hints(pipeline.to_runner_api()) == {}


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An emulator of Google's storage with a bucket, as the environment's; its client's module."""
    with gcs_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield google.cloud.storage


def options_for(stub: DataflowStub) -> list[str]:
    return [
        "--runner=DataflowRunner",
        "--project=some-project",
        "--region=europe-west4",
        "--temp_location=gs://bucket/tmp",
        "--sdk_container_image=europe-docker.pkg.dev/some-project/images/mpg-scr:1",
        f"--dataflow_endpoint={stub.address}",
        "--no_auth",
        *(f"--resource_hint={name}={of}" for name, of in HINTS.items()),
    ]


def test_a_submission_reaches_its_end_with_the_whole_job_in_the_bucket(work: Work, storage: ModuleType) -> None:
    with DataflowStub() as stub:
        execute(work, beam_options(options_for(stub)))
    (job,) = stub.jobs
    assert stub.asked[0] == "POST /v1b3/projects/some-project/locations/europe-west4/jobs"
    place = job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"]
    assert place.startswith("gs://bucket/tmp/")
    name = place.removeprefix("gs://bucket/")
    blob = storage.Client.create_anonymous_client().bucket("bucket").blob(name)
    pipeline = beam_runner_api_pb2.Pipeline.FromString(blob.download_as_bytes())
    assert steps_with_hints(pipeline) == {"Decode every cell": READ_BACK}
    images = {
        beam_runner_api_pb2.DockerPayload.FromString(each.payload).container_image
        for each in pipeline.components.environments.values()
    }
    assert images == {"europe-docker.pkg.dev/some-project/images/mpg-scr:1"}


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("JOB_STATE_FAILED", "no GPU is left"),
        ("JOB_STATE_CANCELLED", "State: CANCELLED, Error: no reason was given; the job's page has its messages"),
    ],
)
def test_a_job_that_ends_otherwise_says_why(work: Work, storage: ModuleType, state: str, words: str) -> None:
    with DataflowStub(state) as stub, pytest.raises(GraphFailed) as caught:
        run(replace(work, shards=None), options_for(stub))
    assert words in str(caught.value).splitlines()[0]


def test_a_job_that_nobody_waits_for_any_more_is_cancelled(
    work: Work, storage: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wait, "_EVERY_S", 0.01)

    def interrupted(counts: Mapping[str, int]) -> None:
        raise KeyboardInterrupt

    with DataflowStub("JOB_STATE_RUNNING") as stub, pytest.raises(KeyboardInterrupt):
        execute(work, beam_options(options_for(stub)), interrupted)
    place = "/v1b3/projects/some-project/locations/europe-west4/jobs/job-1"
    assert f"PUT {place} 5" in stub.asked, stub.asked  # JOB_STATE_CANCELLED
    assert "its job is cancelled" in caplog.text


def test_a_detached_job_is_sent_and_its_service_asked_about_it(
    storage: ModuleType, job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, workers = "gs://bucket/detached", ["--max_num_workers=4", "--temp_location=gs://bucket/tmp"]
    with DataflowStub("JOB_STATE_RUNNING") as stub:
        options = ["--set", "judges=[]", "--output", out, "--detach", "--", *options_for(stub), *workers]
        assert main(["run", str(job_file), "--set", "device_price=2", "--budget=4", *options]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith(
            "12 rows to decode: submitted to DataflowRunner at some-project, europe-west4, job job-1"
        )
        assert "(4 devices at 2 an hour), until 20" in line and f"then: mpg finish {out}" in line
        assert len(stub.jobs) == 1 and stub.asked == ["POST /v1b3/projects/some-project/locations/europe-west4/jobs"]
        assert main(["finish", out]) == ExitStatus.TRY_AGAIN
        assert "is at work there (RUNNING)" in capsys.readouterr().err
        assert stub.asked[-1] == "GET /v1b3/projects/some-project/locations/europe-west4/jobs/job-1"
        stub.ends = "JOB_STATE_FAILED"
        assert main(["finish", out]) == ExitStatus.TRY_AGAIN
    said = capsys.readouterr().err
    assert "stopped (the detached job has ended before its last row (FAILED: no GPU is left)); none of 12" in said
    assert "the same mpg run goes on" in said


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        (["Workflow failed.\nCauses: quota"], "FAILED: Workflow failed."),
        (["Traceback (most recent call last):\n  File\nOSError: no GPU", "Traceback (...):\nKeyError: 'x'\n"],
         "FAILED: KeyError: 'x'"),
        ([f"Traceback (most recent call last):\nRuntimeError: {refused('model.id: no numbers')}", "Workflow failed."],
         "FAILED: model.id: no numbers"),
        (["GET https://u:p@host/?sig=abc: 403"], "FAILED: GET https://***@host/?sig=*** 403"),
        ([], "FAILED"),
    ],
)  # fmt: skip
def test_why_a_detached_job_has_failed(tmp_path: Path, errors: list[str], words: str) -> None:
    """A refusal of this project's, whatever the service says after it; else the last error in a line."""
    with DataflowStub("JOB_STATE_FAILED", errors) as stub:
        service = ("--project=some-project", "--region=europe-west4", f"--dataflow_endpoint={stub.address}")
        job = Detached("DataflowRunner", (*service, "--no_auth"), 0.0, 1, 0.0, job_id="job-1")
        assert standing(tmp_path, job) == Standing(True, words)


def test_credentials_are_looked_for_before_anything_is_sent(
    storage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with DataflowStub() as stub:
        options = options_for(stub)
        assert argument_problems(options) == [] == unreachable(options)
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        (line,) = unreachable([each for each in options if each != "--no_auth"])
    assert line.startswith("--runner=DataflowRunner: this machine has no credentials of Google's; run `gcloud auth")
    assert stub.asked == []


def test_without_its_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("apache_beam.runners.dataflow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "google.cloud.dataflow", None)
    monkeypatch.delattr(google.cloud, "dataflow", raising=False)
    place = ["--project=some-project", "--region=x", "--temp_location=gs://bucket/tmp"]
    (line,) = argument_problems(["--runner=dataflow", "--sdk_container_image=image", *place])
    assert line.startswith("--runner=dataflow: lacks a package (") and line.endswith("; pip install 'mpg-scr[gcp]'")
