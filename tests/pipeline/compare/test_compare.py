"""``mpg compare`` on a tiny random Llama: both stages, tables, going on, and what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from evaluation.questionnaires.known_answers import QUESTIONS, is_right
from evaluation.questionnaires.questions import asked as put_in_words
from evaluation.questionnaires.questions import load_questionnaire, read
from evaluation.tables import escaped
from pipeline.cli import main
from pipeline.compare import banks
from pipeline.compare.leaks import LEAKAGE
from pipeline.compare.load import load_comparison
from pipeline.compare.measures import ARMS
from pipeline.compare.page import page
from pipeline.compare.run import Results
from pipeline.compare.tables import DIFFERENCES, Made
from pipeline.exit_status import ExitStatus
from pipeline.run.run import run_job
from tests.tiny_comparison import PROMPTS, comparison_data, make_comparison

ITEMS = {
    "1": {"rewritten_en": "Do you seek company?", "category": "E"},
    "2": {"rewritten_en": "Do you keep lists?", "category": "J"},
    "3": {"question": "At a party you\\n(A) talk\\n(B) listen", "A": "E", "B": "I"},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The comparison's folder after it has run."""
    path = make_comparison(tmp_path_factory.mktemp("comparison"))
    with pytest.MonkeyPatch.context() as patch:
        loads: list[Any] = []
        patch.setattr("mpg.ModelBank.load", _counted(loads))
        assert main(["compare", str(path)]) == 0
    assert len(loads) == 1  # for all arms
    return path.parent


def _counted(loads: list[Any]) -> Any:
    from mpg import ModelBank

    load = ModelBank.load

    def counted(*args: Any, **how: Any) -> Any:
        loads.append(args)
        return load(*args, **how)

    return counted


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return pq.read_table(folder / "out" / name).to_pylist()


def test_every_arm_is_measured(done: Path) -> None:
    found = rows(done, "arms.parquet")
    screening = [row for row in found if row["stage"] == "screening"]
    assert [(row["curve"], row["strength"]) for row in screening] == [
        ("reference", None), ("single E", 1.0), ("single J", 1.0), ("mod", 1.0), ("mod", 3.0), ("sum hnone", 2.0),
    ]  # fmt: skip
    assert all(row["n_texts"] == 4 and row["n_prompts"] == 4 and row["perplexity"] > 1 for row in screening)
    assert len({row["prompts_sha256"] for row in screening}) == 1
    by_curve = {row["curve"]: row for row in screening if row["strength"] in (None, 1.0)}
    assert by_curve["reference"]["kl_per_token"] == 0 and by_curve["mod"]["kl_per_token"] is None
    assert by_curve["single E"]["kl_per_token"] is not None
    assert {each["attribute"] for each in by_curve["reference"]["attributes"]} == {"E", "J"}  # judged as EJ
    assert {each["family"] for each in by_curve["mod"]["families"]} == {"classifier", "encoder", "log-ratio"}
    by_family = {each["family"]: each["mean"] for each in by_curve["mod"]["families"]}
    assert by_curve["mod"]["score"] == pytest.approx((by_family["classifier"] + by_family["encoder"]) / 2)  # they count
    schema = pq.read_schema(done / "out" / "arms.parquet")
    assert schema.equals(ARMS) and b"mpg compare" in schema.metadata[b"mpg.command"]
    text = (done / "out" / "arms.parquet").read_bytes()
    assert not any(prompt.encode() in text for prompt in PROMPTS)


def test_finalists_meet_baselines_on_prompts_that_the_screening_has_not_seen(done: Path) -> None:
    found, differences = rows(done, "arms.parquet"), rows(done, "differences.parquet")
    assert pq.read_schema(done / "out" / "differences.parquet").equals(DIFFERENCES)
    assert {row["baseline"] for row in differences} == {"reference", "single", "mod"} and len(differences) == 3
    assert {row["prompts_sha256"] for row in found if row["stage"] == "final"}.isdisjoint(
        {row["prompts_sha256"] for row in found if row["stage"] == "screening"}
    )
    for row in differences:
        assert row["difference"] == pytest.approx(row["finalist_score"] - row["baseline_score"])
        assert row["p_holm"] >= row["p_value"] and row["side"] in ("equal", "lower", "higher")
        if row["side"] == "equal":
            assert row["baseline_perplexity"] == pytest.approx(row["finalist_perplexity"])


