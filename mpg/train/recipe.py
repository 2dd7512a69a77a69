"""The recipe of a training, without what it takes to follow it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained. Lengths in tokens.

    Attributes:
        rank, lora_alpha: of the LoRA adapter.
        learning_rate: peak, with warm-up and a cosine schedule.
        beta: of DPO.
        sft_weight: of the chosen answers' negative log-likelihood in the loss.
        steps, batch_size: optimizer steps, and pairs in each.
        max_pairs: pairs trained on at most.
        max_pair_tokens: pairs whose longer side exceeds it are left out; held-out ones may be twice as long.
        seed: of the order of the pairs.
    """

    rank: int = 4
    lora_alpha: int = 8
    learning_rate: float = 7e-4
    beta: float = 0.05
    sft_weight: float = 0.5
    steps: int = 36
    batch_size: int = 8
    max_pairs: int = 320
    max_pair_tokens: int = 160
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 0 if name in ("sft_weight", "seed") else None
            if not math.isfinite(value) or value < 0 or (least is None and value == 0):
                raise ValueError(f"{name}: {value!r} must be {'0 or more' if least == 0 else 'above 0'}")


def own_weight(others: Mapping[str, float]) -> float:
    """``w_k`` of MODPO: what the other attributes' weights leave of 1.

    Raises:
        ValueError: a weight that is not above 0, or that they leave nothing.
    """
    for name, weight in others.items():
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"{name}: weight {weight!r} must be above 0; leave the attribute out for 0")
    left = 1.0 - math.fsum(others.values())
    if left <= 1e-9:
        raise ValueError(
            f"{', '.join(others)}: weights sum to {1 - left:g}; they must leave the pairs' own attribute some"
        )
    return left


@dataclass(frozen=True)
class RefineRecipe:
    """How an adapter is trained further on its own best answers, see :mod:`mpg.train.refine`.

    Attributes:
        prompts: how many are answered.
        samples: answers to each prompt; ``keep`` of them are trained on.
        fluency: weight of the reference's log-likelihood against the attribute's log-ratio in the choice.
        max_new_tokens, temperature, top_p: of the sampling.
        steps, batch_size, learning_rate: of the training; cosine schedule.
        scale: of the finished adapter's ``lora_alpha``: what strength 1 means afterwards.
        seed: of the samples and of their order.
    """

    prompts: int = 40
    samples: int = 6
    keep: int = 2
    fluency: float = 2.0
    max_new_tokens: int = 80
    temperature: float = 0.8
    top_p: float = 0.95
    steps: int = 10
    batch_size: int = 8
    learning_rate: float = 3e-4
    scale: float = 1.0
    seed: int = 0
