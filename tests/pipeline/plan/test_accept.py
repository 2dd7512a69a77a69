"""Exactly as many texts as wanted: who is drawn for, who passes, what is said of cells that fell short."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from personas import Grid, Message, Persona, Prompt, control
from pipeline.cli import main
from pipeline.job.fields import Accept
from pipeline.plan.accept import Draws, adherence, by_cell, passing, report, waiting
from pipeline.plan.cells import PlannedCell
from pipeline.publish.report.measures import Measures
from pipeline.publish.report.read import read_data_set
from pipeline.store.schema import JUDGMENTS
from tests.judge_server import JudgeServer, serving, status
from tests.tiny_job import rows, write_job, write_prompts

RULE = Accept(min_score=0.6, rows_per_cell=2, max_candidates=7)
_LOG_RATIO = {"kind": "log-ratio"}
BOTH = Persona("both", {"E": 0.75, "J": 0.25})
GRID = Grid((Prompt("p", (Message("user", "hi"),)),), (control(), BOTH))


def planned(draws: Draws) -> list[PlannedCell]:
    """Cells with ids that tell what they are."""
    return [
        PlannedCell(
            row_id=f"{cell.persona.name}{cell.sample_index}",
            seed=0,
            prompt_id=cell.prompt.prompt_id,
            messages=(),
            persona=cell.persona.name,
            weights=tuple(cell.persona.active.items()),
            sample_index=cell.sample_index,
            decoder=None,  # type: ignore[arg-type]
            config_hash="",
        )
        for cell in draws.candidates()
    ]


def told(draws: Draws, passed: dict[tuple[str, str], list[PlannedCell]]) -> dict[str, Any]:
    return report(draws.rule, ((key, len(passed.get(key, ())), n) for key, n in draws.drawn.items()))


def judged(scores: dict[tuple[str, str], float | None], judge: str = "classifier@2") -> pa.Table:
    base = {field.name: None for field in JUDGMENTS}
    found = [
        base
        | {"row_id": row_id, "attribute": a, "judge": judge, "score": s, "status": "ok" if s is not None else "failed"}
        for (row_id, a), s in scores.items()
    ]
    return pa.Table.from_pylist(found, schema=JUDGMENTS)


def test_a_texts_score_is_its_own_attributes_mean_by_weight() -> None:
    cells = planned(Draws(RULE, GRID))
    scores = {("both0", "E"): 0.8, ("both0", "J"): 0.4, ("both1", "E"): 0.9, ("both1", "J"): None}
    table = pa.concat_tables([judged(scores), judged({("both0", "E"): 0.0}, "log-ratio@1")])
    table = pa.concat_tables([table, judged({("both0", "E"): 0.0}, "classifier@1")])
    found = adherence(cells, table, {"E", "J"}, {"classifier@2", "log-ratio@1"}, "mean")
    assert found["both0"] == pytest.approx(0.75 * 0.8 + 0.25 * 0.4)
    assert found["both1"] is None and found["reference0"] is None  # unscored never passes
    only_e = adherence(cells, table, {"E"}, {"classifier@2"}, "mean")
    assert only_e["both0"] == pytest.approx(0.8) and only_e["both1"] == pytest.approx(0.9)


def test_the_first_that_pass_are_kept_and_more_are_drawn_where_too_few_did() -> None:
    draws = Draws(RULE, GRID)
    assert len(list(draws.candidates())) == 4
    good = {3, 5}  # of the persona's candidates
    for _ in range(10):
        cells = planned(draws)
        scores = {cell.row_id: 0.9 if cell.sample_index in good else 0.1 for cell in cells if cell.weights}
        passed = passing(by_cell(cells), scores, {cell.row_id for cell in cells}, RULE)
        if not draws.draw_more(passed, {}):
            break
    assert draws.drawn == {("p", "reference"): 2, ("p", "both"): 7}  # the cap; the control needs no judge
    assert [cell.row_id for cell in passed["p", "both"]] == ["both3", "both5"]
    assert told(draws, passed)["short"] == []


def test_a_cell_that_fell_short_is_listed_and_one_of_dead_letters_is_not_drawn_for() -> None:
    draws = Draws(RULE, GRID)
    passed: dict[tuple[str, str], list[PlannedCell]] = {}
    assert not draws.draw_more(passed, {("p", "reference"): 2, ("p", "both"): 2})
    assert told(draws, passed)["short"] == [
        {"prompt_id": "p", "persona": "reference", "rows": 0, "candidates": 2},
        {"prompt_id": "p", "persona": "both", "rows": 0, "candidates": 2},
    ]


def test_a_job_writes_as_many_as_wanted(job_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rule = {"min_score": 0.5, "rows_per_cell": 2, "max_candidates": 12}
    job = write_job(job_file.parent, accept=rule, output=str(job_file.parent / "one"))
    assert main(["run", str(job)]) == 0
    output = job_file.parent / "one"
    found, judgments = rows(output), rows(output, "judgments")
    run = json.loads((output / "run.json").read_text())["accept"]
    short = {(cell["prompt_id"], cell["persona"]): cell["rows"] for cell in run["short"]}
    counts = Counter((row["prompt_id"], row["persona"]) for row in found)
    assert len(counts) == run["cells"] - sum(n == 0 for n in short.values())
    assert all(n == short.get(key, 2) for key, n in counts.items()) and run["rows"] == len(found) > 12
    assert run["candidates"] > len(found)
    scores = {(row["row_id"], row["attribute"]): row["score"] for row in judgments}
    for row in found:
        own = [w * scores[row["row_id"], a] for a, w in zip(row["attributes"], row["weights"], strict=True)]
        assert not own or sum(own) >= 0.5
    assert {row["row_id"] for row in judgments} == {row["row_id"] for row in found}
    printed = capsys.readouterr().out
    assert "candidates" in printed and ("fell short" in printed) == bool(short)
    again = write_job(job_file.parent, accept=rule, batch_size=1, rows_per_shard=3, output=str(job_file.parent / "two"))
    assert main(["run", str(again)]) == 0  # other rounds of other shards: the same texts
    one, two = (rows(job_file.parent / name) for name in ("one", "two"))
    assert [(row["row_id"], row["response"]) for row in one] == [(row["row_id"], row["response"]) for row in two]


def test_one_judge_chooses_and_another_reports(job_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts are those that the one would choose alone; card, record and report have the other's scores."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    rule = {"min_score": 0.5, "rows_per_cell": 1, "max_candidates": 4}
    folder = job_file.parent
    assert main(["run", str(write_job(folder, accept=rule, output=str(folder / "alone")))]) == 0
    with serving(JudgeServer()) as url:
        judges = [{"kind": "classifier"}, {"kind": "openai", "model": "m", "base_url": url}]
        by = rule | {"by": ["classifier"]}
        assert main(["run", str(write_job(folder, accept=by, judges=judges, output=str(folder / "two")))]) == 0
    alone, two = rows(folder / "alone"), rows(folder / "two")
    assert [row["row_id"] for row in alone] == [row["row_id"] for row in two]
    data = read_data_set(folder / "two")
    assert len(data.judges) == 2 and [label.partition("@")[0] for label in data.counting] == ["openai"]
    given = {row["score"] for row in rows(folder / "two", "judgments") if row["judge"] == data.counting[0]}
    assert set(data.scores[data.is_judged].tolist()) <= given
    shown = Measures(data).adherence.value
    table = (folder / "two" / "README.md").read_text()
    assert shown is not None and "classifier chose them" in table
    assert json.loads((folder / "two" / "run.json").read_text())["accept"]["by"] == ["classifier"]


def test_candidates_of_a_prompt_that_can_not_be_read_are_not_drawn_on_and_on(job_file: Path) -> None:
    write_prompts(job_file.parent, ("hello you", "  "))
    job = write_job(
        job_file.parent,
        accept={"min_score": 0.0, "rows_per_cell": 1, "max_candidates": 50},
        max_rejected_fraction=0.9,
    )
    assert main(["run", str(job)]) == 0
    assert len(rows(job_file.parent / "out", "rejected")) == 4  # one for each persona
    run = json.loads((job_file.parent / "out" / "run.json").read_text())["accept"]
    assert {cell["prompt_id"] for cell in run["short"]} >= {"p1"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accept": {"min_score": 2, "rows_per_cell": 1, "max_candidates": 1}}, "accept.min_score: 2 is out of range"),
        ({"accept": {"min_score": 0.5, "rows_per_cell": 3, "max_candidates": 2}}, "max_candidates 2 is less than"),
        ({"accept": RULE.model_dump(), "samples_per_cell": 2}, "samples_per_cell: 2 has no meaning beside accept"),
        ({"accept": RULE.model_dump(), "judges": []}, "accept: no independent judge of this job knows E, J"),
        ({"accept": RULE.model_dump(), "judges": [{"kind": "log-ratio"}]}, "accept: no independent judge"),
        ({"accept": RULE.model_dump(), "decoder": {"name": "reference"}}, "accept: decoder 'reference'"),
        ({"accept": RULE.model_dump() | {"by": ["clasifier"]}}, "accept.by[0]: 'clasifier' is no kind of this job's"),
        ({"accept": RULE.model_dump() | {"by": []}}, "accept.by: [] is empty; give at least one"),
        (
            {"accept": RULE.model_dump() | {"by": ["log-ratio"]}, "judges": [{"kind": "classifier"}, _LOG_RATIO]},
            "accept.by[0]: 'log-ratio' does not count",
        ),
        (
            {"accept": RULE.model_dump() | {"by": ["classifier"]}, "judges": [{"kind": "classifier"}, _LOG_RATIO]},
            "accept.by: ['classifier'] leaves no judge that counts to say what they chose; add one to judges",
        ),
        (
            {
                "accept": RULE.model_dump(),
                "attributes": [{"name": "E", "adapter": "E"}, {"name": "captain", "adapter": "J"}],
                "judges": [{"kind": "classifier"}, {"kind": "log-ratio"}],
            },
            "accept: no independent judge of this job knows captain of persona 'captain1.00'; add one",
        ),
    ],
)
def test_each_mistake_has_its_line(
    job_file: Path, changes: dict[str, object], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(write_job(job_file.parent, **changes))]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and words in lines[0]


def unscored(row_ids: list[str], how: str, judge: str = "openai@m+1") -> pa.Table:
    base = {field.name: None for field in JUDGMENTS}
    found = [base | {"row_id": i, "attribute": a, "judge": judge, "status": how} for i in row_ids for a in "EJ"]
    return pa.Table.from_pylist(found, schema=JUDGMENTS)


@pytest.mark.parametrize(
    ("how", "waits"), [("failed", True), ("throttled", True), ("refused", False), ("parse_error", False)]
)
def test_a_candidate_that_could_not_be_judged_waits_and_one_without_a_score_has_had_its_answer(
    how: str, waits: bool
) -> None:
    draws = Draws(RULE, GRID)
    cells = planned(draws)
    found = waiting(cells, unscored(["both0", "both1"], how), {"E", "J"}, {"openai@m+1"}, {c.row_id for c in cells})
    assert found == ({"both0", "both1"} if waits else set())
    assert waiting(cells, JUDGMENTS.empty_table(), {"E", "J"}, {"openai@m+1"}, {"both1"}) == {"both1"}  # not asked yet
    assert not waiting(cells, JUDGMENTS.empty_table(), {"E", "J"}, {"openai@m+1"}, {"both1"}, wordless={"both1"})
    n_waiting = {("p", "both"): len(found)}
    assert draws.draw_more({("p", "reference"): cells[:2]}, {}, n_waiting) == (not waits)  # none in their place


def test_a_dead_judge_costs_one_round(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once it lives, the same command draws what it would have drawn."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    rule = {"min_score": 0.1, "rows_per_cell": 1, "max_candidates": 4}
    with serving(JudgeServer(lambda text, n: status(401))) as url:
        judge = {"kind": "openai", "model": "m", "base_url": url}
        assert main(["run", str(write_job(job_file.parent, judges=[judge], accept=rule))]) not in (0, 2)
        said = capsys.readouterr().err
        assert "scripted 401" in said.splitlines()[-1]
        assert len(rows(job_file.parent / "out" / ".work", "generations")) == 12  # no more were drawn
    server = JudgeServer()
    with serving(server) as url:
        judge = judge | {"base_url": url}
        assert main(["run", str(write_job(job_file.parent, judges=[judge], accept=rule))]) == 0
    drawn = len(rows(job_file.parent / "out" / ".work", "generations"))
    assert drawn > 12 and json.loads((job_file.parent / "out" / "run.json").read_text())["accept"]["waiting"] == 0
