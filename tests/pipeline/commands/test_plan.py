"""``mpg plan``: totals from a pilot, held against the run itself; limits of a job."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest

from pipeline.cli import main
from pipeline.job.deadline import seconds_until
from pipeline.run.estimate import total_of
from tests.tiny_job import rows, write_job, write_prompts


@pytest.mark.parametrize("n_sampled", [2, 5])
def test_a_total_from_strata_covers_the_truth_as_often_as_it_says(n_sampled: int) -> None:
    """Personas of different lengths and sizes; the truth is the sum over all of their cells.

    Of 400 intervals that hold 95 % of the time fewer than 0.92 or more than 0.98 of them do so once in 200 trials;
    with the degrees of freedom of equal variances 0.88 did with two cells a persona.
    """
    rng = np.random.default_rng(0)
    held, n_trials = 0, 400
    for _ in range(n_trials):
        strata = {f"s{i}": rng.gamma(4.0, 10.0 * (1 + i), size=50 * (1 + i)) for i in range(4)}
        sizes = {name: len(values) for name, values in strata.items()}
        sample = {name: rng.choice(values, n_sampled, replace=False).tolist() for name, values in strata.items()}
        found = total_of(sample, sizes)
        held += found.low <= sum(map(float, (v.sum() for v in strata.values()))) <= found.high
    assert 0.92 <= held / n_trials <= 0.98


def test_a_total_of_everything_is_exact_and_strata_without_a_sample_have_the_mean() -> None:
    found = total_of({"a": [1.0, 2.0, 3.0]}, {"a": 3})
    assert found.value == found.low == found.high == 6.0
    assert total_of({"a": [2.0, 2.0]}, {"a": 10, "b": 10}).value == 40.0
    lone = total_of({"a": [2.0]}, {"a": 10})
    assert lone.value == 20.0 and fmean([lone.low, lone.high]) == 20.0


def test_a_plan_is_printed_kept_and_stands_in_run_json_beside_what_was(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(job_file.parent, tuple(f"tell me {a}{b}" for a in "abcde" for b in "fgh"))
    job = write_job(job_file.parent, device_price=2.0)
    assert main(["plan", str(job)]) == 0
    printed = capsys.readouterr().out
    for words in ("tiny: 60 texts; pilot: 8 of them", "tokens  ", "time  ", "device-hours", "cost  "):
        assert words in printed
    assert not list((job_file.parent / "out").rglob("*.parquet"))  # the pilot's texts are no rows
    assert main(["run", str(job)]) == 0
    run = json.loads((job_file.parent / "out" / "run.json").read_text())
    planned, actual = run["planned"], run["actual"]
    assert planned["cells"] == actual["cells"] == len(rows(job_file.parent / "out")) == 60
    assert actual["tokens"] == sum(row["n_tokens"] for row in rows(job_file.parent / "out"))
    assert planned["tokens"]["low"] <= actual["tokens"] <= planned["tokens"]["high"]
    assert planned["cost"]["value"] == pytest.approx(2.0 * planned["device_hours"]["value"])
    assert actual["cost"] == pytest.approx(2.0 * actual["seconds"] / 3600, rel=0.05)


def test_what_is_there_is_not_forecast_and_planned_stands_beside_like(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = job_file.parent
    write_prompts(folder, tuple(f"tell me {a}{b}" for a in "abcde" for b in "fgh"))
    assert main(["run", str(job_file), "--set", "prompts.limit=5"]) == 0
    before = rows(folder / "out")
    capsys.readouterr()
    assert main(["plan", str(job_file)]) == 0
    assert "tiny: 40 texts are left, 20 are there already; pilot: 8 of them" in capsys.readouterr().out
    assert main(["run", str(job_file)]) == 0
    said = capsys.readouterr().out
    run = json.loads((folder / "out" / "run.json").read_text())
    planned, actual = run["planned"], run["actual"]
    assert planned["cells"] == actual["cells"] == 40 and planned["there"] == 20
    made = sum(row["n_tokens"] for row in rows(folder / "out")) - sum(row["n_tokens"] for row in before)
    assert actual["tokens"] == actual["generated_tokens"] == made
    assert f"; was: {made} in " in said and "and earlier runs" not in said
    assert planned["tokens"]["low"] <= made <= planned["tokens"]["high"]


def test_where_nothing_is_left_a_plan_says_so(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_prompts(job_file.parent, ("hello you", " "))
    job = write_job(job_file.parent, max_rejected_fraction=0.6)
    assert main(["run", str(job)]) == 0
    capsys.readouterr()
    assert main(["plan", str(job)]) == 0
    output = job_file.parent / "out"
    assert capsys.readouterr().out == f"tiny: nothing is left: 4 texts are in {output}, 4 were rejected\n"
    assert not (output / ".work" / "plan.json").exists()


def test_texts_that_are_there_and_unjudged_are_left(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(write_job(job_file.parent, judges=[]))]) == 0
    judge = {"kind": "openai", "model": "m", "prompt_price": 1.0, "completion_price": 10.0}
    capsys.readouterr()
    assert main(["plan", str(write_job(job_file.parent, judges=[judge]))]) == 0
    assert "tiny: 0 texts are left, 12 are there already" in capsys.readouterr().out
    plan = json.loads((job_file.parent / "out" / ".work" / "plan.json").read_text())
    assert plan["tokens"]["value"] == 0 and plan["judge_prompt_tokens"] > 12 * 100
    assert plan["cost"]["value"] > 0


def test_a_judge_behind_an_endpoint_is_counted_and_priced(
    job_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)  # a plan asks nobody
    judge = {"kind": "openai", "model": "m", "prompt_price": 1.0, "completion_price": 10.0}
    assert main(["plan", str(write_job(job_file.parent, judges=[judge]))]) == 0
    assert "judge tokens" in capsys.readouterr().out
    plan = json.loads((job_file.parent / "out" / ".work" / "plan.json").read_text())
    asked, answered = plan["judge_prompt_tokens"], plan["judge_completion_tokens"]
    assert asked > 12 * 100 and answered["low"] == 12 * 40 and answered["high"] == 12 * 130
    assert plan["cost"]["high"] == pytest.approx((asked + 10 * answered["high"]) / 1e6)


def test_prompts_that_can_not_be_read_are_said_and_do_not_count(
    job_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_prompts(job_file.parent, (" ",))
    assert main(["plan", str(job_file)]) == 2
    assert "none of the 4 cells of the pilot can be decoded" in capsys.readouterr().err
    assert main(["plan", str(job_file), "--cells", "1"]) == 2
    assert "--cells: 1 is out of range" in capsys.readouterr().err


NOW = datetime(2026, 11, 25, 22, 0).astimezone()


@pytest.mark.parametrize(
    ("deadline", "seconds"),
    [
        ("90s", 90),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("2026-11-26T07:00", 32_400),
        ("2026-11-25", -79_200),
    ],
)
def test_deadlines(deadline: str, seconds: float) -> None:
    assert seconds_until(deadline, NOW) == seconds


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("deadline=soon", "deadline: 'soon' is no deadline; give a duration like 6h"),
        ("budget=5", "budget: 5 needs device_price, or a judge with prices"),
        ("budget=0", "budget: 0 is out of range"),
        ("device_price=-1", "device_price: -1 is out of range"),
    ],
)
def test_each_mistake_has_its_line(job_file: Path, option: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(job_file), "--set", option]) == 2
    assert words in capsys.readouterr().err
