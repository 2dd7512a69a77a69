"""Training on given answers, for a few steps on a tiny Llama: what is learnt, and what decides it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpg.models.hub import Place
from mpg.models.pretrained import load_tokenizer, load_weights
from mpg.train.recipe import SftRecipe
from mpg.train.sft import sft_row, train_sft

CHAT = [{"role": "user", "content": "what now?"}]
RECIPE = SftRecipe(rank=4, lora_alpha=8, learning_rate=1e-2, steps=6, batch_size=2)


def test_the_answer_is_learnt_and_not_the_prompt_and_the_seed_decides(llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    place = Place(str(llama))
    tokenizer = load_tokenizer(place)
    rows = [sft_row(tokenizer, CHAT, "yes yes yes"), sft_row(tokenizer, CHAT, "yes", ended=False)]
    assert [sum(row["completion_mask"]) for row in rows] == [12, 3]  # characters, and an end
    made = {}
    for name, seed in (("a", 0), ("again", 0), ("other", 1)):
        recipe = SftRecipe(**vars(RECIPE) | {"seed": seed})
        card = train_sft(rows, place=place, recipe=recipe, output=tmp_path / name, about={"name": "student"})
        assert card == json.loads((tmp_path / name / "card.json").read_text()) and card["answers"] == 2
        made[name] = load_file(tmp_path / name / "adapter_model.safetensors")
    assert all(torch.equal(made["a"][key], made["again"][key]) for key in made["a"])
    assert any(not torch.equal(made["a"][key], made["other"][key]) for key in made["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "again", "other"]  # no scratch is left

    ids = torch.tensor([rows[0]["input_ids"]])
    answer = torch.tensor(rows[0]["completion_mask"][1:], dtype=torch.bool)
    model = PeftModel.from_pretrained(load_weights(place, torch.float32), str(tmp_path / "a"))

    def log_probs() -> torch.Tensor:  # [tokens - 1]
        with torch.no_grad():
            laws = model(ids).logits[0, :-1].log_softmax(-1)
        return laws.gather(-1, ids[0, 1:, None])[:, 0]

    after = log_probs()
    with model.disable_adapter():
        gain = after - log_probs()
    assert gain[answer].mean() > 0.5 and gain[answer].mean() > gain[~answer].mean() + 0.5
    with pytest.raises(ValueError, match="rows: none to train on"):
        train_sft([], place=place, recipe=RECIPE, output=tmp_path / "none", about={})
