"""MODPO's margin loss is the trainer's own under other references: held against its definition."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from datasets import Dataset

from mpg.train.modpo import with_margins
from mpg.train.recipe import own_weight

WEIGHTS = {"x": 0.3, "y": 0.2}
BETA = 0.1


def log_prob(model, prompt: list[int], answer: list[int]) -> float:
    ids = torch.tensor([prompt + answer])
    with torch.no_grad():
        log_probs = model(ids).logits[0, :-1].log_softmax(-1)
    picked = log_probs.gather(1, ids[0, 1:, None])[:, 0]
    return float(picked[len(prompt) - 1 :].sum())


def test_the_loss_is_the_margin_loss(llama: Path, adapters: dict[str, Path]) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(llama)
    pairs = [([3, 4, 5], [6, 7, 0], [8, 0]), ([9, 2], [1, 0], [5, 5, 5, 0])]
    reference = [[log_prob(base, p, side) for side in sides] for p, *sides in pairs]
    data = Dataset.from_dict(
        {
            "prompt_ids": [p for p, _, _ in pairs],
            "chosen_ids": [c for _, c, _ in pairs],
            "rejected_ids": [r for _, _, r in pairs],
            "ref_chosen_logps": [c for c, _ in reference],
            "ref_rejected_logps": [r for _, r in reference],
        }
    )
    shifted = with_margins(data, str(llama), {name: str(adapters[name]) for name in WEIGHTS}, WEIGHTS, torch.float32)
    rewards = {}  # R_i = beta log pi_i / pi_0, of both sides of every pair
    for name in WEIGHTS:
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), adapters[name]).eval()
        rewards[name] = [
            [BETA * (log_prob(model, p, s) - r) for s, r in zip(sides, refs, strict=True)]
            for (p, *sides), refs in zip(pairs, reference, strict=True)
        ]
    weight = own_weight(WEIGHTS)
    assert weight == pytest.approx(0.5)
    for i, policy in enumerate([(-3.0, -5.0), (-7.0, -2.0)]):  # any policy's log-probabilities
        margin = sum(w * (rewards[n][i][0] - rewards[n][i][1]) for n, w in WEIGHTS.items())
        ratio = (policy[0] - reference[i][0]) - (policy[1] - reference[i][1])
        defined = (BETA * ratio - margin) / weight
        moved = (policy[0] - shifted[i]["ref_chosen_logps"]) - (policy[1] - shifted[i]["ref_rejected_logps"])
        assert BETA / weight * moved == pytest.approx(defined, abs=1e-4)
        assert abs(margin) > 1e-3
