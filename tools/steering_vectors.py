"""Steering vectors: what answers of opposite poles differ by in the residual stream, and a vector as an adapter.

Contrastive activation addition (Rimsky et al., ACL 2024, arXiv 2312.06681): the mean difference of the residual stream
between answers of two poles is added to it at every position from where the answer begins. There the pairs are
multiple-choice items, read at the letter; here they are preference pairs, each answer a mean over its tokens.

A vector added after layer L is the bias of a module's output there: a LoRA adapter with A = B = 0 and ``lora_bias``.
Decoder ``soup`` adds such vectors up, each by weight times strength, which is steering by their weighted sum.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpg.models.adapter_files import adaptable
from personas.preferences import PreferencePair

# Length of a vector at strength 1 as a share of the residual stream's.
SHARE = 0.1
# Pairs read, in the order in which adapters are trained on them, none of more tokens than there.
MOST_PAIRS, MOST_TOKENS = 80, 160
_BATCH = 16


@dataclass(frozen=True)
class Differences:
    """What pairs say of every layer.

    Attributes:
        mean: of the residual stream after each layer, chosen less rejected, ``[layers, hidden]``, float32.
        lengths: of the residual stream there, the mean over answers' tokens, ``[layers]``.
        n_pairs: that were read.
    """

    mean: Tensor
    lengths: Tensor
    n_pairs: int


@torch.inference_mode()
def differences(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[PreferencePair],
    *,
    most_tokens: int = MOST_TOKENS,
    batch_size: int = _BATCH,
) -> Differences:
    """Read pairs with the bare model. Those that are too long are left out, and so are all beyond ``MOST_PAIRS``.

    Args:
        model, tokenizer: of transformers. most_tokens: of a prompt with the longer answer.

    Raises:
        ValueError: no pair is short enough.
    """
    from mpg.train.pairs import rows_of

    shuffled = list(pairs)
    random.Random(0).shuffle(shuffled)  # as mpg.train.dpo has them
    rows = rows_of(tokenizer, shuffled, most_tokens)[:MOST_PAIRS]
    if not rows:
        raise ValueError(f"pairs: none of {len(pairs)} has at most {most_tokens} tokens; give shorter ones")
    sides = [(row["prompt_ids"], row[key][:-1] or row[key], sign)  # without the token that closes the answer
             for row in rows for key, sign in (("chosen_ids", 1.0), ("rejected_ids", -1.0))]  # fmt: skip
    sides.sort(key=lambda each: len(each[0]) + len(each[1]))
    total: Any = 0.0
    lengths: Any = 0.0
    for first in range(0, len(sides), batch_size):
        batch = sides[first : first + batch_size]
        width = max(len(prompt) + len(answer) for prompt, answer, _ in batch)
        ids, mask = torch.zeros(len(batch), width, dtype=torch.long), torch.zeros(len(batch), width, dtype=torch.long)
        for i, (prompt, answer, _) in enumerate(batch):
            ids[i, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
            mask[i, : len(prompt) + len(answer)] = 1
        body = model.get_decoder()  # no head: nobody reads logits
        states = _after_layers(body, ids, mask)
        for i, (prompt, answer, sign) in enumerate(batch):
            own = torch.stack([state[i, len(prompt) : len(prompt) + len(answer)] for state in states]).float()
            total = total + sign * own.mean(1).double()
            lengths = lengths + own.norm(dim=-1).mean(1).double()
    return Differences((total / len(rows)).float(), (lengths / len(sides)).float(), len(rows))


def _after_layers(body: Any, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """The residual stream after each layer, before the last norm: ``[batch, time, hidden]`` each."""
    states: list[Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        states.append(output[0] if isinstance(output, tuple) else output)

    hooks = [layer.register_forward_hook(keep) for layer in body.layers]
    try:
        body(input_ids=ids, attention_mask=mask, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return states


def save_vector(
    vector: Tensor, layer: int, folder: Path, *, model: Any, model_id: str, start: Sequence[int] = ()
) -> None:
    """Write a vector that is added to the residual stream after a layer, as PEFT would save the adapter.

    Args:
        vector: ``[hidden]``. model: of transformers, its weights may be on ``meta``. start: tokens with which an answer
            begins: it is added from there on (aLoRA); empty: at every position.

    Raises:
        ValueError: the model's layers end in no such module.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    name = next((each for each in adaptable(model) if each.endswith(f".{layer}.mlp.down_proj")), None)
    if name is None:
        raise ValueError(f"layer {layer}: the model has no module .{layer}.mlp.down_proj, whose output it could be")
    wide = model.get_submodule(name).in_features
    config = LoraConfig(
        r=1, lora_alpha=1, lora_bias=True, target_modules=[name], task_type="CAUSAL_LM", inference_mode=True,
        alora_invocation_tokens=list(start) or None, base_model_name_or_path=model_id,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    key = f"base_model.model.{name}"
    weights = {
        f"{key}.lora_A.weight": torch.zeros(1, wide),
        f"{key}.lora_B.weight": torch.zeros(len(vector), 1),
        f"{key}.lora_B.bias": vector.float().contiguous(),
    }
    file = folder / "adapter_model.safetensors"
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod((folder / "adapter_config.json").stat().st_mode & 0o777)  # it writes for its owner alone


def scaled(found: Differences, layer: int) -> Tensor:
    """The vector of a layer at strength 1, ``[hidden]``."""
    vector = found.mean[layer]
    return vector / vector.norm() * SHARE * found.lengths[layer]
