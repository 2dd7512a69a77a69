"""A complete data set stays, whole and readable, until the next one is complete; what a run has is said and kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest

from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.plan.errors import RunError
from pipeline.run.run import run_job
from pipeline.store.manifest import changed_files
from tests.judge_server import JudgeServer, serving, status
from tests.tiny_job import checksums, rows, write_job, write_prompts


def said_place(said: str) -> Path:
    """Where the last line says that the rows are."""
    return Path(said.strip().splitlines()[-1].partition("to look at in ")[2].partition(" (")[0].partition(";")[0])


def opened(folder: Path) -> int:
    """How many rows `datasets` finds in a folder, as a user opens it."""
    data = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    return len(data)


@pytest.fixture
def complete(job_file: Path) -> Path:
    assert main(["run", str(job_file)]) == 0
    return job_file.parent / "out"


def failed(job: Path, *overrides: str) -> tuple[str, int]:
    """What a run says that does not end well, and its exit status; what `mpg check` would refuse is let through."""
    with pytest.raises(RunError) as error:
        run_job(load_job(job, overrides))
    return str(error.value), error.value.status


@pytest.mark.parametrize(
    ("overrides", "ends_with"),
    [
        (["seed=1", "decoder.max_new_tokens=250", "max_rejected_fraction=0.5"], 4),
        (["samples_per_cell=16", "deadline=0.3s"], 75),
    ],
    ids=["every row rejected", "grown and stopped"],
)
def test_a_run_that_does_not_end_well_leaves_the_earlier_data_set_alone(
    complete: Path, overrides: list[str], ends_with: int
) -> None:
    before = checksums(complete)
    run = json.loads((complete / "run.json").read_text())
    said, status = failed(complete.parent / "job.yaml", *overrides)
    place = said_place(said)
    assert status == ends_with
    assert place == complete / "partial" and f"the data set in {complete} stays as it was" in said
    assert {name: sum_ for name, sum_ in checksums(complete).items() if not name.startswith("partial/")} == before
    assert changed_files(complete) == {} and json.loads((complete / "run.json").read_text()) == run
    assert opened(complete) == 12
    ended = json.loads((place / "run.json").read_text())["ended"]
    assert not ended["complete"] and ended["status"] == ends_with and ended["why"] in said
    assert "**not complete**" in (place / "README.md").read_text() and changed_files(place) == {}
    assert main(["verify", str(complete), "--sample", "0"]) == 0


@pytest.mark.parametrize(
    ("overrides", "ends_with"),
    [(["seed=1", "deadline=0s"], 75), (["seed=1", "device_price=3600", "budget=0.001"], 3)],
    ids=["deadline", "budget"],
)
def test_a_run_that_has_nothing_yet_says_so_and_leaves_no_folder(
    complete: Path, overrides: list[str], ends_with: int
) -> None:
    before = checksums(complete)
    said, status = failed(complete.parent / "job.yaml", *overrides)
    assert status == ends_with and "none of 12 rows is finished yet" in said
    assert f"the data set in {complete} stays as it was" in said and said.endswith("goes on with the other 12")
    assert checksums(complete) == before and opened(complete) == 12


def test_what_a_stopped_run_has_is_a_data_set_to_look_at(job_file: Path) -> None:
    write_prompts(job_file.parent, ("Hi there", "  "))
    said, status = failed(write_job(job_file.parent, max_rejected_fraction=0.1))
    place = said_place(said)
    assert status == 4 and opened(place) == len(rows(place)) == len(rows(place, "rejected")) == 4
    assert not (job_file.parent / "out" / "run.json").exists()
    assert main(["run", str(write_job(job_file.parent, max_rejected_fraction=0.9))]) == 0
    assert not place.exists() and opened(job_file.parent / "out") == 4


def test_rows_that_a_stopped_run_has_are_kept_without_its_work_folder(complete: Path) -> None:
    job = complete.parent / "job.yaml"
    write_prompts(complete.parent, ("Hi there", "  ", "hello you"))
    assert failed(job, "max_rejected_fraction=0")[1] == 4
    kept = {row["row_id"]: row for row in rows(complete / "partial")}
    shutil.rmtree(complete / ".work")
    assert main(["run", str(job), "--set", "max_rejected_fraction=0.9"]) == 0
    counts = json.loads((complete / "run.json").read_text())["counts"]
    assert counts["generated"] == 0 and {row["row_id"]: row for row in rows(complete)} == kept


def test_a_limit_that_is_reached_when_all_is_done_takes_nothing_away(complete: Path) -> None:
    before = checksums(complete)
    assert main(["run", str(complete.parent / "job.yaml"), "--deadline", "0s"]) == 0
    assert checksums(complete) | {"job.json": before["job.json"]} == before


class _Breaks:
    """A bank that can't be loaded, for a reason that nobody foresaw."""

    def __call__(self, *args: object, **more: object) -> None:
        raise ZeroDivisionError("nobody foresaw this")


def test_an_error_that_nobody_foresaw_says_where_the_finished_rows_are(complete: Path) -> None:
    before = checksums(complete)
    job = load_job(complete.parent / "job.yaml", ["samples_per_cell=2"])
    with pytest.raises(RunError, match=r"nobody foresaw this.*12 of 24 rows are finished, to look at in") as failed:
        run_job(job, load=_Breaks())
    assert failed.value.status == 1 and len(rows(complete / "partial")) == 12
    assert {name: each for name, each in checksums(complete).items() if not name.startswith("partial/")} == before


def test_texts_without_scores_take_the_place_of_no_data_set_that_has_them(
    complete: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one without scores they do: texts are kept where they were, and the record says why."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    before = checksums(complete)
    with serving(JudgeServer(lambda text, n: status(401))) as url:
        judges = [{"kind": "openai", "model": "m", "base_url": url}]
        assert main(["run", str(write_job(complete.parent, judges=judges, seed=1))]) == 5
        place = said_place(capsys.readouterr().err)
        assert len(rows(place)) == 12 and "401" in json.loads((place / "run.json").read_text())["ended"]["why"]
        assert {name: each for name, each in checksums(complete).items() if not name.startswith("partial/")} == before
        fresh = write_job(complete.parent, judges=judges, output=str(complete.parent / "fresh"))
        for _ in range(2):
            assert main(["run", str(fresh)]) == 5
            ended = json.loads((complete.parent / "fresh" / "run.json").read_text())["ended"]
            assert ended["complete"] and ended["status"] == 5 and "401" in ended["why"]
            assert len(rows(complete.parent / "fresh")) == 12
