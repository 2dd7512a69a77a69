"""MORLHF: its reward against the definition, and TRL's RLOO on it for a few steps on a tiny Llama."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.chat import encode_chat
from mpg.train.begin import TrainError
from mpg.train.morlhf import Reward, implicit_rewards, reward_function, train_morlhf
from mpg.train.recipe import MorlhfRecipe

BETAS = {"x": 0.1, "y": 0.05}
WEIGHTS = {"x": 0.75, "y": 0.25}
PROMPTS = [[{"role": "user", "content": text}] for text in ("what now?", "tell me.", "why?", "who?")]
RECIPE = MorlhfRecipe(
    rank=4,
    learning_rate=3e-2,
    beta=0.01,
    steps=6,
    prompts=4,
    samples=4,
    max_new_tokens=8,
    layers="top:1/2",
    from_answer=True,
)


def rewards_of(adapters: dict[str, Path]) -> dict[str, Reward]:
    return {name: Reward(str(adapters[name]), WEIGHTS[name], BETAS[name]) for name in WEIGHTS}


def train(folder: Path, base: Path, rewards: dict[str, Reward], recipe: MorlhfRecipe = RECIPE) -> dict:
    return train_morlhf(
        name="both", description="as x and y", model_id=str(base), prompts=PROMPTS, rewards=rewards,
        data={"file": "made up"}, output=folder, recipe=recipe, license="apache-2.0",
    )  # fmt: skip


def log_prob(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> float:
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    return float(log_probs.gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0].sum())


def test_the_reward_is_the_weighted_sum_of_log_ratios(llama: Path, adapters: dict[str, Path]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    texts = [([3, 4, 5], [6, 7, 0]), ([9, 2], [5]), ([9, 2], [1, 8, 8, 8, 1])]
    base = [log_prob(AutoModelForCausalLM.from_pretrained(llama), *text) for text in texts]
    wanted = torch.zeros(len(texts), 2, dtype=torch.float64)
    for column, name in enumerate(("x", "y")):
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), adapters[name]).eval()
        for row, text in enumerate(texts):
            wanted[row, column] = BETAS[name] * (log_prob(model, *text) - base[row])
    assert float(wanted.abs().min()) > 1e-4
    bank = ModelBank.load(str(llama), {name: adapters[name] for name in ("y", "x")})  # in another order
    torch.testing.assert_close(implicit_rewards(bank, texts, BETAS), wanted[:, [1, 0]], atol=1e-6, rtol=1e-4)
    logged = {}
    prompts, answers = zip(*texts, strict=True)
    found = reward_function(bank, rewards_of(adapters))(prompts, answers, log_metric=logged.__setitem__, other=None)
    assert found == pytest.approx((0.75 * wanted[:, 0] + 0.25 * wanted[:, 1]).tolist(), abs=1e-6)
    assert logged == pytest.approx(dict(zip(("reward/x", "reward/y"), wanted.mean(0).tolist(), strict=True)), abs=1e-6)


def test_training_raises_the_reward_of_what_is_written(llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    """A few steps by a high rate: its texts have more of the reward than the reference's, in this engine."""
    rewards = rewards_of(adapters)
    card = train(tmp_path / "both", llama, rewards)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both"]  # no scratch is left
    assert card == json.loads((tmp_path / "both" / "card.json").read_text())
    assert (card["texts"], card["recipe"]["train_prompts"], card["recipe"]["weights"]) == (96, 4, WEIGHTS)
    assert [point["step"] for point in card["curve"]] == [1, 2, 3, 4, 5, 6]
    assert card["curve"][0]["kl"] == 0.0 < card["curve"][-1]["kl"] and card["curve"][0]["tokens"] <= 8
    config = json.loads((tmp_path / "both" / "adapter_config.json").read_text())
    assert config["layers_to_transform"] == [1] and config["base_model_name_or_path"] == str(llama)
    assert config["alora_invocation_tokens"]  # on from the answer alone
    bank = ModelBank.load(str(llama), {"both": tmp_path / "both"} | adapters)
    settings = DecoderSettings(name="routing", horizon=None, max_new_tokens=8)
    means = []
    for weights in ({"both": 1.0}, {}):
        ids = [encode_chat(bank.tokenizer, chat) for chat in PROMPTS] * 32
        how = settings if weights else DecoderSettings(name="reference", max_new_tokens=8)
        done = decode(bank, [Request(prompt, weights, seed) for seed, prompt in enumerate(ids)], how)
        texts = [(prompt, list(each.token_ids)) for prompt, each in zip(ids, done, strict=True)]
        judges = ModelBank.load(str(llama), adapters)
        means.append(sum(reward_function(judges, rewards)(*zip(*texts, strict=True))) / len(texts))
    assert means[0] > means[1] + 0.05


def test_a_cut_off_training_goes_on_and_another_one_does_not(
    llama: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    rewards, output, scratch = rewards_of(adapters), tmp_path / "both", tmp_path / ".both.training"
    scratch.mkdir()
    (scratch / "adapter").write_text("in the way of what is saved")
    with pytest.raises(ValueError, match="should be a directory, not a file"):
        train(output, llama, rewards)
    assert not output.exists()
    with pytest.raises(TrainError, match="other pairs, prompts or recipe; remove it"):
        train(output, llama, rewards, replace(RECIPE, beta=0.02))
    (scratch / "adapter").unlink()
    card = train(output, llama, rewards)
    assert len(card["curve"]) == 6 and sorted(path.name for path in tmp_path.iterdir()) == ["both"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"weight": 0.5}, "both: weights: x, y sum to 0.75; they must sum to 1"),
        ({"weight": math.nan}, "both: x: weight nan must be above 0"),
        ({"beta": 0.0}, "both: x: beta 0.0 must be above 0"),
        (
            {"recipe": {"prompts": 5}},
            "both: prompts: 4 of 4 have at most 96 tokens, all known to the model, and a step",
        ),
        ({"recipe": {"max_prompt_tokens": 3}}, "give more, or raise max_prompt_tokens"),
        ({"recipe": {"layers": "top:9"}}, "--layers: 'top:9' is more than all"),
    ],
)
def test_what_can_not_be_trained_is_said_before(
    changes: dict, says: str, llama: Path, adapters: dict[str, Path], tmp_path: Path
) -> None:
    recipe = replace(RECIPE, **changes.pop("recipe", {}))
    rewards = rewards_of(adapters)
    rewards["x"] = replace(rewards["x"], **changes)
    with pytest.raises(TrainError) as caught:
        train(tmp_path / "both", llama, rewards, recipe)
    assert says in str(caught.value) and not list(tmp_path.iterdir())
    for field, value in (("samples", 1), ("beta", 0.0), ("steps", 0), ("learning_rate", math.inf)):
        with pytest.raises(ValueError, match=f"{field}: "):
            replace(RECIPE, **{field: value})
