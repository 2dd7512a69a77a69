"""One model an MBTI type: what is trained on, what is left alone, what is refused before a model is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from personas.preferences import is_held_out
from tests.own_pairs import write_own_pairs
from tools import modpo, morlhf


def test_nothing_of_the_comparison_is_trained_on(tmp_path: Path) -> None:
    write_own_pairs(tmp_path)
    questions = morlhf.questions_of("ESTP", tmp_path)
    assert len(questions) == len(set(questions)) > 1 and not any(map(is_held_out, questions))
    asked = [{"instruction": f" {questions[0].upper()}  "}, {"instruction": "Another one?"}]
    (tmp_path / "mbti_qa_ESTP.json").write_text(json.dumps(asked), "utf-8")
    assert morlhf.questions_of("ESTP", tmp_path) == questions[1:]


def test_the_recipe_is_as_wide_as_the_widest_of_the_adapters_and_takes_what_is_given() -> None:
    recipe = morlhf.recipe_for("ESTP", steps=7)
    assert (recipe.rank, recipe.lora_alpha, recipe.layers, recipe.from_answer) == (8, 16, "top:1/2", True)
    assert recipe.steps == 7 and morlhf.recipe_for("INFJ").layers == "top:1/3"


@pytest.mark.parametrize("tool", [modpo, morlhf])
def test_what_is_there_is_left_alone(tool: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_own_pairs(tmp_path)
    (tmp_path / "out" / "INFJ").mkdir(parents=True)
    (tmp_path / "out" / "INFJ" / "card.json").write_text("{}")
    main = tool.main  # type: ignore[attr-defined]
    command = ["--data", str(tmp_path), "--output", str(tmp_path / "out"), "--types", "INFJ"]
    assert main(command) == 0 and capsys.readouterr().out == ""
    for more, says in (
        (["--types", "INFJ", "ABCD"], "--types 'ABCD' is not an MBTI type; give one letter each of"),
        (["--data", str(tmp_path / "out")], "no mbti_preferences.parquet there; give the folder that holds it"),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*command, *more])
        assert says in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["INFJ"]


def test_a_recipe_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_own_pairs(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        morlhf.main(["--data", str(tmp_path), "--samples", "1"])
    assert "samples: 1 must be 2 or more" in capsys.readouterr().err
