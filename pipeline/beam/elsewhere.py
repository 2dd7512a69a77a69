"""Workers that are not this process's: what they need is looked at before anything is loaded or sent.

A job service of Beam's (``--job_endpoint``) starts workers in an *environment*: a container, a command, a pool that
runs already, or this process. Dataflow starts containers. What can't be known from here, such as what a cluster's
machines have, is left to them.
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from apache_beam.options.pipeline_options import (
    FlinkRunnerOptions,
    GoogleCloudOptions,
    JobServerOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    SparkRunnerOptions,
    StandardOptions,
    WorkerOptions,
)

from pipeline.beam.runners import Runner, Workers
from pipeline.job.errors import did_you_mean
from pipeline.store.places import is_url

EMBEDDED = "embed"  # Beam's word for a job service inside this process
ENVIRONMENTS = ("DOCKER", "EXTERNAL", "LOOPBACK", "PROCESS")
# A job service on this machine answers within milliseconds; one that starts, within seconds.
_ANSWERS_S = 10.0
# A look may fail for a moment, under load or while a pool is moved.
_SILENT_LOOKS = 3
_POOL = "python -m apache_beam.runners.worker.worker_pool_main"
_INSTALLS = "--sdk_container_image=IMAGE, or --setup_file, --requirements_file or --extra_package"


def problems_of(options: PipelineOptions, runner: Runner) -> list[str]:
    """What is missing of what a runner's workers need; a line for each, with option and remedy."""
    if runner.workers is Workers.PORTABLE:
        return [*_service_problems(options, runner), *_environment_problems(options, runner)]
    if runner.workers is Workers.DATAFLOW:
        return list(_container_problems(options, runner))
    return []


def unreachable(options: PipelineOptions) -> list[str]:
    """Who does not answer now, of those that a run asks: the job service, and a pool of workers beside it; Google."""
    if str(options.view_as(StandardOptions).runner).endswith("DataflowRunner"):
        return list(_no_credentials(options))
    portable = options.view_as(PortableOptions)
    endpoint = portable.job_endpoint
    if not endpoint or endpoint == EMBEDDED:
        return []
    pool = _pool(portable)
    found = [_no_service(endpoint)]
    if pool is not None and _is_here(endpoint) and _is_here(pool):  # else it is the cluster that has to reach it
        silent, start = _silent(pool), f"{_POOL} --service_port={pool.rpartition(':')[2]}"
        found.append(silent and f"--environment_config={pool}: {silent}; start a pool of workers: {start}")
    return [each for each in found if each]


def gone(options: PipelineOptions) -> Callable[[], str | None] | None:
    """Whether a pool of workers that answers from here has ceased to, for a run to ask; ``None``: there is none.

    Beam's local job service waits for ever for workers that are gone.
    """
    portable = options.view_as(PortableOptions)
    pool = _pool(portable) if portable.job_endpoint else None
    if pool is None or _silent(pool) is not None:
        return None
    n_silent = 0

    def look() -> str | None:
        nonlocal n_silent
        n_silent = n_silent + 1 if _silent(pool) else 0
        return f"the pool of workers at {pool} is gone" if n_silent >= _SILENT_LOOKS else None

    return look


def notes_of(options: PipelineOptions, runner: Runner) -> list[str]:
    """What can't be known from here and is worth a word."""
    portable = options.view_as(PortableOptions)
    if runner.workers is not Workers.PORTABLE or not portable.job_endpoint or portable.job_endpoint == EMBEDDED:
        return []
    if portable.environment_type == "LOOPBACK" and not _is_here(portable.job_endpoint):
        return [
            f"--environment_type=LOOPBACK: workers are in this process, which {portable.job_endpoint} has to reach as "
            "localhost; where it can't, the run waits for ever"
        ]
    return []


def output_problems(output: str, runner: Runner) -> list[str]:
    """An output that a runner's workers, on other machines, can't write."""
    if runner.workers is not Workers.DATAFLOW or is_url(output):
        return []
    where = "is a folder of this machine, which Dataflow's workers don't see"
    return [f"output: {output} {where}; give one that they do, as gs://bucket/folder"]


