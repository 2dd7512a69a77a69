"""A run whose attribute has a judge beside its adapter, and no endpoint: judged, and said what that is worth."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from evaluation.judges.own import CARD_FILE, WEIGHTS_FILE
from mpg.models.fingerprint import NO_WEIGHTS, fingerprint
from mpg.models.hub import ADAPTER_EXTRAS
from pipeline.cli import main
from pipeline.job.adapters import ADAPTER_CARD
from tests.own_judge import put_judge
from tests.tiny_job import make_job, rows, write_job

ATTRIBUTES = [{"name": "curious", "adapter": "E"}, {"name": "plain", "adapter": "J"}]


def run(folder: Path, *arguments: str) -> dict:
    assert main(["run", str(folder / "job.yaml"), *arguments]) == 0
    return json.loads((folder / "out" / "run.json").read_text("utf-8"))


def counts(folder: Path) -> dict[tuple[str, str], int]:
    """How many judgments there are, by the judge's name and the attribute."""
    return dict(Counter((r["judge"].partition("@")[0], r["attribute"]) for r in rows(folder / "out", "judgments")))


def adherence(folder: Path) -> list[str]:
    """The rows of the card's table of means."""
    text = (folder / "out" / "README.md").read_text("utf-8")
    return [line for line in text.split("\n## Judged adherence\n")[1].splitlines() if line.startswith("|")]


def test_an_own_attribute_is_judged_without_an_endpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = make_job(tmp_path, attributes=ATTRIBUTES)
    put_judge(tmp_path / "E")
    put_judge(tmp_path / "J", good=False)
    assert main(["check", str(job)]) == 0
    assert "curious: judged by its adapter's own judge, fitted on the adapter's own pairs" in capsys.readouterr().out
    record = run(tmp_path)
    printed = capsys.readouterr().out
    n = record["counts"]["rows"]
    assert counts(tmp_path) == {("own-classifier", "curious"): n, ("own-classifier-unproven", "plain"): n}
    header = next(line for line in printed.splitlines() if line.startswith("persona"))
    assert "curious" in header and "plain" not in header  # what does not count has no column
    assert set(record["own_judges"]) == {"curious", "plain"}
    for name, each in record["own_judges"].items():
        assert f"{name}: judged by {each['judge']}: {each['worth']}" in printed
        card = (tmp_path / "out" / "README.md").read_text("utf-8")
        assert f"- `{each['judge']}` ({n} judgments): {each['worth']}" in card
        assert each["judge"] in record["judges"]
    assert "not counted: " in record["own_judges"]["plain"]["worth"]

    ids = [row["row_id"] for row in rows(tmp_path / "out")]
    before = {row["judge"] for row in rows(tmp_path / "out", "judgments")}
    put_judge(tmp_path / "J")  # fitted again, on more pairs
    again = run(tmp_path)
    assert [row["row_id"] for row in rows(tmp_path / "out")] == ids and again["counts"]["generated"] == 0
    assert counts(tmp_path)["own-classifier", "plain"] == n  # another judge, asked about the texts that are there
    assert len({row["judge"] for row in rows(tmp_path / "out", "judgments")} - before) == 1
    out = capsys.readouterr().out
    assert "plain" in next(line for line in out.splitlines() if line.startswith("persona"))

    assert main(["judge", str(tmp_path / "out")]) == 0  # finds them by the data set's job
    said = capsys.readouterr().out
    assert "own-classifier@curious+1+" in said and "0 of them judged now" in said and "tells the pairs' two" in said


def test_texts_are_accepted_by_an_own_judge(tmp_path: Path) -> None:
    make_job(
        tmp_path,
        attributes=ATTRIBUTES[:1],
        personas={"kind": "one-hot"},
        accept={"min_score": 0.0, "rows_per_cell": 1, "max_candidates": 2},
    )
    put_judge(tmp_path / "E")
    record = run(tmp_path)
    assert record["accept"]["rows"] == 3 and record["accept"]["short"] == []


def test_an_own_judge_of_a_pole_takes_over_from_the_shipped_one(tmp_path: Path) -> None:
    """Also in the means: what the shipped classifier scored before stays in the data set, and is heard no more."""
    make_job(tmp_path)
    run(tmp_path)
    n = len(rows(tmp_path / "out"))
    assert counts(tmp_path) == {("classifier", "E"): n, ("classifier", "J"): n}
    put_judge(tmp_path / "E")
    run(tmp_path)
    assert counts(tmp_path) == {("classifier", "E"): n, ("classifier", "J"): n, ("own-classifier", "E"): n}
    kept = adherence(tmp_path)
    fresh = tmp_path / "fresh"
    make_job(fresh)
    put_judge(fresh / "E")
    run(fresh)
    assert counts(fresh) == {("classifier", "J"): n, ("own-classifier", "E"): n}
    assert kept == adherence(fresh) and len(kept) > 5


def test_a_judge_beside_an_adapter_is_no_part_of_what_writes_the_texts(tmp_path: Path) -> None:
    make_job(tmp_path)
    before = fingerprint(tmp_path / "E")
    put_judge(tmp_path / "E")
    assert fingerprint(tmp_path / "E") == before
    assert {WEIGHTS_FILE} == NO_WEIGHTS and {WEIGHTS_FILE, CARD_FILE, ADAPTER_CARD} == set(ADAPTER_EXTRAS)


def test_a_judge_that_is_damaged_after_the_check_ends_a_run_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.job.load import load_job
    from pipeline.plan.errors import RunError
    from pipeline.run.run import run_job

    make_job(tmp_path, attributes=ATTRIBUTES)
    put_judge(tmp_path / "E")
    job = load_job(write_job(tmp_path, attributes=ATTRIBUTES))
    (tmp_path / "E" / WEIGHTS_FILE).write_bytes(b"")
    with pytest.raises(RunError, match=r"attributes: .*judge.safetensors is not the file that its card describes"):
        run_job(job)
