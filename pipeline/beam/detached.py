"""A graph handed to a service that runs it without this process, and that service asked about it, from anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, PortableOptions
from apache_beam.runners.runner import PipelineState

from pipeline.beam.arguments import runner_named
from pipeline.beam.elsewhere import EMBEDDED
from pipeline.beam.execute import graph_of, raised_in_a_line, reached
from pipeline.beam.options import beam_options, n_devices, take_hints
from pipeline.beam.runners import Workers
from pipeline.beam.work import BOOKS_FILE, Work
from pipeline.events import redacted
from pipeline.store.detached import Detached, Until
from pipeline.store.errors import line_in, refusal_in
from pipeline.store.files import exists
from pipeline.store.places import is_url

# Options by which a service is found again, as those of the class that reads them name them.
_ADDRESS = {
    PortableOptions: ("job_endpoint",),
    GoogleCloudOptions: ("project", "region", "dataflow_endpoint", "no_auth"),
}
_ANSWERS_S = 10.0
# Where the launcher of a Dataflow template wants a job's specification: in a folder named by the id that the job has.
_LAUNCHED = re.compile(r"/template_launches/(\d{4}(?:-\d\d){2}_\d\d(?:_\d\d){2}-\d+)/[^/]+$")


def detach_problems(arguments: Sequence[str]) -> list[str]:
    """Why nobody would run a graph once this process has gone; arguments that can't be read are said elsewhere."""
    try:
        runner, portable = runner_named(arguments), beam_options(arguments).view_as(PortableOptions)
    except (ValueError, SystemExit):
        return []
    elsewhere = "give a job service (--runner=PortableRunner --job_endpoint=HOST:PORT) or --runner=DataflowRunner"
    if runner.workers is Workers.HERE:
        return [f"--detach: the workers of {runner.name} end with this process; {elsewhere}, or leave --detach out"]
    if runner.workers is Workers.UNKNOWN:
        return [f"--detach: nobody knows here whether {runner.name} goes on without this process; {elsewhere}"]
    if runner.workers is Workers.PORTABLE:
        if portable.job_endpoint in (None, "", EMBEDDED):
            return [f"--detach: the job service of {runner.name} ends with this process; add --job_endpoint=HOST:PORT"]
        kind = portable.environment_type or ""
        if "loopback" in kind.lower():
            return [f"--environment_type={kind}: its workers end with this process; with --detach give another"]
        if not kind and runner.name != "PortableRunner":  # Beam's Flink and Spark runners choose LOOPBACK then
            return ["--environment_type: none is given; with --detach give DOCKER, EXTERNAL or PROCESS"]
    return []


def specification_problems(place: str, arguments: Sequence[str]) -> list[str]:
    """Why no job's specification can be written to a place, for a template's launcher to submit.

    Arguments that can't be read are said elsewhere.
    """
    try:
        name = runner_named(arguments).name
    except (ValueError, SystemExit):
        return []
    if name != "DataflowRunner":
        return [f"--specification: {name} has none; give --runner=DataflowRunner, or leave --specification out"]
    if is_url(place) and not place.startswith("gs://"):
        return [f"--specification {place}: Beam writes it to gs:// or a file of this machine; give such a place"]
    return []


def submission(arguments: Sequence[str], now: float, price: float, until: Until | None) -> Detached:
    """What is to be noted of a graph before it is sent.

    Args:
        now: seconds since the epoch. price: of a device for an hour.
    """
    options, runner = beam_options(arguments), runner_named(arguments)
    return Detached(runner.name, tuple(_address(options, runner.workers)), now, n_devices(options), price, until)


def submit(work: Work, arguments: Sequence[str], specification: str | None = None) -> str | None:
    """Hand the graph to its runner's service; returns the id by which it is known there, if it says one.

    Args:
        specification: place that Dataflow's specification of the job is written to, for a template's launcher to
            submit; nothing is submitted here. Work of which nothing is left becomes a graph that does nothing.

    Raises:
        OutputError, GraphFailed, RunError: it has not taken it, as :func:`pipeline.beam.execute.run`.
    """
    options = beam_options(arguments)
    options.view_as(GoogleCloudOptions).template_location = specification
    with raised_in_a_line(), reached(options):
        result = (_nothing(options) if work.is_empty else graph_of(work, options)).run()
    if specification is not None:
        return launched_as(specification)
    job_id = getattr(result, "job_id", None) or getattr(result, "_job_id", None)  # Dataflow's; a job service's
    found = job_id() if callable(job_id) else job_id
    return None if found is None else str(found)


def launched_as(specification: str) -> str | None:
    """The id of the job whose specification a template's launcher wants there; ``None``: the place does not say."""
    found = _LAUNCHED.search(specification)
    return found and found[1]


def _nothing(options: PipelineOptions) -> beam.Pipeline:
    """A graph that does nothing: a launcher that finds no specification fails."""
    take_hints(options)
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | "Nothing is left" >> beam.Create([])
    return pipeline


def place_of(job: Detached) -> str:
    """Where a job is, for people: ``PortableRunner at localhost:8099, job ID``."""
    options = PipelineOptions(list(job.service))
    google = options.view_as(GoogleCloudOptions)
    at = options.view_as(PortableOptions).job_endpoint or f"{google.project}, {google.region}"
    return f"{job.runner} at {at}" + ("" if job.job_id is None else f", job {job.job_id}")


