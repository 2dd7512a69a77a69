"""The recipe of a training, without what it takes to follow it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from fractions import Fraction

# Which of a model's layers an adapter changes: all, the uppermost (a share, or so many), or from one to another.
_LAYERS = re.compile(r"all|top:(?P<top>[1-9]\d*)(?:/(?P<of>[1-9]\d*))?|(?P<first>\d+)-(?P<last>\d+)")


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained. Lengths in tokens.

    Attributes:
        rank, lora_alpha: of the LoRA adapter.
        layers: that it changes, see :func:`adapted_layers`. Branches share what lies below the lowest of them
            (:mod:`mpg.models.trunk`).
        from_answer: whether it is on from where the answer begins only (aLoRA, :mod:`mpg.models.invocation`): what
            comes before is the reference's, and a prompt runs once for all branches.
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
    layers: str = "all"
    from_answer: bool = False
    learning_rate: float = 7e-4
    beta: float = 0.05
    sft_weight: float = 0.5
    steps: int = 36
    batch_size: int = 8
    max_pairs: int = 320
    max_pair_tokens: int = 160
    seed: int = 0

    def __post_init__(self) -> None:
        adapted_layers(self.layers, None)
        for name, value in asdict(self).items():
            if name in ("layers", "from_answer"):
                continue
            least = 0 if name in ("sft_weight", "seed") else None
            if not math.isfinite(value) or value < 0 or (least is None and value == 0):
                raise ValueError(f"{name}: {value!r} must be {'0 or more' if least == 0 else 'above 0'}")


def adapted_layers(layers: str, n_layers: int | None) -> list[int] | None:
    """The layers that an adapter changes; ``None``: all.

    Args:
        layers: ``all``; ``top:1/3``, a share of them from the top (rounded, at least one); ``top:10``, so many;
            ``20-29``, from one to another, counted from 0.
        n_layers: of the model; ``None``: what can be known without it is looked at.

    Raises:
        ValueError: another form, or layers that the model does not have.
    """
    found = _LAYERS.fullmatch(layers)
    if found is None:
        raise ValueError(f"layers: {layers!r} is none of all, top:1/3 (a share), top:10 (so many), 20-29 (from 0)")
    if layers == "all":
        return None
    if found["top"] is not None:
        most = n_layers if n_layers is not None else int(found["top"])
        n = int(found["top"]) if found["of"] is None else max(1, round(Fraction(layers[4:]) * most))
        if n > most or (found["of"] is not None and int(found["top"]) > int(found["of"])):
            raise ValueError(f"layers: {layers!r} is more than all{_of(n_layers)}; give fewer, or all")
        return list(range(most - n, most))
    first, last = int(found["first"]), int(found["last"])
    if first > last or (n_layers is not None and last >= n_layers):
        raise ValueError(
            f"layers: {layers!r} names layers that are not there{_of(n_layers)}; count from 0, lowest first"
        )
    return list(range(first, last + 1))


def _of(n_layers: int | None) -> str:
    return "" if n_layers is None else f" (the model has {n_layers}, 0 to {n_layers - 1})"


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
class MorlhfRecipe:
    """How one model is trained by RLOO on a weighted sum of rewards, see :mod:`mpg.train.morlhf`.

    Attributes:
        rank, lora_alpha, layers, from_answer: of the LoRA adapter, see :class:`Recipe`.
        learning_rate: peak, with warm-up and a cosine schedule.
        beta: of the KL to the reference, in the unit of the rewards.
        steps: optimizer steps, each on texts of its own.
        prompts, samples: that a step answers, and answers to each, two at least: each is held against the others.
        max_new_tokens: of an answer; longer ones are cut off and scored as they are.
        max_prompt_tokens: longer prompts are left out.
        temperature: of the sampling; of the laws in loss and KL, too. The rewards are at 1.
        seed: of the adapter's first weights, of the order of the prompts and of the answers.
    """

    rank: int = 8
    lora_alpha: int = 16
    layers: str = "all"
    from_answer: bool = False
    learning_rate: float = 5e-4
    beta: float = 0.05
    steps: int = 150
    prompts: int = 8
    samples: int = 4
    max_new_tokens: int = 72
    max_prompt_tokens: int = 96
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        adapted_layers(self.layers, None)
        for name, value in asdict(self).items():
            least = {"seed": 0, "samples": 2}.get(name)
            if name in ("layers", "from_answer"):
                continue
            if not math.isfinite(value) or value < (least or 0) or (least is None and value == 0):
                raise ValueError(f"{name}: {value!r} must be {'above 0' if least is None else f'{least} or more'}")

    @property
    def texts(self) -> int:
        """A step."""
        return self.prompts * self.samples


@dataclass(frozen=True)
class SftRecipe:
    """How an adapter is trained on given answers, see :mod:`mpg.train.sft`.

    Attributes:
        rank, lora_alpha: of the LoRA adapter, over all linear layers.
        learning_rate: peak, with warm-up and a cosine schedule.
        steps, batch_size: optimizer steps, and answers in each.
        seed: of the adapter's first weights and of the order of the answers.
    """

    rank: int = 8
    lora_alpha: int = 16
    learning_rate: float = 5e-4
    steps: int = 24
    batch_size: int = 8
    seed: int = 0


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
