"""``mpg judge`` with judges beside adapters: texts of any file, by name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from tests.own_judge import put_judge


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A file of texts, and adapters with a good judge, a poor one and none."""
    texts = [{"text": "aye to that"}, {"text": "nay to that"}, {"text": "?!"}]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(each) + "\n" for each in texts))
    for name in ("good", "poor", "bare"):
        (tmp_path / name).mkdir()
    put_judge(tmp_path / "good")
    put_judge(tmp_path / "poor", good=False)
    return tmp_path


def judge(desk: Path, *arguments: str) -> int:
    given = [each.replace("{desk}", str(desk)) for each in arguments]
    return main(["judge", str(desk / "texts.jsonl"), "--column", "text", *given])


def judged(desk: Path) -> list[dict[str, Any]]:
    return [
        row
        for file in sorted((desk / "texts-judgments" / "judgments").glob("*.parquet"))
        for row in pq.read_table(file).to_pylist()
    ]


def test_a_folders_judge_is_asked_about_what_it_was_fitted_for(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(desk, "--weights", "{desk}/good") == 0
    found = judged(desk)
    assert {row["attribute"] for row in found} == {"curious"} and len(found) == 3
    high, low = (row["score"] for row in found if row["score"] is not None)
    assert max(high, low) > 0.5 > min(high, low)
    assert "tells the pairs' two sides apart" in capsys.readouterr().out


def test_or_about_a_name_beside_what_ships(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = ["--weights", "keen={desk}/good", "--weights", "dull={desk}/poor"]
    assert judge(desk, *weights, "--attributes", "keen", "dull", "E") == 0
    found = Counter((row["judge"].partition("@")[0], row["attribute"]) for row in judged(desk))
    assert found == {("own-classifier", "keen"): 3, ("own-classifier-unproven", "dull"): 3, ("classifier", "E"): 3}
    printed = capsys.readouterr().out
    assert "(an adapter's own judge that does too poorly on held-out pairs" in printed and "not counted: " in printed


def test_the_judge_can_be_measured(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"q{i}", "chosen": "aye, I say", "rejected": "nay, I say"} for i in range(3)]
    (desk / "known.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert judge(desk, "--weights", "keen={desk}/good", "--known", "keen", "{desk}/known.jsonl") == 0
    assert "known pairs of keen: ranked 1.000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--weights", "{desk}/bare"], "bare: no judge (judge.json) there; mpg train --judge-only fits one"),
        (["--weights", "keen={desk}/nowhere"], "nowhere: no judge (judge.json) there"),
        (["--weights", "{desk}/good", "--weights", "{desk}/poor"], "'curious' is given twice; remove one"),
        (["--weights", "a|b={desk}/good"], "'a|b' is no plain name"),
        (["--weights", "{desk}/good", "--judge", "log-ratio"], "--weights: belongs to --judge classifier"),
        (
            ["--weights", "{desk}/good", "--attributes", "Q"],
            "does not know Q; for a judge beside an adapter, give --we",
        ),
        (["--attributes", "curious"], "does not know curious; for a judge beside an adapter, give --weights NAME=FOLD"),
    ],
)
def test_each_mistake_has_its_line(
    desk: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge(desk, *arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mpg: ")]
    assert len(lines) == 1 and says in lines[0]