def output_notes(output: str, options: PipelineOptions, runner: Runner) -> list[str]:
    """An output that a runner's workers may not see: whether they are on this machine can't be known."""
    endpoint = options.view_as(PortableOptions).job_endpoint
    if runner.workers is not Workers.PORTABLE or is_url(output) or endpoint == EMBEDDED:
        return []
    return [f"output: {output} is a folder of this machine: workers of {runner.name} on others have to see it too"]


# ------------------------------------------------------------------ a job service


def _service_problems(options: PipelineOptions, runner: Runner) -> Iterator[str]:
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint == EMBEDDED:
        return
    if endpoint:
        if _address(endpoint) is None:
            yield f"--job_endpoint={endpoint}: no address; write host:port, as localhost:8099"
        return
    own = {
        "FlinkRunner": (FlinkRunnerOptions, "flink_job_server_jar", "flink_submit_uber_jar"),
        "SparkRunner": (SparkRunnerOptions, "spark_job_server_jar", "spark_submit_uber_jar"),
    }.get(runner.name)
    if own is None:
        yield f"--runner={runner.asked}: needs a job service; add --job_endpoint=host:port"
        return
    view, of_jar, of_uber = options.view_as(own[0]), own[1], own[2]
    jar = getattr(view, of_jar)
    if jar is None:
        yield (
            f"--runner={runner.asked}: needs a job service, and Beam would fetch one from the network; add "
            f"--job_endpoint=host:port, or --{of_jar}=FILE"
        )
    elif not Path(jar).is_file():
        yield f"--{of_jar}={jar}: no such file; give the job server's jar on this machine"
    elif not getattr(view, of_uber):
        java = options.view_as(JobServerOptions).job_server_java_launcher
        if shutil.which(java) is None:
            yield f"--{of_jar}={jar}: {java} is not on this machine; install it, or add --job_endpoint=host:port"


def _no_service(endpoint: str) -> str | None:
    """Why no job service answers there; ``None``: one does."""
    import grpc
    from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

    start = "start the job service, or give the address of one that runs"
    silent = _silent(endpoint)
    if silent is not None:
        return f"--job_endpoint={endpoint}: {silent}; {start}"
    with grpc.insecure_channel(endpoint) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWERS_S)
            service = beam_job_api_pb2_grpc.JobServiceStub(channel)
            service.DescribePipelineOptions(
                beam_job_api_pb2.DescribePipelineOptionsRequest(), timeout=_ANSWERS_S, wait_for_ready=True
            )
        except grpc.FutureTimeoutError:
            return f"--job_endpoint={endpoint}: what answers there is no job service of Beam's; {start}"
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return f"--job_endpoint={endpoint}: what answers there is no job service of Beam's; {start}"
            return f"--job_endpoint={endpoint}: {error.code().name.lower()} ({error.details()}); {start}"
    return None


def _silent(endpoint: str) -> str | None:
    """Why nothing answers at host:port."""
    address = _address(endpoint)
    assert address is not None
    host, port = address
    try:
        socket.create_connection((host, port), timeout=_ANSWERS_S).close()
    except OSError as error:
        return f"nothing answers at host {host}, port {port} ({(error.strerror or str(error)).lower()})"
    return None


# ------------------------------------------------------------------ environments


def _environment_problems(options: PipelineOptions, runner: Runner) -> Iterator[str]:
    portable = options.view_as(PortableOptions)
    kind = portable.environment_type
    if kind and kind not in ENVIRONMENTS and not kind.startswith("beam:env:"):
        yield f"--environment_type={kind}: not one that Beam knows; {did_you_mean(kind.upper(), ENVIRONMENTS)}"
    elif kind == "EXTERNAL":
        yield from _pool_problems(portable)
    elif kind == "PROCESS":
        yield from _command_problems(portable)
    elif kind in (None, "", "DOCKER"):
        named = f"--environment_type={kind}" if kind else "--environment_type: none is given, so DOCKER"
        if _is_here(portable.job_endpoint or "localhost") and shutil.which("docker") is None:
            yield f"{named}: docker is not on this machine; install it, or give another of {', '.join(ENVIRONMENTS)}"
        elif not any((portable.environment_config, *_image_options(portable), *_packages(options))):
            yield (
                f"{named}: Beam's own image has not this project in it; add --environment_config=IMAGE with one that "
                "has, or --setup_file, --requirements_file or --extra_package"
            )
    yield from _lost_files(options)


