"""MORLHF, linear scalarisation: weights in, one model out, by reinforcement learning on the weighted sum of rewards.

The baseline that MOD (Shi et al. 2024), rewarded soups (Rame et al. 2023) and MODPO hold themselves against; a
weighted sum of rewards is also what fine-grained RLHF (Wu et al. 2023) trains on. It maximises

``E[sum_i w_i R_i(x, y)] - beta KL(pi || pi_0)``, ``y ~ pi(.|x)``.

There is no reward model here but the attributes' own preference models. One trained by DPO with ``beta_i`` is the
optimum of ``R_i = beta_i (log pi_i(y|x) - log pi_0(y|x))``, up to a term of the prompt alone (Rafailov et al. 2023,
equation 5), which leave-one-out takes away: answers are held against answers to the same prompt. With the factor
the rewards keep the proportions that the attributes were trained in, and ``beta`` is in their unit. So

- the optimum is known: ``pi*(y|x) ~ pi_0(y|x) prod_i (pi_i / pi_0)^(w_i beta_i / beta)``, over whole texts what MOD and
  ``product`` are token by token, at strength 1 where ``beta`` is the adapters' own, at strength 2 where it is half;
- an answer that is cut off has a reward: the sum is over its tokens (Rafailov et al. 2024, "From r to Q*").

An adapter that was refined after DPO (:mod:`mpg.train.refine`) is taken as it is: decoders compose the same ratios.

The trainer is TRL's RLOO (Ahmadian et al. 2024), which has the KL in the reward of a whole text: the gradient of the
very objective above. GRPO divides advantages by the spread of each group and takes the KL by token: another objective.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpg.models.bank import ModelBank
from mpg.models.chat import encode_chat
from mpg.models.errors import BankError
from mpg.models.hub import Place
from mpg.models.template import PLAIN
from mpg.request import WEIGHT_TOLERANCE, stranger_in
from mpg.score.texts import component_log_probs
from mpg.train.begin import CHECKPOINTS, TrainError, go_on, layers_of, load_base, load_tokenizer, new_lora, start_of
from mpg.train.pairs import digest, with_pad_token
from mpg.train.recipe import MorlhfRecipe
from mpg.train.save import put_in_place, save_with_card

logger = logging.getLogger(__name__)

Chat = Sequence[Mapping[str, str]]
# Texts in a forward and backward pass, where the step's divide by it: what memory holds at once.
_AT_ONCE = 8
# Points of a training's curve in its card.
_POINTS = 20


@dataclass(frozen=True)
class Reward:
    """An attribute's part of the sum.

    Attributes:
        adapter: the preference model ``pi_i``.
        weight: ``w_i``.
        beta: that ``pi_i`` was trained with.
    """

    adapter: Place | str
    weight: float
    beta: float


def implicit_rewards(
    bank: ModelBank, texts: Sequence[tuple[Sequence[int], Sequence[int]]], betas: Mapping[str, float]
) -> Tensor:
    """``beta_i (log pi_i(y|x) - log pi_0(y|x))``, float64 ``[texts, attributes]``, in the bank's order.

    Args:
        texts: (prompt tokens, tokens of the answer), neither empty; at temperature 1.
        betas: of every attribute of the bank, by name.

    Raises:
        ValueError: as :func:`mpg.score.texts.component_log_probs`. KeyError: an attribute without beta.
    """
    ratios = [bank.layout.log_ratios(log_probs.sum(0)) for _, log_probs in component_log_probs(bank, texts)]
    return torch.stack(ratios) * torch.tensor([betas[name] for name in bank.attributes], dtype=torch.float64)


def reward_function(bank: ModelBank, rewards: Mapping[str, Reward]) -> Callable[..., list[float]]:
    """The weighted sum as TRL asks for it, of prompts and answers in tokens; each attribute's mean is logged."""
    betas = {name: each.beta for name, each in rewards.items()}
    weights = torch.tensor([rewards[name].weight for name in bank.attributes], dtype=torch.float64)

    def weighted_reward(
        prompts: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]], log_metric: Any = None, **_: Any
    ) -> list[float]:
        found = implicit_rewards(bank, list(zip(prompts, completion_ids, strict=True)), betas)
        for name, mean in zip(bank.attributes, found.mean(0).tolist(), strict=True):
            if log_metric is not None:
                log_metric(f"reward/{name}", mean)
        total: list[float] = (found @ weights).tolist()
        return total

    return weighted_reward


