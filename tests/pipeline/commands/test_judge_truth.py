"""Whoever adds judgments to a data set leaves its card, manifest and record true."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.store.manifest import changed_files
from tests.judge_server import JudgeServer, serving
from tests.tiny_job import rows


@pytest.fixture
def data_set(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert main(["run", str(job_file)]) == 0
    return job_file.parent / "out"


def card_table(folder: Path) -> list[str]:
    text = (folder / "README.md").read_text()
    return [line for line in text.splitlines() if line.startswith("|")]


def test_counts_card_and_manifest_follow_another_judge(data_set: Path) -> None:
    before, record = card_table(data_set), json.loads((data_set / "run.json").read_text())
    with serving(JudgeServer()) as url:
        command = ["judge", str(data_set), "--judge", "openai", "--base-url", url, "--model", "m"]
        assert main([*command, "--prompt-price", "10"]) == 0
    judgments, run = rows(data_set, "judgments"), json.loads((data_set / "run.json").read_text())
    assert run["counts"]["judgments"] == len(judgments) > record["counts"]["judgments"]
    assert run["counts"]["unscored"] == sum(row["score"] is None for row in judgments)
    assert set(run["judges"]) == {row["judge"] for row in judgments}
    (label,) = set(run["judges"]) - set(record["judges"])
    assert run["calls"][label]["calls"] == 12 and run["calls"][label]["cost"] > 0
    assert changed_files(data_set) == {}
    assert card_table(data_set) != before and label in (data_set / "README.md").read_text()
    assert {key: run[key] for key in ("timings", "versions", "computed_with")} == {
        key: record[key] for key in ("timings", "versions", "computed_with")
    }


def test_a_judges_other_version_takes_the_place_of_the_one_before(data_set: Path) -> None:
    (before,) = json.loads((data_set / "run.json").read_text())["judges"]
    assert main(["judge", str(data_set), "--abstain", "0.05"]) == 0
    run = json.loads((data_set / "run.json").read_text())
    assert run["judges"] == [f"{before}+abstain0.05"]  # one voice, not two
    assert {row["judge"] for row in rows(data_set, "judgments")} == {before, *run["judges"]}  # none is lost
    assert run["counts"]["judgments"] == len(rows(data_set, "judgments"))


def test_a_data_set_of_an_earlier_version_is_judged_and_keeps_a_card(data_set: Path) -> None:
    """Whose record says less: what it does not say is no reason to leave the rest untrue."""
    run = json.loads((data_set / "run.json").read_text())
    del run["ended"], run["calls"]
    (data_set / "run.json").write_text(json.dumps(run))
    with serving(JudgeServer()) as url:
        assert main(["judge", str(data_set), "--judge", "openai", "--base-url", url, "--model", "m"]) == 0
    assert json.loads((data_set / "run.json").read_text())["counts"]["judgments"] == len(rows(data_set, "judgments"))
