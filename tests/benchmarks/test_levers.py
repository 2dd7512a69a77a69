"""The levers' table: every lever is a job of its own, and over a tiny model it runs and is resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.levers import LEVERS, job_of, main
from pipeline.plan.plan import Plan
from tests.tiny_job import make_job


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    return make_job(tmp_path, personas={"kind": "explicit", "weights": [{"weights": {"E": 0.5, "J": 0.5}}]})


def test_every_lever_moves_something(job_file: Path, tmp_path: Path) -> None:
    jobs = [job_of(lever, job_file, tmp_path) for lever in LEVERS]
    moved = {(Plan.of(job).cells()[0].row_id, job.accept) for job in jobs}  # a choice draws the same texts first
    assert len({job.output for job in jobs}) == len(moved) == len(LEVERS)
    assert [each.name for each in job_of("base", None, tmp_path).build_personas()] == ["ENTJ", "ISFP"]


def test_the_table_has_a_line_each_and_is_resumed(
    job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ["base", "tell all", "prompting, list", "accept", "soup, accept"]
    easy = "accept={min_score: 0.0, rows_per_cell: 1, max_candidates: 2, by: [classifier]}"
    monkeypatch.setitem(LEVERS, "accept", (easy,))
    monkeypatch.setitem(LEVERS, "soup, accept", ("decoder.name=soup", easy.replace("0.0", "1.0")))
    command = ["--job", str(job_file), "--smoke", "--output", str(tmp_path / "levers"), "--only", *some]
    main(command)
    table = capsys.readouterr().out.splitlines()[-len(some) :]
    assert [" ".join(line.split()[:-7]) for line in table] == some
    assert [line.split()[-7] for line in table] == ["1", "1", "1", "1", "0"]  # texts: of the last none passes
    assert [line.split()[-5] == "-" for line in table] == ["accept" in name for name in some]  # by both judges
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "levers").glob("*/.work/generations/*.parquet")}
    main(command)
    assert len(shards) == len(some) + 1  # where none passed a second was drawn
    assert capsys.readouterr().out.splitlines()[-len(some) :] == table
    assert {path: path.stat().st_mtime_ns for path in shards} == shards


def test_a_pilot_s_strengths_are_a_lever(
    job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.levers._GRID", (1.0, 2.0))
    monkeypatch.setattr("benchmarks.levers._PILOT_TEXTS", 3)
    command = ["--job", str(job_file), "--set", "decoder.max_new_tokens=4", "--output", str(tmp_path)]
    main([*command, "--only", "calibrated"])
    said, *_, line = capsys.readouterr().out.splitlines()
    assert said.startswith("calibrated: E ") and ", J " in said and line.split()[:2] == ["calibrated", "3"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--prompts", "0"], "--prompts: 0 is none; give 1 or more"),
        (["--set", "decoder.foo=1"], "decoder.foo: unknown field"),
        (["--job", "nope.yaml"], "nope.yaml"),
    ],
)
def test_a_mistake_is_a_line(
    job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], expected: str
) -> None:
    with pytest.raises(SystemExit):
        main(["--job", str(job_file), "--output", str(tmp_path / "levers"), "--only", "base", *more])
    assert expected in capsys.readouterr().err
