"""Runs whose job, prompts, model, adapters and output are in a store; the data set is that of a disk."""

from __future__ import annotations

import json
import os
import signal
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import datasets
import duckdb
import fsspec
import pytest
from datasets import load_dataset

from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.store import copies, files, lease
from pipeline.store.lock import FolderLock
from pipeline.store.manifest import changed_files
from pipeline.store.places import expanded
from tests.beam_servers import Servers
from tests.run_process import finished, log_of, start, wait_for
from tests.store_servers import BUCKET, gcs_server, s3_environment, s3_server, unsteady
from tests.tiny_job import checksums, make_job, rows, write_job, write_prompts

LONGEST_S = 400.0


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, dict[str, str]]]:
    with s3_server() as s3, gcs_server() as gcs:
        yield {"s3": s3, "gs": gcs}


@pytest.fixture
def s3(servers: dict[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> str:
    """URL of a folder of its own."""
    _use(monkeypatch, servers["s3"], "s3")
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


def _use(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], scheme: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem(scheme).clear_instance_cache()


def checksums_in(url: str) -> dict[str, str]:
    return checksums(copies.here(expanded(url)))


def put(folder: Path, url: str) -> None:
    for name in files.files_below(folder):
        files.copy(folder / name, expanded(url) / name)


@pytest.mark.parametrize("scheme", ["s3", "gs", "memory"])
def test_the_data_set_is_that_of_a_disk(
    scheme: str, servers: dict[str, dict[str, str]], job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if scheme in servers:
        _use(monkeypatch, servers[scheme], scheme)
    url = f"{scheme}://{BUCKET}/{uuid.uuid4().hex}"
    assert main(["run", str(job_file), "--output", url]) == 0
    assert main(["run", str(job_file)]) == 0
    assert checksums_in(url) == checksums(job_file.parent / "out")
    run = json.loads(files.read_text(expanded(url) / "run.json"))
    assert run["counts"]["generated"] == run["counts"]["rows"] == 12
    assert main(["run", str(job_file), "--output", url]) == 0  # goes on: all is there
    assert json.loads(files.read_text(expanded(url) / "run.json"))["counts"]["kept_from_earlier_runs"] == 12


def test_all_that_a_job_names_may_be_in_a_store(s3: str, tmp_path: Path) -> None:
    make_job(tmp_path / "there", output="../out")
    put(tmp_path / "there", f"{s3}/jobs")
    assert main(["run", f"{s3}/jobs/job.yaml"]) == 0
    make_job(tmp_path / "here")
    assert main(["run", str(tmp_path / "here" / "job.yaml")]) == 0
    assert checksums_in(f"{s3}/out") == checksums(tmp_path / "here" / "out")
    at = f"{s3}/jobs/"
    make_job(tmp_path / "mixed", ("other", "prompts"))
    write_job(tmp_path / "mixed", model={"id": f"{at}base", "dtype": "float32"}, prompts={"file": f"{at}prompts.jsonl"})
    assert main(["run", str(tmp_path / "mixed" / "job.yaml")]) == 0
    of = "data/train-00000-of-00001.parquet"
    assert checksums(tmp_path / "mixed" / "out")[of] == checksums(tmp_path / "here" / "out")[of]


def test_what_is_not_there_is_one_line(s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job(tmp_path, attributes=[{"name": "E", "adapter": f"{s3}/none"}, {"name": "J", "adapter": "J"}])
    assert main(["check", str(job)]) == ExitStatus.BAD_INPUT
    assert "attributes[0].adapter" in (said := capsys.readouterr().err) and f"{s3}/none" in said
    assert main(["check", f"{s3}/none.yaml"]) == ExitStatus.BAD_INPUT
    assert "job file" in (said := capsys.readouterr().err) and f"{s3}/none.yaml" in said
    with pytest.raises(SystemExit, match=str(ExitStatus.BAD_INPUT.value)):
        main(["run", str(job), "--output", "azure://x/y"])
    assert "is no store that is known here" in capsys.readouterr().err


def test_what_is_printed_opens_it(
    s3: str, job_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path))
    split = "split={by: prompt, test_fraction: 0.5, seed: 1}"
    assert main(["run", str(job_file), "--output", s3, "--set", split, "--set", "judges=[]"]) == 0
    (line,) = (each for each in capsys.readouterr().out.splitlines() if each.startswith("open it:  "))
    opened = eval(line.removeprefix("open it:  "), {"datasets": datasets})
    sides = {name: side.num_rows for name, side in opened.items()}
    assert set(sides) == {"train", "test"} and sum(sides.values()) == 12


def refusing(servers: dict[str, dict[str, str]], after: int) -> AbstractContextManager[tuple[str, dict[str, int]]]:
    """A way to the S3 server on which all requests but the first are refused, as where keys are withdrawn."""
    return unsteady(servers["s3"]["AWS_ENDPOINT_URL"], lambda n: 403 * (n > after))


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease whose holder can't write any more is known to be dead at once."""
    for name, seconds in (("DEAD_AFTER_S", 0.5), ("_LOOK_EVERY_S", 0.1), ("BEAT_EVERY_S", 0.2)):
        monkeypatch.setattr(lease, name, seconds)


def said_of(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """A command's status, its output, and the last line of what it says; any traceback fails the test."""
    capsys.readouterr()
    status = main(words)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, (err.strip().splitlines() or [""])[-1]


@pytest.mark.usefixtures("short_leases")
@pytest.mark.parametrize("command", ["check", "plan", "status", "stop"])
def test_a_store_that_refuses_from_some_request_on_is_one_line(
    command: str,
    s3: str,
    servers: dict[str, dict[str, str]],
    job_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What can't be read now is not taken for what is not there, whichever it is."""
    assert main(["run", str(job_file), "--output", s3, "--set", "judges=[]"]) == 0
    words = [command, s3] if command in ("status", "stop") else [command, str(job_file), "--output", s3]
    whole = said_of(words, capsys)
    assert whole[0] == 0
    for after in range(0, 400, 7):
        with refusing(servers, after) as (address, counter):
            _use(monkeypatch, s3_environment(address), "s3")
            found = said_of(words, capsys)
        if not counter["refused"]:
            break
        if found[0]:
            assert found[2].startswith("mpg: ") and s3 in found[2], (after, found)
        else:
            assert found[:2] == whole[:2], after
    assert after > 3


@pytest.mark.long
@pytest.mark.usefixtures("short_leases")
@pytest.mark.parametrize("grown", [False, True])
def test_a_run_whose_store_refuses_from_some_request_on_loses_nothing(
    grown: bool,
    servers: dict[str, dict[str, str]],
    job_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A first run, or one that exchanges a data set for a larger one: the same command then makes what it should."""
    prompts = ("hello you", "what now?", "tell me more")
    _use(monkeypatch, servers["s3"], "s3")
    assert main(["run", str(job_file)]) == 0
    wanted = {table: texts(job_file.parent / "out", table) for table in ("data", "judgments")}
    for after in range(1, 2000, 89):
        url = f"s3://{BUCKET}/{uuid.uuid4().hex}"
        words = ["run", str(job_file), "--output", url]
        if grown:
            write_prompts(job_file.parent, prompts[:2])
            assert main(words) == 0
            write_prompts(job_file.parent, prompts)
        with refusing(servers, after) as (address, counter):
            _use(monkeypatch, s3_environment(address), "s3")
            status, _, line = said_of(words, capsys)
        _use(monkeypatch, servers["s3"], "s3")
        assert status == 0 or (line.startswith("mpg: ") and url in line), (after, line)
        assert said_of(words, capsys)[0] == 0, after
        copy = copies.here(expanded(url))
        assert changed_files(copy) == {}, after
        assert {table: texts(copy, table) for table in wanted} == wanted, after
        if not counter["refused"]:
            break
    assert after > 100 and not counter["refused"]


def texts(output: Path, table: str) -> list[tuple[Any, ...]]:
    """A table's rows, in order, by what has no last digits: those of a data set that has grown are its own."""
    kept = ("row_id", "prompt_id", "persona", "response", "attribute", "judge", "score")
    return [tuple(row.get(name) for name in kept) for row in rows(output, table)]


def test_datasets_and_duckdb_read_it_from_the_bucket(s3: str, job_file: Path, tmp_path: Path) -> None:
    assert main(["run", str(job_file), "--output", s3]) == 0
    options = {"client_kwargs": {"endpoint_url": s3_address()}}
    pattern = f"{s3}/data/train-*.parquet"
    rows = load_dataset("parquet", data_files=pattern, split="train", storage_options=options, cache_dir=str(tmp_path))
    assert rows.num_rows == 12 and len(set(rows["row_id"])) == 12
    with duckdb.connect() as database:
        database.register_filesystem(fsspec.filesystem("s3"))
        (counted,) = database.execute(f"select count(*), sum(n_tokens) from '{pattern}'").fetchall()
    assert counted == (12, sum(rows["n_tokens"]))


def s3_address() -> str:
    return os.environ["AWS_ENDPOINT_URL"]


def shards_at(url: str) -> int:
    return len(files.listing(expanded(url) / ".work" / "generations", ".parquet"))


@pytest.mark.long
def test_a_driver_that_is_killed_loses_nothing(
    s3: str, place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    run = start(place, tmp_path / "here", "--output", s3)
    wait_for(lambda: shards_at(s3) >= 2 or run.poll() is not None, "two shards", LONGEST_S)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert 2 <= shards_at(s3) < 16
    assert finished(start(place, tmp_path / "here", "--output", s3), LONGEST_S) == 0, log_of(tmp_path / "here")
    assert "are there already and are kept" in log_of(tmp_path / "here")
    assert checksums_in(s3) == undisturbed[0]


def test_a_second_run_is_told_who_works_there(
    s3: str, job_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_EVERY_S", 0.2)
    with FolderLock(expanded(s3) / ".work"):
        assert main(["run", str(job_file), "--output", s3]) == ExitStatus.TRY_AGAIN
    assert f"is in use by another process (host {socket.gethostname()}, pid {os.getpid()})" in capsys.readouterr().err
    assert main(["run", str(job_file), "--output", s3]) == 0


@pytest.mark.long
def test_a_store_that_fails_now_and_then_loses_nothing(
    s3: str,
    servers: dict[str, dict[str, str]],
    place: Path,
    undisturbed: tuple[dict[str, str], float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with unsteady(servers["s3"]["AWS_ENDPOINT_URL"], lambda n: 503 * (n % 9 == 0)) as (address, counter):
        _use(monkeypatch, s3_environment(address), "s3")
        assert finished(start(place, tmp_path / "here", "--output", s3), LONGEST_S) == 0, log_of(tmp_path / "here")
        assert counter["refused"] > 5
    _use(monkeypatch, servers["s3"], "s3")
    assert checksums_in(s3) == undisturbed[0]


@pytest.mark.long
def test_workers_that_share_nothing_but_the_bucket(
    s3: str, place: Path, undisturbed: tuple[dict[str, str], float], tmp_path: Path
) -> None:
    """Beam's own job service and worker pool, with a home, folder and temporary files of their own; one is killed."""
    put(place, f"{s3}/jobs")
    beam = Servers(tmp_path / "servers")
    command = ["--output", f"{s3}/out", "--set", f"model.id={s3}/jobs/base"]
    for i, name in enumerate("EJ"):
        command += ["--set", f"attributes.{i}.adapter={s3}/jobs/{name}"]
    try:
        beam.start()
        run = start(place, tmp_path / "here", *command, *beam.options)
        wait_for(lambda: shards_at(f"{s3}/out") >= 2 or run.poll() is not None, "two shards", LONGEST_S)
        beam.pool.kill()
        beam.pool.start()
        status = finished(run, LONGEST_S)
        assert status in (0, ExitStatus.TRY_AGAIN), log_of(tmp_path / "here")
        if status:
            assert finished(start(place, tmp_path / "here", *command, *beam.options), LONGEST_S) == 0
    finally:
        beam.end()
    assert "/64 rows" in log_of(tmp_path / "here").replace(" 0/64 rows", "")  # the bar moves by what Beam has counted
    found, wanted = checksums_in(f"{s3}/out"), undisturbed[0]
    tables = [name for name in wanted if name.endswith(".parquet")]
    assert tables and {name: found[name] for name in tables} == {name: wanted[name] for name in tables}
