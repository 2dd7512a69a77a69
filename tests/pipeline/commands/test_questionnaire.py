"""``mpg questionnaire`` on a tiny random Llama: every persona, both ways of answering, every bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.questionnaires.answers import wanted_of
from personas import Persona
from pipeline.cli import main


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.json"
    entries = {
        "1": {"rewritten_en": "Do you dance?", "category": "E"},
        "same": {"rewritten_en": "Do you dance?", "category": "E"},
        "2": {"question": "You prefer:\\nA.Plans\\nB.Surprises", "A": "J", "B": "P"},
    }
    path.write_text(json.dumps(entries))
    return path


def test_every_persona_answers_in_words_and_by_options(
    job_file: Path,
    items: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "answers.json"
    command = ["questionnaire", str(job_file), "--items", str(items), "own", "--output", str(output)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    entries = json.loads(output.read_text())
    assert len(entries) == 2 * 4 * 2  # files, personas, methods
    assert all(e["answers"]["1"] == e["answers"]["same"] for e in entries if e["items"] == "items")
    own = [e for e in entries if e["items"] == "own" and e["by"] == "options"]
    assert {e["n"] for e in own} == {60} and {e["n_unreadable"] for e in own} == {0}
    assert all(set(e["answers"]) == {"1", "same", "2"} for e in entries if e["items"] == "items")
    control, extravert = own[0], own[1]
    assert control["accuracy"] == {} and control["type_right"] is None  # the control is to be nobody
    assert set(extravert["accuracy"]) == {"E/I"}
    assert printed.count("reference") == 4 and "unread" in printed
    assert main(command) == 0
    assert json.loads(output.read_text()) == entries  # seeds are the cells' own


def test_bad_input_is_a_line_each_before_a_model_is_loaded(
    job_file: Path,
    items: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"1": {"question": "?"}}')
    for more, words in (
        (["--items", str(tmp_path / "none.json")], "none.json: can't be read"),
        (["--items", str(bad)], "item 1: 'A' is missing"),
        (["--items", str(items), str(items)], "two files of one name"),
        (["--output", str(tmp_path / "no" / "a.json")], "its folder does not exist"),
        (["--set", "decoder.tempreature=1"], "did you mean 'temperature'?"),
    ):
        assert main(["questionnaire", str(job_file), *more]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and words in lines[0]


@pytest.mark.parametrize(
    ("weights", "wanted"),
    [
        ({"E": 0.5, "J": 0.5}, {"E": 1.0, "J": 1.0}),
        ({"E": 0.6, "I": 0.2, "J": 0.2}, {"E": 0.75, "J": 1.0}),
        ({"F": 0.5, "captain": 0.5}, {"F": 1.0}),
        ({"N": 0.75, "S": 0.25}, {"N": 0.75}),
    ],
)
def test_what_a_persona_is_to_answer(weights: dict[str, float], wanted: dict[str, float]) -> None:
    assert wanted_of(Persona("x", weights)) == pytest.approx(wanted)