def test_arms_of_the_last_stage_answer_questions(done: Path) -> None:
    found = rows(done, "arms.parquet")
    assert all((row["known"] is None) == (row["stage"] == "screening") for row in found)
    answers = pq.read_table(done / "out" / "known" / "both" / "mod-x1" / "data").to_pylist()
    asked = [row["prompt"][-1]["content"] for row in answers]
    assert sorted(asked) == sorted(question for question, _ in QUESTIONS)
    right = sum(is_right(q, row["response"]) for q, row in zip(asked, answers, strict=True))
    of_mod = next(row for row in found if row["stage"] == "final" and (row["curve"], row["strength"]) == ("mod", 1.0))
    assert of_mod["known"] == right / len(QUESTIONS)
    # Of two attributes at equal weights nothing can be told apart.
    assert not (done / "out" / "leakage.parquet").exists()


def test_a_task_of_the_final_alone_is_not_screened(tmp_path: Path) -> None:
    task = comparison_data()["tasks"][0]
    weights = [{"name": "E", "weights": {"E": 1.0}}, {"name": "J", "weights": {"J": 1.0}}]
    other = task | {"name": "other", "stage": "final", "personas": {"kind": "explicit", "weights": weights}}
    methods = [comparison_data()["methods"][0], comparison_data()["methods"][3]]
    asked = {"questionnaires": ["items.json"], "shown": 2}
    path = make_comparison(tmp_path, tasks=[task | {"stage": "screening"} | asked, other | asked], methods=methods)
    (tmp_path / "items.json").write_text(json.dumps(ITEMS))
    assert main(["compare", str(path)]) == 0
    found = rows(tmp_path, "arms.parquet")
    _check_what_was_asked(tmp_path, found)
    _check_what_is_shown(tmp_path)
    assert {(row["stage"], row["task"]) for row in found} == {("screening", "both"), ("final", "other")}
    assert {row["task"] for row in rows(tmp_path, "differences.parquet")} == {"other"}
    leaks = rows(tmp_path, "leakage.parquet")
    assert pq.read_schema(tmp_path / "out" / "leakage.parquet").equals(LEAKAGE)
    of = {(row["weight_of"], row["score_of"]): row for row in leaks}
    assert set(of) >= {("E", "E"), ("E", "J"), ("J", "E"), ("J", "J")} and leaks[0]["baseline"] == "reference"
    page = (tmp_path / "out" / "compare.md").read_text()
    assert "## Leakage: sum hnone x2, from the reference's texts" in page and "## final: both" not in page


def _check_what_was_asked(folder: Path, found: list[dict[str, Any]]) -> None:
    """By the answers that were written: of the last stage alone, for each persona what it wants."""
    for row in found:
        if row["stage"] == "screening":
            assert row["questionnaires"] == []
            continue
        point = "reference" if row["curve"] == "reference" else "sum-hnone-x2"
        answers = pq.read_table(folder / "out" / "questionnaire-items" / "other" / point / "data").to_pylist()
        assert len(answers) == len(ITEMS) * (1 if point == "reference" else 2)
        (said,) = row["questionnaires"]
        said_of_each = {
            name: [read(question, each["response"]) for question in load_questionnaire(folder / "items.json")
                   for each in answers if each["persona"] in (name, "reference")
                   and each["prompt"][-1]["content"] == put_in_words(question)]
            for name in ("E", "J")
        }  # fmt: skip
        assert said["n_items"] == 2 * len(ITEMS) == sum(map(len, said_of_each.values()))
        assert said["n_unreadable"] == sum(each.count(None) for each in said_of_each.values())


