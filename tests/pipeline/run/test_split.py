"""A data set with a test split: every command knows its files, and a split is changed without a text made anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.publish.data_set import refresh_card
from pipeline.run.run import run_job
from pipeline.store.layout import files_in
from pipeline.store.manifest import changed_files
from tests.tiny_job import checksums, rows, write_job

BY_PROMPT = {"by": "prompt", "test_fraction": 0.5, "seed": 2}
BY_WEIGHTS = {"by": "weights", "region": {"E": [0.4, 0.6]}}


@pytest.fixture
def split_job(job_file: Path) -> Path:
    return write_job(job_file.parent, split=BY_PROMPT)


def run(job: Path | str, *options: str) -> None:
    assert main(["run", str(job), *options]) == 0


def column(output: Path, name: str, split: str, table: str = "data") -> list[str]:
    paths = [path for path in files_in(output / table) if path.name.startswith(split)]
    return [value for path in paths for value in pq.read_table(path, columns=[name]).column(0).to_pylist()]


def test_no_prompt_stands_in_both_and_judgments_follow_their_rows(split_job: Path) -> None:
    run(split_job)
    output = split_job.parent / "out"
    train, test = (set(column(output, "prompt_id", split)) for split in ("train", "test"))
    assert train and test and not train & test and train | test == {"p0", "p1", "p2"}
    for split in ("train", "test"):
        assert set(column(output, "row_id", split)) == set(column(output, "row_id", split, "judgments"))
    for config, n in (("default", 12), ("judgments", 24)):
        loaded = datasets.load_dataset(str(output), config, cache_dir=str(split_job.parent / "cache"))
        assert sum(len(loaded[split]) for split in ("train", "test")) == n
        streamed = datasets.load_dataset(str(output), config, streaming=True)
        assert {name: len(list(some)) for name, some in streamed.items()} == {
            name: len(some) for name, some in loaded.items()
        }
        assert streamed["test"].features == loaded["test"].features
    assert main(["verify", str(output), "--sample", "12"]) == 0


def test_another_split_is_another_layout_of_the_same_rows(split_job: Path) -> None:
    run(split_job)
    output = split_job.parent / "out"
    before = {row["row_id"]: row for row in rows(output)}
    again = run_job(load_job(write_job(split_job.parent, split=BY_WEIGHTS)))
    assert again.run["counts"]["generated"] == 0
    assert {row["row_id"]: row for row in rows(output)} == before
    assert set(column(output, "persona", "test")) == {"E0.50+J0.50"}
    assert set(column(output, "persona", "train")) == {"reference", "E1.00", "J1.00"}
    assert set(column(output, "row_id", "test")) == set(column(output, "row_id", "test", "judgments"))
    run(write_job(split_job.parent))
    assert [path.name for path in files_in(output / "data")] == ["train-00000-of-00001.parquet"]
    assert changed_files(output) == {} and {row["row_id"]: row for row in rows(output)} == before


@pytest.mark.parametrize("split", [BY_PROMPT, BY_WEIGHTS], ids=lambda split: split["by"])
def test_judged_again_and_run_from_its_record_it_is_as_it_was(job_file: Path, split: dict[str, object]) -> None:
    run(write_job(job_file.parent, split=split))
    output = job_file.parent / "out"
    before = checksums(output)
    refresh_card(output)
    assert checksums(output) == before
    assert main(["judge", str(output)]) == 0
    after = checksums(output)
    assert {name for name in before if not name.startswith("judgments/")} <= set(after)
    assert after["README.md"] == before["README.md"] and changed_files(output) == {}
    assert set(column(output, "row_id", "test")) == set(column(output, "row_id", "test", "judgments"))
    run(output / "job.json")
    assert checksums(output) == before


def test_files_of_the_test_split_are_taken_up_as_shards(split_job: Path) -> None:
    run(split_job)
    output = split_job.parent / "out"
    before = checksums(output)
    shutil.rmtree(output / ".work")
    again = run_job(load_job(split_job))
    assert again.run["counts"]["generated"] == 0 and again.run["counts"]["kept_from_earlier_runs"] == 12
    assert checksums(output) == before


def test_dead_letters_are_no_test(split_job: Path) -> None:
    prompts = split_job.parent / "prompts.jsonl"
    prompts.write_text(
        prompts.read_text() + "".join(f'{{"id": "x{i}", "prompt": "{"a" * 400}{i}"}}\n' for i in range(8))
    )
    run_job(load_job(split_job, ["max_rejected_fraction=0.9"]))
    assert [path.name for path in files_in(split_job.parent / "out" / "rejected")] == ["train-00000-of-00001.parquet"]


@pytest.mark.parametrize("command", ["check", "run", "plan"])
def test_a_split_that_leaves_nothing_is_one_line_before_a_model_is_loaded(
    job_file: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(job_file.parent / "base")
    (job_file.parent / "base").mkdir()
    (job_file.parent / "base" / "config.json").write_text("{}")  # nothing that could be loaded
    assert main([command, str(job_file), "--set", "split={by: weights, region: {E: [0.1, 0.2]}}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    what = "{E: [0.1, 0.2]} leaves test without a persona (of 4, the control among them); widen it"
    assert line == f"mpg: {job_file}: split.region: {what}"
