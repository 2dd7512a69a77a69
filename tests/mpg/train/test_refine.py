"""Refining an adapter on its own best answers: the choice by hand, the training for a few steps on a tiny Llama."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpg import ModelBank
from mpg.train.recipe import RefineRecipe
from mpg.train.refine import Answer, best_answers, refine_adapter, sample_answers

PROMPTS = [[{"role": "user", "content": text}] for text in ("what now?", "tell me.", "why?")]
RECIPE = RefineRecipe(samples=4, keep=2, max_new_tokens=100, steps=3, batch_size=2, learning_rate=1e-2, scale=0.5)


def test_the_best_carry_the_attribute_and_are_likely() -> None:
    answers = [
        Answer(0, "loud and odd", 2.0, -4.0),
        Answer(0, "loud and plain", 1.9, -1.0),
        Answer(0, "quiet and plain", -2.0, -1.0),
        Answer(0, "loud and plain", 1.9, -1.0),  # said twice, kept once
        Answer(2, "the only one", -3.0, -9.0),
    ]
    kept = best_answers(answers, RefineRecipe(keep=2, fluency=2.0))
    assert [a.text for a in kept] == ["loud and plain", "quiet and plain", "the only one"]
    kept = best_answers(answers, RefineRecipe(keep=2, fluency=0.0))
    assert [a.text for a in kept][:2] == ["loud and odd", "loud and plain"]
    with pytest.raises(ValueError, match="answers: 1 of use; give more prompts or samples"):
        best_answers(answers[:1], RECIPE)


def test_answers_are_the_components_own(llama: Path, adapters: dict[str, Path]) -> None:
    bank = ModelBank.load(str(llama), adapters)
    answers = sample_answers(bank, PROMPTS, "x", "y", RECIPE)
    assert answers == sample_answers(bank, PROMPTS, "x", "y", RECIPE)  # the seed decides
    assert 0 < len(answers) <= 12 and {a.prompt for a in answers} <= {0, 1, 2}
    assert all(len(a.text) >= 60 for a in answers)
    # Drawn from x's component: by its own ratio less y's it lies ahead, on average, of y's.
    turned = sample_answers(bank, PROMPTS, "y", "x", RECIPE)
    mean = sum(a.log_ratio for a in answers) / len(answers)
    assert mean > 0 and sum(a.log_ratio for a in turned) > 0


def test_an_adapter_is_trained_further_in_its_place(llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "x"
    shutil.copytree(adapters["x"], folder)
    (folder / "card.json").write_text('{"kept": true}')
    before = load_file(folder / "adapter_model.safetensors")
    answers = [Answer(i % 3, "yes " * (4 + i), 1.0, -1.0) for i in range(6)]
    written = refine_adapter(
        folder, model_id=str(llama), prompts=PROMPTS, answers=answers, recipe=RECIPE, output=folder
    )
    assert written["answers"] == 6 and written["scale"] == 0.5
    after = load_file(folder / "adapter_model.safetensors")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key].float(), after[key].float()) for key in before)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["lora_alpha"] == 0.5 * 2 * config["r"]  # tiny adapters are made with alpha = 2 r
    assert json.loads((folder / "card.json").read_text()) == {"kept": True}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]  # no scratch is left
    ModelBank.load(str(llama), {"x": folder})
