"""The gate: what of a data set is worse than of the last revision, on data sets whose numbers are known."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.statistics.aggregate import clustered_mean
from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.publish.gate.rules import lowest
from pipeline.store.layout import files_in
from pipeline.store.manifest import files_of, write_files
from tests.gate_desk import N, data_set, gate


@pytest.fixture
def last(tmp_path: Path) -> Path:
    return data_set(tmp_path / "last")


def test_another_draw_of_the_same_passes_and_the_table_says_what_changed(
    last: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = data_set(tmp_path / "new", seed=1, n=N + 5, run={"versions": {"torch": "9"}}, job={"interval": "2026-11-23"})
    status, found = gate(capsys, new, "--against", last)
    assert status == 0 and found["refused"] == [] and found["against"] == str(last) and found["problem"] is None
    assert (found["interval"], found["output"]) == ("2026-11-23", str(new))
    changes = {each["what"]: (each["was"], each["is"]) for each in found["changes"]}
    assert changes["rows"] == ("60", "70") and changes["prompts"] == ("30", "35")
    assert changes["prompts of one alone"] == ("0", "5") and changes["perplexity"] == ("7.39", "7.39")
    assert changes["interval"] == ("none", "2026-11-23") and changes["version of torch"] == ("unknown", "9")
    assert changes["adherence of E"][0].startswith("0.8") and changes["near-duplicates"] == ("0 of 60", "0 of 60")
    assert main(["gate", str(new), "--against", str(last)]) == 0
    printed = capsys.readouterr().out
    assert "adherence of J" in printed and printed.endswith(f"last: {last}\ngate: it may be published\n")


@pytest.mark.parametrize(
    ("changed", "rule", "words"),
    [
        ({"scores": {"E": 0.6, "J": 0.7}}, "adherence", "adherence of E is 0.6"),
        ({"log_prob": -11.5}, "max_perplexity_rise", "perplexity is 9.97, 35.0% above 7.39; 10.0% are allowed"),
        ({"same": 2}, "max_duplicate_rise", "6.7% of the texts almost repeat another, 6.7 points above 0.0%; 2.0"),
        ({"same": 4}, "max_duplicate_fraction", "8 of 60 texts almost repeat another (13.3%); 10.0% are allowed"),
        ({"n": 20}, "max_row_fall", "40 rows, 33.3% fewer than 60; 10.0% are allowed"),
        ({"unscored": 12}, "max_unscored_fraction", "12 of 120 judgments have no score (10.0%); 5.0% are allowed"),
        (
            {"run": {"counts": {"rejected": 9, "planned": 69}}},
            "max_rejected_fraction",
            "9 of 69 rows were rejected (13.0%); 10.0% are allowed",
        ),
        ({"judge": "classifier@3"}, "judges", "not comparable: judged by classifier@3, and was by classifier@2"),
        ({"scores": {"E": 0.8, "S": 0.7}}, "personas", "not comparable: other personas (lost J; new S)"),
        ({"scores": {"E": 0.8}}, "personas", "not comparable: other personas (lost J)"),
        ({"weight": 0.5}, "personas", "not comparable: other weights of E, J"),
        ({"run": {"model": "another@2"}}, "model", "not comparable: it is under another@2, and was under a/model@1"),
    ],
)
def test_what_is_worse_is_refused_by_name_and_by_how_much(
    changed: dict[str, Any], rule: str, words: str, last: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = gate(capsys, data_set(tmp_path / "new", seed=1, **changed), "--against", last)
    assert status == ExitStatus.REFUSED
    (line,) = [each["line"] for each in found["refused"] if each["rule"] == rule]
    assert words in line and f"{tmp_path / 'new'}: not to be published: {line}" in found["problem"]


def test_without_a_last_revision_absolute_thresholds_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = data_set(tmp_path / "first", job={"gate": {"min_adherence": 0.75, "max_perplexity": 5}})
    for words in ((), ("--against", "none")):
        status, found = gate(capsys, first, *words)
        assert status == ExitStatus.REFUSED and found["against"] is None
        assert {each["rule"] for each in found["refused"]} == {"min_adherence", "max_perplexity"}
        assert "adherence of J is 0.6" in found["problem"] and "perplexity is 7.39, above 5" in found["problem"]
        (note,) = found["notes"]
        assert "no last revision" in note and "absolute thresholds alone, as a first publication" in note


def test_itself_the_very_same_and_what_is_no_data_set(
    last: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = gate(capsys, last, "--against", last)
    assert status == 2 and "is the data set itself; give the one before it, or none" in found["problem"]
    status, found = gate(capsys, data_set(tmp_path / "copy"), "--against", last)
    assert status == 0 and "is this very data set: it is published already" in found["notes"][0]
    status, found = gate(capsys, last, "--against", "me/none")
    assert status == 2 and "--against me/none: no such folder; give one, OWNER/NAME@REVISION" in found["problem"]
    half = data_set(tmp_path / "half", run={"ended": {"complete": False, "why": "stopped", "status": 75}})
    for words, of in (((half,), str(half)), ((last, "--against", half), f"--against {half}: {half}")):
        status, found = gate(capsys, *words)
        assert status == 2 and found["problem"].startswith(of) and "its run has not ended (stopped)" in found["problem"]
    (last / "data" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    status, found = gate(capsys, tmp_path / "copy", "--against", last)
    assert status == 2 and f"--against {last}: {last}: not as it was written" in found["problem"]


def test_another_schema_is_refused(last: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = data_set(tmp_path / "new", seed=1)
    (path,) = files_in(new / "data")
    table = pq.read_table(path).drop_columns(["tv_bound"]).append_column("mood", pa.nulls(2 * N, pa.string()))
    pq.write_table(table, path)
    entry = {"rows": 2 * N, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    write_files(new, files_of(new) | {f"data/{path.name}": entry})
    status, found = gate(capsys, new, "--against", last)
    assert status == ExitStatus.REFUSED
    assert "another schema: generations.mood is new, generations.tv_bound is gone" in found["problem"]


def test_thresholds_come_from_a_job_file(
    last: Path, job_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = data_set(tmp_path / "new", seed=1, log_prob=-11.5)
    job_file.write_text(job_file.read_text() + "gate: {max_perplexity_rise: 0.5}\n")
    assert gate(capsys, new, "--against", last, "--job", job_file)[0] == 0
    job_file.write_text(job_file.read_text().replace("0.5}", "-1}"))
    status, found = gate(capsys, new, "--against", last, "--job", job_file)
    assert status == 2 and "gate.max_perplexity_rise" in found["problem"]


def test_an_unchanged_law_is_refused_as_seldom_as_is_said() -> None:
    """Twelve personas of forty prompts, drawn twice under one law.

    Of 200 trials at a chance of at most .05, 22 refusals or more come once in 1,000 times. By the old means' own
    intervals alone, most are refused: the mutant.
    """
    rng, n_personas, n_prompts, n_trials = np.random.default_rng(0), 12, 40, 200
    refused = by_old_alone = 0
    for _ in range(n_trials):
        old, new = (
            [clustered_mean(scores.tolist(), range(n_prompts)) for scores in rng.beta(4, 2, (n_personas, n_prompts))]
            for _ in range(2)
        )
        pairs = [(a, b, lowest(a, b, n_personas, 0.05)) for a, b in zip(old, new, strict=True)]
        refused += any(b.value < least for _, b, least in pairs if b.value is not None and least is not None)
        by_old_alone += any(
            b.value < a.value - a.half_width for a, b, _ in pairs if a.value and b.value and a.half_width
        )
    assert refused < 22 and by_old_alone > n_trials / 2


def test_a_fall_below_the_tolerance_passes_and_few_prompts_say_nothing() -> None:
    sure = clustered_mean([0.8, 0.8001] * 500, range(1000))
    least = lowest(sure, sure, 1, 0.05)
    assert least is not None and 0.799 < least < sure.value  # type: ignore[operator]
    assert lowest(replace(sure, n_clusters=2), sure, 1, 0.05) is None
    assert lowest(replace(sure, half_width=None), sure, 1, 0.05) is None