def _check_what_is_shown(folder: Path) -> None:
    """Two texts of each arm of the last stage, whole, with a score of each attribute; none of the screening's."""
    page = (folder / "out" / "compare.md").read_text()
    assert page.count("which attributes are found in each") == 1 and "questionnaire-items" not in page
    table = page.split("which attributes are found in each")[1].split("\n\n")[1].splitlines()
    lines = [line for line in table if re.match(r"\| (reference|sum hnone x2) +\|", line)]
    texts = pq.read_table(folder / "out" / "final" / "other" / "sum-hnone-x2" / "data").to_pylist()
    assert len(lines) == 4 and re.search(r"\| (yes|no) 0\.\d\d +\|", lines[0])
    assert any(escaped(" ".join(texts[0]["response"].split())) in line for line in lines)


def test_the_page_names_command_machine_and_date(done: Path) -> None:
    page = (done / "out" / "compare.md").read_text()
    assert page.startswith("# tiny\n\n`mpg compare ") and "cpu" in page.splitlines()[2]
    assert "## Finalists against baselines" in page and "## screening: both" in page
    assert not any(prompt in page for prompt in PROMPTS)
    assert (done / "out" / "pareto.png").read_bytes().startswith(b"\x89PNG")


def test_several_tasks_count_alike_on_the_page(done: Path) -> None:
    comparison = load_comparison(done / "compare.yaml")
    one = [
        row for row in rows(done, "arms.parquet") if row["stage"] == "final" and row["curve"] in ("mod", "reference")
    ]
    mine = next(row for row in one if row["curve"] == "reference")
    other = mine | {"task": "other", "score": mine["score"] - 0.2, "perplexity": mine["perplexity"] * 4, "n_texts": 1}
    made = Made("mpg compare compare.yaml", "cpu", "2026-11-28")
    text = page(comparison, Results(arms=[*one, other]), made, has_plot=False).split("## final: all tasks")[1]
    lines = [line for line in text.split("\n\n")[2].splitlines()[2:] if line]
    assert len(lines) == 1  # of points that both tasks have
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    assert cells[:3] == ["reference", f"{mine['n_texts'] + 1}", f"{mine['score'] - 0.1:.3f}"]
    assert f"{mine['perplexity'] * 2:.2f}" in cells
    assert "all tasks" not in page(comparison, Results(arms=one), made, has_plot=False)


