"""What a data set is computed with is decided once: other workers, threads and settings change no digit of it.

The bank of these tests rounds by threads and by the shape of a pass (tests/rounding.py), so that a broken promise shows
on any processor.
"""

from __future__ import annotations

import json
import logging
import shutil
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from pipeline.decode.bank import ProcessBank
from pipeline.decode.machine import processor
from pipeline.job.load import load_job
from pipeline.plan import computed_with
from pipeline.plan.computed_with import ComputedWith, cores, kept
from pipeline.plan.sources import resolve_sources
from pipeline.run.run import Result, run_job
from tests.rounding import rounding_bank
from tests.tiny_job import checksums, make_job, rows, tiny_token

TWO_WORKERS = ["--direct_num_workers=2", "--direct_running_mode=multi_processing"]
PROMPTS = tuple(f"tell me more {a} {b}" for a in "ab" for b in "efg")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of 24 rows in 6 shards."""
    folder = tmp_path_factory.mktemp("job")
    make_job(folder, PROMPTS, rows_per_shard=4, judges=[])
    return folder


def run(place: Path, output: Path, *more: str, beam: list[str] = []) -> Result:  # noqa: B006 (never changed)
    job = load_job(place / "job.yaml", [f"output={output}", *more])
    return run_job(job, beam, load=rounding_bank)


def data_of(output: Path) -> dict[str, str]:
    """Checksums of the rows' files: the card and the recorded job may name other settings."""
    return {name: checksum for name, checksum in checksums(output).items() if name.startswith("data/")}


def begun(place: Path, output: Path, *more: str) -> dict[str, str]:
    """A data set with half of its shards gone again, as a killed run leaves it; the checksums of the whole."""
    run(place, output, *more)
    whole = data_of(output)
    shards = sorted((output / ".work" / "generations").glob("*.parquet"))
    for shard in shards[::2]:
        shard.unlink()
    (output / "run.json").unlink()
    return whole


def test_the_bank_of_these_tests_rounds_by_threads_and_batch(place: Path, tmp_path: Path) -> None:
    """Else they would show nothing: computed with something else, the same ids and texts have other last digits."""
    run(place, tmp_path / "a", "threads=1")
    for name, more in (
        ("b", ["threads=2"]),
        ("c", ["threads=1", "batch_size=2"]),
        ("d", ["threads=1", "rows_per_shard=5"]),
    ):
        run(place, tmp_path / name, *more)
        one, other = rows(tmp_path / "a"), rows(tmp_path / name)
        assert [(r["row_id"], r["response"]) for r in one] == [(r["row_id"], r["response"]) for r in other]
        assert data_of(tmp_path / "a") != data_of(tmp_path / name)


