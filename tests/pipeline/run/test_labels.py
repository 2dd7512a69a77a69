"""A row that is there already is labelled as the job says now, whatever it was labelled when it was written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from tests.tiny_job import rows, write_job, write_prompts

ADA: dict[str, Any] = {"name": "ada", "weights": {"E": 1.0}, "profile": {"age": 20, "gender": "woman"}}
BOB: dict[str, Any] = {"name": "bob", "weights": {"E": 0.25, "J": 0.75}}


def run(folder: Path, *people: dict[str, Any], **changes: Any) -> list[dict[str, Any]]:
    personas = {"kind": "explicit", "control": True, "weights": list(people)}
    assert main(["run", str(write_job(folder, personas=personas, **changes))]) == 0
    return rows(folder / "out")


def labels(row: dict[str, Any]) -> list[Any]:
    return [row[name] for name in ("row_id", "prompt_id", "persona", "profile", "personality", "attributes", "weights")]


def measured(row: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Attribute by attribute, in whatever order they stand."""
    columns = zip(*(row[name] for name in ("weights", "strengths", "log_ratios", "adapters")), strict=True)
    return dict(zip(row["attributes"], columns, strict=True))


def by_id(found: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {row["row_id"]: row for row in found}


def swap_names(folder: Path) -> dict[str, Any]:
    return {"people": (ADA | {"name": "bob"}, BOB | {"name": "ada"})}


def another_profile(folder: Path) -> dict[str, Any]:
    return {"people": (ADA | {"profile": {"age": 90, "gender": "woman"}}, BOB | {"personality": "He is calm."})}


def other_prompt_ids(folder: Path) -> dict[str, Any]:
    lines = (folder / "prompts.jsonl").read_text().replace('"id": "p', '"id": "q')
    (folder / "prompts.jsonl").write_text(lines)
    return {}


def attributes_the_other_way_round(folder: Path) -> dict[str, Any]:
    return {"attributes": [{"name": "J", "adapter": "J"}, {"name": "E", "adapter": "E"}]}


@pytest.mark.parametrize("n_there", ["all", pytest.param("a part", marks=pytest.mark.long)])
@pytest.mark.parametrize("change", [swap_names, another_profile, other_prompt_ids, attributes_the_other_way_round])
def test_what_is_no_part_of_a_rows_identity_is_what_the_job_says_now(
    job_file: Path, change: Callable[[Path], dict[str, Any]], n_there: str
) -> None:
    """A run that goes on gives the data set that a run from nothing would give, and decodes nothing again."""
    folder = job_file.parent
    before = by_id(run(folder, ADA, BOB, rows_per_shard=3))
    if n_there == "a part":
        next((folder / "out" / ".work" / "generations").glob("*.parquet")).unlink()
    changes = {"people": (ADA, BOB)} | change(folder)
    people = changes.pop("people")
    after = run(folder, *people, rows_per_shard=3, **changes)
    counts = json.loads((folder / "out" / "run.json").read_text())["counts"]
    assert (counts["generated"] == 0) == (n_there == "all")
    assert set(by_id(after)) == set(before)
    run(folder, *people, rows_per_shard=3, output=str(folder / "anew"), **changes)
    anew = rows(folder / "anew")
    assert [labels(row) for row in after] == [labels(row) for row in anew] != [labels(row) for row in before.values()]
    for row in after:
        assert row["response"] == before[row["row_id"]]["response"] and measured(row) == measured(before[row["row_id"]])
    assert main(["verify", str(folder / "out"), "--sample", "20"]) == 0


def test_a_dead_letter_is_relabelled_too(job_file: Path) -> None:
    folder = job_file.parent
    write_prompts(folder, ("Hi there", "  "))
    run(folder, ADA, max_rejected_fraction=1.0)
    assert {row["persona"] for row in rows(folder / "out", "rejected")} == {"reference", "ada"}
    run(folder, ADA | {"name": "eve"}, max_rejected_fraction=1.0)
    assert {row["persona"] for row in rows(folder / "out", "rejected")} == {"reference", "eve"}


def test_a_text_is_judged_anew_where_its_judge_reads_what_has_changed(tmp_path: Path, role_play: Path) -> None:
    """`persona-match` reads the profile; the attribute's models do not."""
    first = {row["row_id"]: row["score"] for row in rows(role_play / "out", "judgments")}
    people = {"kind": "explicit", "weights": [{"weights": {"profile": 1.0}, "profile": "He keeps cows on a farm."}]}
    assert main(["run", str(write_job(role_play, **ROLE_PLAY, personas=people))]) == 0
    again = {row["row_id"]: row["score"] for row in rows(role_play / "out", "judgments")}
    assert set(again) == set(first) and again != first
    assert {row["profile"] for row in rows(role_play / "out")} == {"He keeps cows on a farm."}


ROLE_PLAY: dict[str, Any] = {
    "attributes": [{"name": "profile", "adapter": "E", "system": "Speak like somebody."}],
    "judges": [{"kind": "persona-match"}],
}


@pytest.fixture
def role_play(job_file: Path) -> Path:
    people = {"kind": "explicit", "weights": [{"weights": {"profile": 1.0}, "profile": "She flies a plane."}]}
    assert main(["run", str(write_job(job_file.parent, **ROLE_PLAY, personas=people))]) == 0
    return job_file.parent