def test_the_same_command_keeps_what_is_written(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = rows(done, "arms.parquet")

    def none_left(*args: Any, **how: Any) -> Any:
        raise AssertionError("an arm is written again")

    monkeypatch.setattr("pipeline.compare.run.run_job", none_left)
    monkeypatch.setattr("mpg.ModelBank.load", none_left)
    assert main(["compare", str(done / "compare.yaml")]) == 0
    assert rows(done, "arms.parquet") == before
    assert not banks._kept


def test_an_interrupted_comparison_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after two arms; the next command writes the others alone."""
    path = make_comparison(tmp_path, methods=comparison_data()["methods"][:2], final={"finalists": 0, "known": False})
    written = []

    def until_two(job: Any, *args: Any, **how: Any) -> Any:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(job.name)
        return run_job(job, *args, **how)

    monkeypatch.setattr("pipeline.compare.run.run_job", until_two)
    assert main(["compare", str(path)]) == 130
    first, again = list(written), list[str]()

    def the_rest(job: Any, *args: Any, **how: Any) -> Any:
        again.append(job.name)
        return run_job(job, *args, **how)

    monkeypatch.setattr(
        "pipeline.compare.run.run_job",
        lambda job, *args, **how: (again.append(job.name), run_job(job, *args, **how))[1],
    )
    assert main(["compare", str(path)]) == 0
    assert len(first) == 2 and len(again) == 1 and not set(first) & set(again)
    assert len(rows(tmp_path, "arms.parquet")) == 3 and not (tmp_path / "out" / "differences.parquet").exists()


def test_one_model_a_persona_is_judged_as_the_persona_and_who_is_not_scored_is_named(tmp_path: Path) -> None:
    methods = [
        {"name": "whole", "models": {"EJ": "E"}, "strengths": [1.0], "baseline": True},
        {"name": "absent", "not_scored": "no fair training", "baseline": True},
    ]
    path = make_comparison(tmp_path, methods=methods, final={"finalists": 0})
    assert main(["compare", str(path)]) == 0
    (row,) = rows(tmp_path, "arms.parquet")
    assert (row["curve"], row["n_texts"], row["n_unscored"]) == ("whole", 4, 0)
    assert {each["attribute"] for each in row["attributes"]} == {"E", "J"} and row["kl_per_token"] is not None
    page = (tmp_path / "out" / "compare.md").read_text()
    assert "## Named and not scored" in page and "no fair training" in page
    assert pq.read_schema(tmp_path / "out" / "arms.parquet").metadata[b"mpg.not_scored.absent"] == b"no fair training"


def test_what_can_not_be_run_is_said_before_a_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_comparison(tmp_path)
    monkeypatch.setattr("mpg.ModelBank.load", lambda *args, **how: pytest.fail("a model is loaded"))
    data = comparison_data()
    gone = data["tasks"][0] | {"prompts": {"file": "../gone.jsonl"}}
    path.write_text(yaml.safe_dump(data | {"tasks": [gone]}))
    assert main(["compare", str(path)]) == 2
    assert f"{path}: tasks[0].prompts.file: '../gone.jsonl' is not in" in capsys.readouterr().err
    assert main(["compare", str(path), "--check"]) == 0
    printed = capsys.readouterr().out
    assert "both: 6 arms of 4 methods" in printed and "missing: tasks[0].prompts.file" in printed
    shutil.copytree(tmp_path / "E", tmp_path / "odd")
    config = json.loads((tmp_path / "odd" / "adapter_config.json").read_text())
    (tmp_path / "odd" / "adapter_config.json").write_text(json.dumps(config | {"peft_type": "IA3"}))
    own = {"name": "odd", "decoder": {"name": "mod"}, "attributes": [{"name": "E", "adapter": "./odd"}]}
    path.write_text(yaml.safe_dump(data | {"methods": [*data["methods"], own]}))
    assert main(["compare", str(path)]) == 2  # not after all arms of the methods before it
    assert "method 'odd': " in (said := capsys.readouterr().err) and "IA3" in said
    few = data["tasks"][0] | {"prompts": {"file": "prompts.jsonl", "limit": 3}}
    path.write_text(yaml.safe_dump(data | {"tasks": [few]}))
    assert main(["compare", str(path)]) == 2
    assert "tasks[0].prompts: 3, of which two stages take two each" in capsys.readouterr().err
    assert main(["compare", str(path), "--set", "screening.texts=0"]) == 2
    assert "screening.texts: 0 is out of range; give a number at least 4 (from --set)" in capsys.readouterr().err


def test_the_schema_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "comparison"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Comparison"
    assert main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "Job"


def test_numbers_of_nothing_are_no_numbers() -> None:
    from pipeline.compare.measures import bare_perplexity

    assert math.isnan(bare_perplexity([]))


def test_check_says_what_the_run_would_refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Prompts too few for both stages; and how much a choice may cost."""
    path = make_comparison(tmp_path)
    assert main(["compare", str(path), "--check", "--set", "tasks[0].prompts.limit=3"]) == ExitStatus.BAD_INPUT
    assert "tasks[0].prompts: 3, of which two stages take two each; give 4 at least" in capsys.readouterr().err
    accept = "methods[2].accept={min_score: 0.5, max_candidates: 6, by: [classifier]}"
    assert main(["compare", str(path), "--check", "--set", accept]) == 0
    assert "up to 6 times as many texts are drawn" in capsys.readouterr().out
