"""Train a preference model: a LoRA adapter by DPO (Rafailov et al. 2023) with an SFT term.

``loss = -log sigmoid(beta * (log r(chosen) - log r(rejected))) - sft_weight * mean log pi(chosen)``

where ``log r(y) = log pi(y|x) - log pi_0(y|x)``. The second term (RPO, Pang et al. 2024) holds the
likelihood of the chosen answers up: with plain DPO it falls, and an adapter used as a density ratio
at strength 1 then pushes the text away from fluent language instead of towards the attribute.
"""

from __future__ import annotations

import logging
import os
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mpg.models.errors import BankError
from mpg.models.hub import Place
from mpg.models.template import PLAIN, ChatStyle, reads_day
from mpg.settings import DEFAULT_DATE
from mpg.train.begin import (
    CHECKPOINTS,
    TrainError,
    go_on,
    layers_of,
    load_base,
    load_tokenizer,
    new_lora,
    start_of,
)
from mpg.train.modpo import with_margins
from mpg.train.pairs import IN_AN_ANSWER, digest, length_grouped, refused_system, rows_of, with_pad_token
from mpg.train.recipe import Recipe, own_weight
from mpg.train.rewards import reward_report
from mpg.train.save import put_in_place, save_with_card

logger = logging.getLogger(__name__)


def train_adapter(
    *,
    name: str,
    description: str,
    model_id: str,
    train_pairs: Sequence[Any],
    held_out_pairs: Sequence[Any],
    data: dict[str, Any],
    output: str | Path,
    recipe: Recipe,
    dtype: torch.dtype = torch.bfloat16,
    others: Mapping[str, tuple[Place | str, float]] | None = None,
    opposite: str = "",
    license: str = "",
    finish: Callable[[Path], None] | None = None,
    style: ChatStyle = PLAIN,
) -> dict[str, Any]:
    """Train one adapter and write it with its card; returns the card.

    Args:
        name: attribute the adapter speaks for.
        description: one line for people.
        model_id: embedded id, Hub id or folder.
        train_pairs, held_out_pairs: objects with ``as_chat()``, ``chosen``, ``rejected``.
        data: provenance of the pairs, copied into the card.
        output: folder to write; replaced whole when training has ended. Killed, the same call goes on
            from the last checkpoint, which lies beside it.
        recipe: see :class:`Recipe`.
        dtype: of the frozen base weights; the adapter itself trains in float32.
        others: other attributes -> (adapter, weight): trains by MODPO for all of them at once, the pairs' own
            attribute having the weight they leave of 1, see :mod:`mpg.train.modpo`.
        opposite: what texts at the other end are like, in one line; for the card.
        license: of the adapter, for the card: data sets that are made with it take it into account.
        finish: adds files to the finished folder, before that is put in its place; of several processes, in one.
        style: what the chat template is told beside the messages; a card says what is not as by default.

    Raises:
        TrainError: weights that leave nothing, an adapter among ``others`` that does not fit, a model that
            can't be loaded or whose chat template takes no such chats, no pair to train on or to hold out that is short
            enough, or the checkpoints beside ``output`` are another training's.
    """
    objective, beta = _objective(name, others or {}, recipe)
    tokenizer, n_embeddings = load_tokenizer(model_id, style)
    pairs = (train_pairs, held_out_pairs)
    refused = refused_system(tokenizer, [pair.as_chat() for some in pairs for pair in some], style)
    if refused is not None:
        raise TrainError(f"model {model_id}: {refused}; give --system-role fold, or pairs without system messages")
    if style.date is None and reads_day(tokenizer):
        logger.warning("the chat template asks for today's date: all texts read %s (--date)", DEFAULT_DATE)
    start = start_of(model_id, tokenizer, recipe.from_answer, style)
    rows, held_out_rows = _short_enough(name, tokenizer, *pairs, recipe, style, n_embeddings, start)
    layers = layers_of(model_id, recipe.layers)
    model = load_base(model_id, dtype)
    lora = new_lora(model, recipe.rank, recipe.lora_alpha, layers, start)
    output = Path(output)
    scratch = output.parent / f".{output.name}.training"
    plan = {"name": name, "model": model_id, "recipe": asdict(recipe), "data": data, "pairs": digest(rows)}
    checkpoint = go_on(scratch, plan | objective)
    bf16 = dtype == torch.bfloat16
    trainer = _trainer(model, tokenizer, rows, replace(recipe, beta=beta), scratch / "trainer", lora, bf16=bf16)
    if others:
        _shift_references(trainer, name, model_id, others, dtype)
    trainer.train(resume_from_checkpoint=checkpoint)
    card: dict[str, Any] = {"name": name, "description": description, **({"opposite": opposite} if opposite else {})}
    card |= {"base_model": model_id, **({"license": license} if license else {}), "data": data}
    described = style.described() | ({"date": style.date or DEFAULT_DATE} if reads_day(tokenizer) else {})
    card |= {"template": described} if described else {}
    card |= _made(trainer, recipe, len(rows), objective)
    card |= {"held_out": asdict(reward_report(trainer.model, held_out_rows))}
    if trainer.is_world_process_zero():
        save_with_card(trainer.model, scratch / "adapter", model_id, card)
        if finish is not None:
            finish(scratch / "adapter")
        put_in_place(scratch, output)
    trainer.accelerator.wait_for_everyone()
    return card