@pytest.mark.parametrize(
    ("more", "beam"),
    [
        pytest.param([], TWO_WORKERS, marks=pytest.mark.long),
        (["threads=2"], []),
        (["batch_size=3", "rows_per_shard=7"], []),
        (["threads=2", "model.dtype=bfloat16"], []),
    ],
    ids=["more workers", "other threads", "other batches and shards", "bfloat16"],
)
def test_a_run_that_goes_on_computes_as_the_one_that_began(
    place: Path, tmp_path: Path, more: list[str], beam: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    dtype = [each for each in more if "dtype" in each]
    wanted = begun(place, tmp_path / "out", "threads=1", *dtype)
    with caplog.at_level(logging.WARNING, "pipeline"):
        again = run(place, tmp_path / "out", *more, beam=beam)
    assert 0 < again.run["counts"]["generated"] < 24
    assert data_of(tmp_path / "out") == wanted
    asked = {each.partition("=")[0] for each in more if each not in dtype}
    assert all(f"{name} " in caplog.text for name in asked)
    alone = computed_with.decided(load_job(place / "job.yaml"), 2 if beam else 1, 24)
    assert ("as this data set was begun" in caplog.text) == bool(asked or alone.threads != 1)
    assert again.run["computed_with"]["threads"] == 1 and again.run["computed_with"]["batch_size"] == 4


@pytest.mark.long
def test_one_worker_or_two_from_the_start_with_the_jobs_own_threads(place: Path, tmp_path: Path) -> None:
    run(place, tmp_path / "one", "threads=1")
    run(place, tmp_path / "two", "threads=1", beam=TWO_WORKERS)
    assert data_of(tmp_path / "one") == data_of(tmp_path / "two")


def test_threads_are_a_passs_own_and_not_the_processs(place: Path, tmp_path: Path) -> None:
    """The number is a thread's own in torch: it has to be set where the pass runs, and given back after it."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        wanted = begun(place, tmp_path / "out", "threads=2")
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        run(place, tmp_path / "out", "threads=2")
        assert data_of(tmp_path / "out") == wanted
    finally:
        torch.set_num_threads(before)


def test_what_is_computed_with_is_decided_by_the_first_rows_workers(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = load_job(place / "job.yaml")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert [computed_with.decided(job, n, 24).threads for n in (1, 2, 3, 16)] == [8, 4, 2, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "0")
    assert cores() >= 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cores() >= 1 and computed_with.decided(job, 1, 24).threads == cores()
    assert computed_with.decided(load_job(place / "job.yaml", ["threads=5"]), 2, 24).threads == 5
    # Before the first row nothing is settled, whatever an earlier run meant to do.
    output = tmp_path / "out"
    (output / ".work" / "generations").mkdir(parents=True)
    computed_with.keep(output, ComputedWith("float32", 7, 7, 7))
    assert computed_with.settled(output, job, 1, 24).threads == cores()


def test_more_threads_than_cores_are_said(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = begun(place, tmp_path / "out", "threads=2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with caplog.at_level(logging.WARNING, "pipeline"):
        run(place, tmp_path / "out")
    assert "1 worker x threads 2, where this machine (or OMP_NUM_THREADS) gives 1: slower, but the same" in caplog.text
    assert "threads 2, as this data set was begun, and not threads 1" in caplog.text
    assert data_of(tmp_path / "out") == wanted


def test_a_data_set_that_has_moved_keeps_it_without_its_work_folder(place: Path, tmp_path: Path) -> None:
    run(place, tmp_path / "out", "threads=2", "prompts.limit=3")
    run(place, tmp_path / "all", "threads=2", "prompts.limit=3")
    run(place, tmp_path / "all", "threads=1")
    shutil.rmtree(tmp_path / "out" / ".work")
    assert run(place, tmp_path / "out", "threads=1").run["computed_with"]["threads"] == 2
    assert kept(tmp_path / "out") == kept(tmp_path / "all")
    assert data_of(tmp_path / "out") == data_of(tmp_path / "all")


@pytest.mark.parametrize("content", ["", "{}", '{"threads": 0}', "[1]", '{"threads": "x"}'])
def test_a_note_that_is_damaged_is_none(
    place: Path, tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun(place, tmp_path / "out", "threads=1")
    (tmp_path / "out" / ".work" / computed_with.FILE).write_text(content)
    with caplog.at_level(logging.WARNING, "pipeline"):
        settled = computed_with.settled(tmp_path / "out", load_job(place / "job.yaml", ["threads=2"]), 1, 24)
    assert settled.threads == 2 and "it is not noted what the rows" in caplog.text


def test_auto_stays_the_dtype_that_it_stood_for(place: Path, tmp_path: Path) -> None:
    """On a processor of another kind `auto` may be another dtype, and with it every row another row."""
    job = load_job(place / "job.yaml", ["model.dtype=auto", f"output={tmp_path / 'out'}"])
    for dtype in ("bfloat16", "float32"):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        run(place, tmp_path / "out", f"model.dtype={dtype}")
        assert computed_with.settled(tmp_path / "out", job, 1, 24).dtype == dtype
        (tmp_path / "out" / ".work" / computed_with.FILE).unlink()
        (tmp_path / "out" / "run.json").unlink()
        assert computed_with.settled(tmp_path / "out", job, 1, 24).dtype == dtype  # by the rows themselves


def test_lost_shards_are_made_again_in_the_company_of_their_dead_letters(tmp_path: Path) -> None:
    place = tmp_path / "job"
    make_job(place, ("hello you", " ", "what now?", "so Z", "tell me more"), judges=[], max_rejected_fraction=0.5)
    weights = load_file(place / "base" / "model.safetensors")
    weights["model.embed_tokens.weight"][tiny_token("Z")] = float("nan")
    save_file(weights, place / "base" / "model.safetensors", metadata={"format": "pt"})
    run(place, tmp_path / "out", "threads=1", "decoder.aggregate=sum")
    wanted = checksums(tmp_path / "out")
    for shard in (tmp_path / "out" / ".work" / "generations").glob("*.parquet"):
        shard.unlink()
    again = run(place, tmp_path / "out", "threads=1", "decoder.aggregate=sum")
    assert again.run["counts"]["generated"] == 12 and again.run["counts"]["rejected"] == 8
    assert checksums(tmp_path / "out") == wanted


def test_rounds_of_accept_are_divided_as_they_were(place: Path, tmp_path: Path) -> None:
    """Killed between two shards of a later round, its candidates are decoded in the company they would have had."""
    more = (
        "threads=1", "rows_per_shard=5", "judges=[{kind: classifier}]",
        "accept={min_score: 0.5, rows_per_cell: 2, max_candidates: 8}",
    )  # fmt: skip
    whole = run(place, tmp_path / "out", *more)
    assert whole.run["accept"]["candidates"] > 2 * 24
    wanted = data_of(tmp_path / "out")
    shards = sorted((tmp_path / "out" / ".work" / "generations").glob("*.parquet"))
    later = [path for path in shards if max(pq.read_table(path).column("sample_index").to_pylist()) >= 2]
    assert len(later) > 2
    for shard in later[::2]:
        shard.unlink()
    run(place, tmp_path / "out", *more)
    assert data_of(tmp_path / "out") == wanted


def test_the_record_says_what_a_run_was_computed_with(place: Path, tmp_path: Path) -> None:
    record = run(place, tmp_path / "out", "threads=2").run
    assert record == json.loads((tmp_path / "out" / "run.json").read_text())
    wanted = {"dtype": "float32", "threads": 2, "batch_size": 4, "rows_per_shard": 4}
    wanted |= {"attributes": ["E", "J"], "regrouped": False, "smaller_batches": {}}
    machines = record["computed_with"].pop("machines")
    assert record["computed_with"] == wanted
    assert machines == [{"processor": processor(), "device": "cpu", "cores": cores(), "dtype": "float32"}]
    assert "," in processor()
    began, ended = (datetime.fromisoformat(record["timings"][name]) for name in ("began", "ended"))
    assert began.tzinfo is not None and 0 <= (ended - began).total_seconds() < 600


@pytest.mark.parametrize(
    ("cells", "batch", "workers", "size", "shards"),
    [
        (132, 32, 1, 256, [132]),  # the demo: one shard
        (132, 32, 2, 66, [66, 66]),
        (615, 32, 1, 256, [256, 256, 103]),
        (300, 32, 2, 160, [160, 140]),
        (3, 32, 2, 64, [3]),
        (1_000, 32, 1, 256, [256, 256, 256, 232]),
        (1_000, 32, 3, 192, [192, 192, 192, 192, 192, 40]),
        (10**6, 32, 8, 256, None),
        (10**6, 1, 1, 8, None),
    ],
)
def test_a_shard_that_nobody_gave_a_size_keeps_batches_full_and_workers_busy(
    cells: int, batch: int, workers: int, size: int, shards: list[int] | None
) -> None:
    assert computed_with.shard_size(cells, batch, workers) == size
    if shards is not None:
        assert [min(size, cells - i) for i in range(0, cells, size)] == shards


@pytest.mark.long
def test_the_size_of_a_shard_is_decided_once(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the first run: with other workers, and a plan that has grown, it stays, and nobody is told of a setting."""
    first = run(place, tmp_path / "out", "rows_per_shard=null", "threads=1", "prompts.limit=3", beam=TWO_WORKERS)
    assert first.run["computed_with"]["rows_per_shard"] == 8
    with caplog.at_level(logging.WARNING, "pipeline"):
        again = run(place, tmp_path / "out", "rows_per_shard=null", "threads=1")
    assert again.run["computed_with"]["rows_per_shard"] == 8
    assert not [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert json.loads((tmp_path / "out" / "job.json").read_text())["rows_per_shard"] is None
    lone = run(place, tmp_path / "lone", "rows_per_shard=null", "threads=1")
    assert lone.run["computed_with"]["rows_per_shard"] == 32 and lone.run["counts"]["rows"] == 24


def test_a_handle_loads_with_what_it_is_given(place: Path) -> None:
    sources = resolve_sources(load_job(place / "job.yaml"))
    handle = ProcessBank(sources, threads=1, load=rounding_bank)
    assert type(handle.bank.backbones[0]).__name__ == "RoundingBackbone"
