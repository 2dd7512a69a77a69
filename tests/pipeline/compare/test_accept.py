"""Methods whose texts a judge lets pass: what is drawn, who counts, and what the tables say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.compare.arms import Stage, job_of, points_of
from pipeline.compare.load import load_comparison
from pipeline.compare.questions import known_job
from pipeline.compare.run import compare
from pipeline.compare.tables import Made
from pipeline.compare.texts import divergence_of
from pipeline.compare.write import write_tables
from tests.tiny_comparison import comparison_data, make_comparison

ACCEPT = {"min_score": 0.5, "max_candidates": 3, "by": ["classifier"]}


def with_accept(**more: Any) -> list[dict[str, Any]]:
    """The tiny comparison's methods, and ``mod`` of which the classifier lets texts pass."""
    methods: list[dict[str, Any]] = comparison_data()["methods"]
    return [*methods, {"name": "chosen", "decoder": {"name": "mod"}, "strengths": [1.0], "accept": ACCEPT | more}]


@pytest.fixture(scope="module")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of a screening: by label."""
    path = make_comparison(
        tmp_path_factory.mktemp("accept"), methods=with_accept(), final={"finalists": 0, "known": False}
    )
    assert main(["compare", str(path)]) == 0
    found = pq.read_table(path.parent / "out" / "arms.parquet").to_pylist()
    page = (path.parent / "out" / "compare.md").read_text()
    assert "texts are chosen by classifier, which counts in no method's score" in page
    return {f"{row['curve']} {row['strength']}": row for row in found}


def test_a_judge_that_chooses_counts_for_no_method(arms: dict[str, dict[str, Any]]) -> None:
    for row in arms.values():
        by_family = {each["family"]: each["mean"] for each in row["families"]}
        assert row["score"] == pytest.approx(by_family["encoder"])
        assert abs(by_family["classifier"] - by_family["encoder"]) > 1e-3  # else the line above says nothing


def test_what_was_drawn_is_told_and_what_was_kept_had_passed(arms: dict[str, dict[str, Any]]) -> None:
    chosen, all_of_it = arms["chosen 1.0"], arms["mod 1.0"]
    assert all(row["candidates_per_text"] == 1 for row in arms.values() if row is not chosen)
    assert chosen["candidates_per_text"] > 1
    by = {each["family"]: each["mean"] for each in chosen["families"]}
    assert by["classifier"] >= ACCEPT["min_score"]
    assert chosen["n_texts"] <= all_of_it["n_texts"]


def test_so_many_are_kept_as_the_stage_asks_for(tmp_path: Path) -> None:
    comparison = load_comparison(make_comparison(tmp_path, methods=with_accept()))
    (task,) = comparison.tasks
    (point,) = points_of(comparison.method("chosen"), ("E", "J"), ("EJ",))
    job = job_of(comparison, task, point, Stage("final", 0, 4, 2))
    assert job.accept is not None and job.samples_per_cell == 1
    assert (job.accept.rows_per_cell, job.accept.max_candidates, job.accept.by) == (2, 6, ("classifier",))
    other = job_of(comparison, task, next(points_of(comparison.method("mod"), ("E", "J"))), Stage("final", 0, 4, 2))
    assert other.accept is None and other.samples_per_cell == 2


def test_questions_are_answered_once_and_nobody_chooses(tmp_path: Path) -> None:
    """Known answers and questionnaires are counted rightly or not, over all that is asked."""
    comparison = load_comparison(make_comparison(tmp_path, methods=with_accept()))
    (point,) = points_of(comparison.method("chosen"), ("E", "J"), ("EJ",))
    comparison.output_folder.mkdir()
    job = known_job(comparison, comparison.tasks[0], point)
    assert job.accept is None and job.judges == ()


def test_of_chosen_texts_no_kl_is_known_and_greedy_ones_are_drawn_once(tmp_path: Path) -> None:
    sum_of = {"name": "scr-exact", "aggregate": "sum", "horizon": None}
    methods = [{"name": "kept", "decoder": sum_of, "accept": ACCEPT}, {"name": "all", "decoder": sum_of}]
    comparison = load_comparison(make_comparison(tmp_path, methods=methods, final={"finalists": 0, "known": False}))
    (task,) = comparison.tasks
    row = {"system": None, "decoder": "scr-exact", "weights": [0.5, 0.5], "strengths": [1.0, 1.0],
           "log_ratios": [1.0, 2.0]}  # fmt: skip
    known = {}
    for method in comparison.methods:
        (point,) = points_of(method, ("E", "J"), ("EJ",))
        job = job_of(comparison, task, point, Stage("final", 0, 4, 2))
        known[method.name] = divergence_of(row, job, job.decoder.temperature)
    assert known["kept"] is None and known["all"] is not None
    once = ["job.decoder.temperature=0", "job.decoder.top_p=1", "methods[0].accept.max_candidates=1"]
    greedy = load_comparison(tmp_path / "compare.yaml", once)
    (point,) = points_of(greedy.method("kept"), ("E", "J"), ("EJ",))
    job = job_of(greedy, greedy.tasks[0], point, Stage("final", 0, 4, 2))
    assert job.accept is not None and job.accept.rows_per_cell == 1


def test_of_which_nothing_passes_it_is_a_line_and_not_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands in the table without a score; written again, it is done, and so is one of which some pass."""
    methods = [
        *with_accept()[-1:],
        {"name": "none", "decoder": {"name": "soup"}, "accept": ACCEPT | {"min_score": 1.0}},
    ]
    path = make_comparison(tmp_path, methods=methods, final={"finalists": 0, "known": False})
    comparison = load_comparison(path)
    found = compare(comparison)
    assert "0 of 4 prompts and personas have a text that has passed" in caplog.text
    write_tables(comparison, found, Made("", "", ""))
    arms = pq.read_table(tmp_path / "out" / "arms.parquet")
    row = {each["curve"]: each for each in arms.to_pylist()}["none"]
    assert (row["n_texts"], row["score"], row["candidates_per_text"]) == (0, None, None)
    monkeypatch.setattr("pipeline.compare.run.run_job", None)
    assert main(["compare", str(path)]) == 0
    assert (
        pq.read_table(tmp_path / "out" / "arms.parquet")
        .drop_columns(["perplexity"])
        .equals(arms.drop_columns(["perplexity"]))
    )