def _pool_problems(portable: PortableOptions) -> Iterator[str]:
    given = portable.environment_config or portable.lookup_environment_option("external_service_address")
    if not given or given is True:
        yield (
            "--environment_type=EXTERNAL: needs the address of a pool of workers; add --environment_config=host:port "
            f"({_POOL} --service_port=PORT starts one)"
        )
    elif _pool(portable) is None:
        yield f"--environment_config={given}: no address of a pool of workers; write host:port, as localhost:50000"


def _command_problems(portable: PortableOptions) -> Iterator[str]:
    given: Any = portable.lookup_environment_option("process_command")
    if portable.environment_config:
        found = _json(portable.environment_config)
        if found is None:
            yield (
                f"--environment_config={portable.environment_config}: can't be read; for PROCESS write JSON, as "
                '{"command": "/opt/apache/beam/boot"}'
            )
            return
        given = found.get("command")
    if not given or not isinstance(given, str):
        yield (
            "--environment_type=PROCESS: needs the command that starts a worker; add --environment_config="
            '{"command": "/opt/apache/beam/boot"}'
        )
    elif _is_here(portable.job_endpoint or "localhost") and shutil.which(given) is None:
        yield f"--environment_type=PROCESS: its command {given!r} is no program of this machine; give one that is"


def _container_problems(options: PipelineOptions, runner: Runner) -> Iterator[str]:
    """Dataflow's workers: containers, into which this project has to come."""
    worker = options.view_as(WorkerOptions)
    image = worker.sdk_container_image or worker.worker_harness_container_image
    if not image and not any(_packages(options)):
        yield f"--runner={runner.asked}: its workers have not this project installed; add {_INSTALLS}"
    yield from _lost_files(options)


def _image_options(portable: PortableOptions) -> list[str]:
    return [each for each in portable.environment_options or () if each.startswith("docker_container_image=")]


def _no_credentials(options: PipelineOptions) -> Iterator[str]:
    """Beam would go on without, and be refused in an answer of many lines."""
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    if options.view_as(GoogleCloudOptions).no_auth:
        return
    try:
        google.auth.default()
    except DefaultCredentialsError:
        remedy = "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS"
        yield f"--runner=DataflowRunner: this machine has no credentials of Google's; {remedy}"


def _packages(options: PipelineOptions) -> Iterator[tuple[str, str]]:
    """Options that bring packages to workers, with the files that they name."""
    setup = options.view_as(SetupOptions)
    for name in ("setup_file", "requirements_file"):
        if getattr(setup, name):
            yield f"--{name}", getattr(setup, name)
    for each in setup.extra_packages or ():
        yield "--extra_package", each


def _lost_files(options: PipelineOptions) -> Iterator[str]:
    for option, file in _packages(options):
        if "://" not in file and not Path(file).is_file():
            yield f"{option}={file}: no such file; give one on this machine"


# ------------------------------------------------------------------ addresses


def _pool(portable: PortableOptions) -> str | None:
    """Address of the pool of workers of an ``EXTERNAL`` environment, if it is one."""
    if portable.environment_type != "EXTERNAL":
        return None
    given: Any = portable.environment_config or portable.lookup_environment_option("external_service_address")
    found = _json(given) if isinstance(given, str) and given.lstrip().startswith("{") else {"url": given}
    url = (found or {}).get("url")
    return url if isinstance(url, str) and _address(url) is not None else None


def _address(endpoint: str) -> tuple[str, int] | None:
    """``host:port`` in parts; ``None``: it is not of this form."""
    host, _, port = endpoint.rpartition(":")
    if not host or "/" in host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 2**16:
        return None
    return host.strip("[]"), int(port)


def _is_here(endpoint: str) -> bool:
    """Whether it is an address of this machine's loopback."""
    host = (_address(endpoint) or (endpoint, 0))[0]
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _json(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