@dataclass(frozen=True)
class Standing:
    """How a detached job is.

    Attributes:
        is_over: ``None``: nobody can tell.
        words: its state there, or why nobody can tell.
    """

    is_over: bool | None
    words: str


def standing(work: Path, job: Detached) -> Standing:
    """Whether a job has ended: by what its graph writes last, else by what its service says. Raises OSError."""
    if job.ended is not None or exists(work / BOOKS_FILE):
        return Standing(True, job.state or PipelineState.DONE)
    if job.job_id is None:
        return Standing(None, "its id was not noted")
    try:
        dataflow = job.runner == "DataflowRunner"
        options = PipelineOptions(list(job.service))
        state, why = _state_on_dataflow(job.job_id, options) if dataflow else _state_at_service(job.job_id, options)
    except Exception as error:  # of a service, or of a package that is not here
        said = getattr(error, "details", lambda: None)
        silent = (said() if callable(said) else None) or str(error) or type(error).__name__
        return Standing(None, f"its service does not say: {' '.join(str(silent).split())[:200]}")
    return Standing(PipelineState.is_terminal(state), state if why is None else f"{state}: {why}")


def _state_at_service(job_id: str, options: PipelineOptions) -> tuple[str, str | None]:
    """Its state, and, if it has failed, why, where the service has kept that."""
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    with grpc.insecure_channel(str(options.view_as(PortableOptions).job_endpoint)) as channel:
        service = beam_job_api_pb2_grpc.JobServiceStub(channel)
        asked = beam_job_api_pb2.GetJobStateRequest(job_id=job_id)
        state = str(beam_job_api_pb2.JobState.Enum.Name(service.GetState(asked, timeout=_ANSWERS_S).state))
        if state != PipelineState.FAILED:
            return state, None
        errors = list[str]()
        with suppress(grpc.RpcError):  # it need not have kept what was said
            for each in service.GetMessageStream(
                beam_job_api_pb2.JobMessagesRequest(job_id=job_id), timeout=_ANSWERS_S
            ):
                if each.message_response.importance == beam_job_api_pb2.JobMessage.JOB_MESSAGE_ERROR:
                    errors.append(each.message_response.message_text)
    return state, _why(errors)


def _why(errors: Sequence[str]) -> str | None:
    """Why a job has failed, of what its service has kept of errors, in their order: a refusal of this project's first.

    Where there is none it is the last error: the message of its Python traceback, else its first line.
    """
    for text in errors:
        ours = refusal_in(text) or line_in(text)
        if ours is not None:
            return ours
    lines = [line.strip() for line in errors[-1].splitlines() if line.strip()] if errors else []
    if not lines:
        return None
    return redacted(lines[-1] if any(line.startswith("Traceback (") for line in lines) else lines[0])


def _state_on_dataflow(job_id: str, options: PipelineOptions) -> tuple[str, str | None]:
    """Its state, and, if it has failed, why, where the service says that."""
    from google.cloud import dataflow

    client, where = _dataflow(dataflow.JobsV1Beta3Client, options)
    found = client.get_job(dataflow.GetJobRequest(job_id=job_id, **where), timeout=_ANSWERS_S)
    state = str(dataflow.JobState(found.current_state).name).removeprefix("JOB_STATE_")
    if state != PipelineState.FAILED:
        return state, None
    errors = list[str]()
    with suppress(Exception):  # rights to read a job are not those to read its messages
        client, where = _dataflow(dataflow.MessagesV1Beta3Client, options)
        least = dataflow.JobMessageImportance.JOB_MESSAGE_ERROR
        asked = dataflow.ListJobMessagesRequest(job_id=job_id, minimum_importance=least, **where)
        for each in client.list_job_messages(asked, timeout=_ANSWERS_S):
            errors.append(each.message_text)
    return state, _why(errors)


def _dataflow(kind: Callable[..., Any], options: PipelineOptions) -> tuple[Any, dict[str, str]]:
    """A client of Dataflow's, and the project and region that its requests name."""
    import google.auth
    from google.api_core.client_options import ClientOptions
    from google.auth.credentials import AnonymousCredentials

    google_cloud = options.view_as(GoogleCloudOptions)
    endpoint = (google_cloud.dataflow_endpoint or "").strip().rstrip("/")
    by_rest = "localhost" in endpoint  # as Beam's own client has it
    client = kind(
        credentials=AnonymousCredentials() if google_cloud.no_auth else google.auth.default()[0],
        client_options=ClientOptions(api_endpoint=endpoint if by_rest else re.sub("^https?://", "", endpoint) or None),
        transport="rest" if by_rest else None,
    )
    return client, {"project_id": google_cloud.project, "location": google_cloud.region}


def _address(options: PipelineOptions, workers: Workers) -> list[str]:
    """The options of :data:`_ADDRESS`, as they are written."""
    view = GoogleCloudOptions if workers is Workers.DATAFLOW else PortableOptions
    values = {name: getattr(options.view_as(view), name) for name in _ADDRESS[view]}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in values.items() if value]