def train_morlhf(
    *,
    name: str,
    description: str,
    model_id: str,
    prompts: Sequence[Chat],
    rewards: Mapping[str, Reward],
    data: dict[str, Any],
    output: str | Path,
    recipe: MorlhfRecipe,
    license: str = "",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """Train one model for given weights and write it with its card; returns the card.

    Args:
        name, description: of the weights.
        model_id: embedded id, Hub id or folder: of ``pi_0``, where the training begins.
        prompts: chats to be answered.
        rewards: by attribute; weights sum to 1.
        data: provenance of the prompts, copied into the card.
        output: folder to write; replaced whole when training has ended. Killed, the same call goes on from the last
            checkpoint, which lies beside it.
        license: of the adapter, for the card.
        dtype: of the frozen base weights; the adapter itself trains in float32.

    Raises:
        TrainError: weights or betas that are none, an adapter that does not fit, a model that can't be loaded, fewer
            short prompts than a step takes, or the checkpoints beside ``output`` are another training's.
    """
    _check(name, rewards)
    tokenizer, n_embeddings = load_tokenizer(model_id)
    rows = _rows(name, tokenizer, prompts, recipe, n_embeddings)
    start = start_of(model_id, tokenizer, recipe.from_answer, PLAIN)
    layers = layers_of(model_id, recipe.layers)
    output = Path(output)
    scratch = output.parent / f".{output.name}.training"
    made = asdict(recipe) | {"objective": "morlhf", "trainer": "RLOO"}
    made |= {"weights": {each: reward.weight for each, reward in rewards.items()}}
    made |= {"betas": {each: reward.beta for each, reward in rewards.items()}, "train_prompts": len(rows)}
    checkpoint = go_on(
        scratch, {"name": name, "model": model_id, "recipe": made, "data": data, "prompts": digest(rows)}
    )
    model = load_base(model_id, dtype)
    lora = new_lora(model, recipe.rank, recipe.lora_alpha, layers, start)
    bank = _bank(name, model_id, rewards, dtype)
    trainer = _trainer(model, tokenizer, rows, recipe, scratch / "trainer", lora, bank, rewards)
    trainer.train(resume_from_checkpoint=checkpoint)
    card: dict[str, Any] = {"name": name, "description": description, "base_model": model_id}
    card |= {**({"license": license} if license else {}), "data": data, "recipe": made}
    card |= {"texts": recipe.steps * recipe.texts, "curve": curve_of(trainer.state.log_history)}
    save_with_card(trainer.model, scratch / "adapter", model_id, card)
    put_in_place(scratch, output)
    return card


def curve_of(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """What a training went through, from TRL's log: means since the point before.

    Attributes of a point: ``step``; ``reward``, the weighted sum without KL; ``kl``, nats a token to the reference;
    ``tokens`` of an answer; ``seconds`` a step, sampling and scoring included; ``processor``, the same of processors.
    """
    names = {"reward": "reward", "kl": "kl", "completions/mean_length": "tokens", "step_time": "seconds"}
    names |= {"processor_time": "processor"}
    return [
        {"step": each["step"]} | {said: round(float(each[key]), 4) for key, said in names.items() if key in each}
        for each in history
        if "reward" in each
    ]


def _check(name: str, rewards: Mapping[str, Reward]) -> None:
    for attribute, reward in rewards.items():
        for field in ("weight", "beta"):
            value = getattr(reward, field)
            if not (math.isfinite(value) and value > 0):
                raise TrainError(f"{name}: {attribute}: {field} {value!r} must be above 0")
    total = math.fsum(reward.weight for reward in rewards.values())
    if abs(total - 1) > WEIGHT_TOLERANCE:
        raise TrainError(f"{name}: weights: {', '.join(rewards) or 'none'} sum to {total:g}; they must sum to 1")


def _rows(
    name: str, tokenizer: Any, prompts: Sequence[Chat], recipe: MorlhfRecipe, n_embeddings: int
) -> list[dict[str, Any]]:
    """Prompts in tokens, each once, in the recipe's order."""
    ids = dict.fromkeys(tuple(encode_chat(tokenizer, chat)) for chat in prompts)
    rows = [{"prompt": list(each)} for each in ids if len(each) <= recipe.max_prompt_tokens]
    rows = [row for row in rows if stranger_in(row["prompt"], n_embeddings) is None]
    if len(rows) < recipe.prompts:
        raise TrainError(
            f"{name}: prompts: {len(rows)} of {len(ids)} have at most {recipe.max_prompt_tokens} tokens, all "
            f"known to the model, and a step takes {recipe.prompts}; give more, or raise max_prompt_tokens"
        )
    logger.info("%s: %d prompts of %d", name, len(rows), len(ids))
    random.Random(recipe.seed).shuffle(rows)
    return rows


def _bank(name: str, model_id: str, rewards: Mapping[str, Reward], dtype: torch.dtype) -> ModelBank:
    adapters = {attribute: reward.adapter for attribute, reward in rewards.items()}
    try:
        return ModelBank.load(model_id, adapters, dtype=dtype, device="cuda" if torch.cuda.is_available() else "cpu")
    except (BankError, OSError) as error:
        raise TrainError(f"{name}: {' '.join(str(error).split())}") from error


def _trainer(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    recipe: MorlhfRecipe,
    folder: Path,
    lora: Any,
    bank: ModelBank,
    rewards: Mapping[str, Reward],
) -> Any:
    from datasets import Dataset
    from trl import RLOOConfig, RLOOTrainer

    at_once = math.gcd(recipe.texts, _AT_ONCE)
    arguments = RLOOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=recipe.texts // at_once,  # a step's texts are sampled together
        num_generations=recipe.samples,
        max_completion_length=recipe.max_new_tokens,
        temperature=recipe.temperature,
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(5, recipe.steps // 4),
        beta=recipe.beta,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        bf16=next(model.parameters()).dtype == torch.bfloat16,
        disable_tqdm=None,
        seed=recipe.seed,
        logging_steps=max(1, recipe.steps // _POINTS),
        save_strategy="steps",
        save_steps=max(1, recipe.steps // CHECKPOINTS),
        save_total_limit=1,
        report_to=[],
    )
    model.generation_config.eos_token_id = sorted(bank.eos_ids)  # what ends a text in decoding

    class Trainer(RLOOTrainer):
        """TRL's own, on prompts that are tokens already: the very ones that decoding reads and the rewards are of."""

        _logged_at = (0, time.process_time())

        def _tokenize_prompts(self, prompts: Sequence[Sequence[int]]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [list(each) for each in prompts], None, {}

        def log(self, logs: dict[str, float], *more: Any) -> None:
            """With processors' time a step, which tells more than the clock's where other work runs."""
            now = (self._step, time.process_time())  # of backward passes
            if now[0] > self._logged_at[0]:
                n_steps = (now[0] - self._logged_at[0]) / self.args.gradient_accumulation_steps
                logs["processor_time"] = (now[1] - self._logged_at[1]) / n_steps
            self._logged_at = now
            super().log(logs, *more)

    return Trainer(
        model=model,
        reward_funcs=reward_function(bank, rewards),
        args=arguments,
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=with_pad_token(tokenizer),
        peft_config=lora,
    )
