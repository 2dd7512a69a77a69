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
    assert len({job.output for job in jobs}) == len({Plan.of(job).cells()[0].row_id for job in jobs}) == len(LEVERS)
    assert [each.name for each in job_of("base", None, tmp_path).build_personas()] == ["ENTJ", "ISFP"]


def test_the_table_has_a_line_each_and_is_resumed(
    job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = ["base", "tell all", "prompting, list"]
    command = ["--job", str(job_file), "--smoke", "--output", str(tmp_path / "levers"), "--only", *some]
    main(command)
    table = capsys.readouterr().out.splitlines()[-3:]
    assert [" ".join(line.split()[:-4]) for line in table] == some
    assert all(line.split()[-4] == "1" for line in table)  # texts
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "levers").glob("*/.work/generations/*.parquet")}
    main(command)
    assert len(shards) == 3 and capsys.readouterr().out.splitlines()[-3:] == table
    assert {path: path.stat().st_mtime_ns for path in shards} == shards
