"""Runs on Beam's own job service and a pool of workers, real ones, that share nothing with the driver but the disk."""

from __future__ import annotations

import signal
from pathlib import Path

import grpc
import pytest
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipeline.beam.arguments import unreachable
from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from tests.beam_servers import Servers, asleep, free_port
from tests.pipeline.commands.test_broken_models import no_numbers
from tests.run_process import finished, log_of, shards_in, start, wait_for
from tests.tiny_job import checksums, make_job

# Two servers and a worker import torch: seconds here, minutes on a machine that has much else to do.
LONGEST_S = 400.0


def said(here: Path) -> list[str]:
    """What a run says in lines of its own, its bars left out."""
    lines = [line for line in log_of(here).splitlines() if line.strip()]
    return [line for line in lines if not line.startswith(("decoding:", "judging:", "INFO:", "WARNING: output:"))]


def test_the_data_set_is_the_in_process_ones(
    servers: Servers, place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """Byte for byte; and a run may last longer than the job service's requests."""
    here = tmp_path / "here"
    assert finished(start(place, here, *servers.options, "--job_server_timeout=1"), LONGEST_S) == 0, log_of(here)
    assert checksums(here / "out") == undisturbed[0]
    assert said(here) == []
    assert "64/64 rows" in log_of(here)  # the bar moves as the workers do


@pytest.mark.long
def test_a_model_that_is_refused_is_one_line(servers: Servers, tmp_path: Path) -> None:
    make_job(tmp_path, judges=[])
    no_numbers(tmp_path / "base")
    here = tmp_path / "here"
    assert finished(start(tmp_path, here, *servers.options), LONGEST_S) == ExitStatus.BAD_INPUT
    (line,) = said(here)
    assert line.startswith(
        f"mpg: {tmp_path / 'job.yaml'}: model.id: model {tmp_path / 'base'}: its logits are not numb"
    )


@pytest.mark.long
def test_ctrl_c_finishes_the_rows_in_flight(servers: Servers, place: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    run = start(place, here, "--set", "judges=[]", *servers.options)
    wait_for(lambda: shards_in(here) >= 1 or run.poll() is not None, "a shard", LONGEST_S)
    run.send_signal(signal.SIGINT)
    assert finished(run, LONGEST_S) == ExitStatus.INTERRUPTED, log_of(here)
    assert 0 < shards_in(here) < 16


def states(servers: Servers) -> list[str]:
    """Of all jobs that the service knows, the last one's last."""
    with grpc.insecure_channel(servers.service.address) as channel:
        found = beam_job_api_pb2_grpc.JobServiceStub(channel).GetJobs(beam_job_api_pb2.GetJobsRequest())
    return [str(beam_job_api_pb2.JobState.Enum.Name(each.state)) for each in found.job_info]


@pytest.mark.long
def test_a_second_ctrl_c_cancels_the_job_where_it_runs(servers: Servers, place: Path, tmp_path: Path) -> None:
    here, n = tmp_path / "here", len(states(servers))
    with asleep(servers):  # a worker that is begun has the rows in flight for ever
        run = start(place, here, "--set", "judges=[]", *servers.options)
        wait_for(lambda: "RUNNING" in states(servers)[n:] or run.poll() is not None, "the job", LONGEST_S)
        run.send_signal(signal.SIGINT)
        wait_for(lambda: "Ctrl-C again stops at once" in log_of(here), "the first is heard", LONGEST_S)
        run.send_signal(signal.SIGINT)
        assert finished(run, LONGEST_S) == ExitStatus.INTERRUPTED, log_of(here)
        assert states(servers)[n:] == ["CANCELLED"]
    assert "mpg: stopped at once; its job is cancelled; the same command goes on" in log_of(here)


@pytest.mark.long
def test_a_job_service_that_is_gone_is_one_line_and_the_run_goes_on(
    servers: Servers, place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    run = start(place, here, *servers.options)
    wait_for(lambda: shards_in(here) >= 1 or run.poll() is not None, "a shard", LONGEST_S)
    servers.end()
    assert finished(run, LONGEST_S) == ExitStatus.TRY_AGAIN, log_of(here)
    lines = said(here)
    assert all("the job service is gone (unavailable: " in line for line in lines), lines
    servers.start()
    assert finished(start(place, here, *servers.options), LONGEST_S) == 0, log_of(here)
    assert checksums(here / "out") == undisturbed[0]


@pytest.mark.long
def test_workers_that_are_killed_cost_their_shards_time_and_a_pool_that_is_gone_is_named(
    servers: Servers, place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    here = tmp_path / "here"
    run = start(place, here, *servers.options)
    wait_for(lambda: shards_in(here) >= 1 or run.poll() is not None, "a shard", LONGEST_S)
    for worker in servers.pool.workers():
        worker.kill()
    n = shards_in(here)
    wait_for(lambda: shards_in(here) > n + 1 or run.poll() is not None, "more shards", LONGEST_S)
    servers.pool.kill()
    assert finished(run, LONGEST_S) == ExitStatus.TRY_AGAIN, log_of(here)
    lines = said(here)
    assert "a worker process was killed" in lines[0] and "its shard is made again" in lines[0]
    assert servers.pool.address in lines[-1] and "the same command goes on" in lines[-1]
    assert "Traceback" not in log_of(here)
    servers.pool.start()
    assert finished(start(place, here, *servers.options), LONGEST_S) == 0, log_of(here)
    assert checksums(here / "out") == undisturbed[0]


# ------------------------------------------------------------------ before anything is loaded


def test_who_does_not_answer_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, port = make_job(tmp_path, judges=[]), free_port()
    options = ["--runner=PortableRunner", f"--job_endpoint=localhost:{port}", "--environment_type=LOOPBACK"]
    assert main(["run", str(job), "--", *options]) == ExitStatus.BAD_INPUT
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mpg: ")]
    wanted = f"--job_endpoint=localhost:{port}: nothing answers at host localhost, port {port} (connection refused)"
    assert wanted in line
    assert not (tmp_path / "out").exists()
    assert main(["check", str(job), "--", *options]) == 0
    assert f"note: --job_endpoint=localhost:{port}: nothing answers" in capsys.readouterr().out


def test_who_answers_has_to_be_a_job_service(servers: Servers) -> None:
    pool, service = servers.pool.address, servers.service.address
    portable = ["--runner=PortableRunner", "--environment_type=EXTERNAL"]
    assert unreachable([*portable, f"--job_endpoint={service}", f"--environment_config={pool}"]) == []
    (line,) = unreachable([*portable, f"--job_endpoint={pool}", f"--environment_config={pool}"])
    assert line.startswith(f"--job_endpoint={pool}: what answers there is no job service of Beam's; start")
    port = free_port()
    (line,) = unreachable([*portable, f"--job_endpoint={service}", f"--environment_config=localhost:{port}"])
    assert line.startswith(f"--environment_config=localhost:{port}: nothing answers at host localhost, port {port} (")
    assert line.endswith(f"worker_pool_main --service_port={port}")
    assert unreachable([*portable, f"--job_endpoint={service}", "--environment_config=pool-of-the-cluster:1"]) == []