def _objective(
    name: str, others: Mapping[str, tuple[Place | str, float]], recipe: Recipe
) -> tuple[dict[str, Any], float]:
    """What a plan and a card say of the loss, and its beta: DPO's, or MODPO's ``beta / w_k``."""
    weights = {other: weight for other, (_, weight) in others.items()}
    try:
        weight = own_weight(weights)
    except ValueError as error:
        raise TrainError(f"{name}: {error}") from error
    said = {"objective": "modpo", "weight": weight, "others": weights} if others else {"objective": "dpo"}
    return said, recipe.beta / weight


def _short_enough(
    name: str,
    tokenizer: Any,
    train_pairs: Sequence[Any],
    held_out_pairs: Sequence[Any],
    recipe: Recipe,
    style: ChatStyle,
    n_embeddings: int,
    start: Sequence[int],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows to train on, in the recipe's order, and rows held out."""
    shuffled = list(train_pairs)
    random.Random(recipe.seed).shuffle(shuffled)
    left_out = Counter[str]()
    how: dict[str, Any] = {"style": style, "n_embeddings": n_embeddings, "left_out": left_out, "start": start}
    rows = rows_of(tokenizer, shuffled, recipe.max_pair_tokens, **how)[: recipe.max_pairs]
    held_out_rows = rows_of(tokenizer, held_out_pairs, 2 * recipe.max_pair_tokens, **how)
    for reason, n in left_out.most_common():
        logger.warning("%s: %d pairs %s and are left out", name, n, reason)
    for kind, some, limit in (("to train on", rows, 1), ("held out", held_out_rows, 2)):
        if not some:
            (why, n), *_ = left_out.most_common(1) or [("", 0)]
            remedy = "leave out --from-answer" if why.startswith(IN_AN_ANSWER) else "raise max_pair_tokens"
            raise TrainError(
                f"{name}: no pair {kind} has at most {limit * recipe.max_pair_tokens} tokens"
                f"{f' ({n} {why})' if n else ''}; give more prompts, or {remedy}"
            )
    logger.info("%s: %d pairs to train on, %d held out", name, len(rows), len(held_out_rows))
    return rows, held_out_rows


def _shift_references(
    trainer: Any, name: str, model_id: str, others: Mapping[str, tuple[Place | str, float]], dtype: torch.dtype
) -> None:
    """Make DPO's references MODPO's, see :mod:`mpg.train.modpo`."""
    places = {other: place for other, (place, _) in others.items()}
    weights = {other: weight for other, (_, weight) in others.items()}
    try:
        trainer.train_dataset = with_margins(trainer.train_dataset, model_id, places, weights, dtype)
    except (BankError, OSError) as error:
        raise TrainError(f"{name}: {' '.join(str(error).split())}") from error


def _made(trainer: Any, recipe: Recipe, n_pairs: int, objective: dict[str, Any]) -> dict[str, Any]:
    """What a card says of how its adapter was made."""
    made = asdict(recipe) | {"train_pairs": n_pairs, "loss": "sigmoid + sft_weight * sft"} | objective
    return {"recipe": made | {"processes": trainer.accelerator.num_processes}}


def _trainer(
    model: Any,
    tokenizer: Any,
    rows: list[dict[str, Any]],
    recipe: Recipe,
    folder: Path,
    lora: Any,
    *,
    bf16: bool,
) -> Any:
    from accelerate import PartialState
    from datasets import Dataset, load_from_disk
    from trl import DPOConfig, DPOTrainer

    several = int(os.environ.get("WORLD_SIZE", "1")) > 1  # set by whoever launched the processes
    arguments = DPOConfig(
        output_dir=str(folder),
        per_device_train_batch_size=recipe.batch_size,
        max_steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=5,
        beta=recipe.beta,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, recipe.sft_weight],
        max_length=None,
        precompute_ref_log_probs=True,
        activation_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        ddp_backend="gloo" if several and not torch.cuda.is_available() else None,
        disable_tqdm=None,
        bf16=bf16,
        seed=recipe.seed,
        train_sampling_strategy="sequential",  # length_grouped has shuffled
        logging_steps=5,
        save_strategy="steps",
        save_steps=max(1, recipe.steps // CHECKPOINTS),
        save_total_limit=1,
        report_to=[],
    )
    pairs = folder / "pairs"
    with PartialState().main_process_first():  # one copy for all: what one process adds to it, the others read
        if not (pairs / "state.json").is_file():
            Dataset.from_list(length_grouped(rows, recipe.batch_size, recipe.seed)).save_to_disk(pairs)

    class Trainer(DPOTrainer):
        """TRL's own, on rows that are tokens already: it would add the tokenizer's BOS and EOS to texts."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    return Trainer(
        model=model,
        args=arguments,
        train_dataset=load_from_disk(pairs),
        processing_class=with_pad_token(tokenizer),
        peft_config=lora,
    )
