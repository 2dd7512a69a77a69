"""The recipe of a training, without what it takes to follow it."""

from __future__ import annotations

import math
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
