"""Train a preference model: a LoRA adapter by DPO (Rafailov et al. 2023) with an SFT term.

``loss = -log sigmoid(beta * (log r(chosen) - log r(rejected))) - sft_weight * mean log pi(chosen)``

where ``log r(y) = log pi(y|x) - log pi_0(y|x)``. The second term (RPO, Pang et al. 2024) holds the
likelihood of the chosen answers up: with plain DPO it falls, and an adapter used as a density ratio
at strength 1 then pushes the text away from fluent language instead of towards the attribute.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mpg.models.adapter_files import BankError
from mpg.train.modpo import with_margins
from mpg.train.recipe import Recipe, own_weight
from mpg.train.rewards import reward_report

logger = logging.getLogger(__name__)

CARD_FILE = "card.json"
# Checkpoints in a training: what is lost when it is killed.
_CHECKPOINTS = 6


class TrainError(ValueError):
    """A training that can't begin; one line with the remedy."""


def rows_of(tokenizer: Any, pairs: Sequence[Any], max_tokens: int) -> list[dict[str, Any]]:
    """Rows for TRL: the prompt through the model's own chat template, answers closed by EOS.

    Rows whose longer side exceeds ``max_tokens`` are left out, never cut.
    """
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {
            "prompt": str(tokenizer.apply_chat_template(pair.as_chat(), tokenize=False, add_generation_prompt=True)),
            "chosen": pair.chosen + tokenizer.eos_token,
            "rejected": pair.rejected + tokenizer.eos_token,
        }
        longest = max(len(tokenizer(row["prompt"] + row[side]).input_ids) for side in ("chosen", "rejected"))
        if longest <= max_tokens:
            rows.append(row | {"n_tokens": longest})
    return rows


def _digest(rows: Sequence[dict[str, Any]]) -> str:
    """Of the very pairs that are trained on, in their order."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def _go_on(scratch: Path, plan: dict[str, Any]) -> str | None:
    """The last checkpoint of an interrupted training by the same plan, if there is one.

    Raises:
        TrainError: the folder is another plan's.
    """
    file = scratch / "plan.json"
    wanted = json.dumps(plan, indent=2, sort_keys=True)
    if file.is_file() and file.read_text(encoding="utf-8") != wanted:
        raise TrainError(f"{scratch}: an interrupted training with other pairs or another recipe; remove it")
    scratch.mkdir(parents=True, exist_ok=True)
    file.write_text(wanted, encoding="utf-8")
    # The state is a checkpoint's last file: one that was cut off has none.
    states = (scratch / "trainer").glob("checkpoint-*/trainer_state.json")
    steps = sorted((int(state.parent.name.partition("-")[2]), str(state.parent)) for state in states)
    return steps[-1][1] if steps else None


def length_grouped(
    rows: Sequence[dict[str, Any]], batch_size: int, seed: int, keys: Sequence[str] = ("prompt", "chosen", "rejected")
) -> list[dict[str, Any]]:
    """Rows in the order they are trained on: batches of like ``n_tokens`` (little padding), shuffled."""
    by_length = sorted(rows, key=lambda row: row["n_tokens"])
    batches = [by_length[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    random.Random(seed).shuffle(batches)
    return [{key: row[key] for key in keys} for batch in batches for row in batch]


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
    others: Mapping[str, tuple[str, float]] | None = None,
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

    Raises:
        TrainError: weights that leave nothing, an adapter among ``others`` that does not fit, a model that
            can't be loaded or has no chat template, no pair to train on or to hold out that is short
            enough, or the checkpoints beside ``output`` are another training's.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from mpg.models.embedded import resolve

    weights = {other: weight for other, (_, weight) in (others or {}).items()}
    try:
        weight = own_weight(weights)
    except ValueError as error:
        raise TrainError(f"{name}: {error}") from error
    try:
        path = resolve(model_id)
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise TrainError(f"model {model_id}: can't be loaded ({' '.join(str(error).split())})") from error
    if tokenizer.chat_template is None:
        raise TrainError(f"model {model_id}: its tokenizer has no chat template; use an instruction-tuned model")

    shuffled = list(train_pairs)
    random.Random(recipe.seed).shuffle(shuffled)
    rows = rows_of(tokenizer, shuffled, recipe.max_pair_tokens)[: recipe.max_pairs]
    held_out_rows = rows_of(tokenizer, held_out_pairs, 2 * recipe.max_pair_tokens)
    for kind, some, limit in (("to train on", rows, 1), ("held out", held_out_rows, 2)):
        if not some:
            raise TrainError(
                f"{name}: no pair {kind} has at most {limit * recipe.max_pair_tokens} tokens; "
                "give more prompts, or raise max_pair_tokens"
            )
    logger.info("%s: %d pairs to train on, %d held out", name, len(rows), len(held_out_rows))

    output = Path(output)
    scratch = output.parent / f".{output.name}.training"
    objective = {"objective": "modpo", "weight": weight, "others": weights} if others else {"objective": "dpo"}
    plan = {
        "name": name,
        "model": model_id,
        "recipe": asdict(recipe),
        "data": data,
        "pairs": _digest(rows),
        **objective,
    }
    checkpoint = _go_on(scratch, plan)
    used = replace(recipe, beta=recipe.beta / weight)
    trainer = _trainer(model, tokenizer, rows, used, scratch / "trainer", bf16=dtype == torch.bfloat16)
    if others:
        places = {other: place for other, (place, _) in others.items()}
        try:
            trainer.train_dataset = with_margins(trainer.train_dataset, model_id, places, weights, dtype)
        except (BankError, OSError) as error:
            raise TrainError(f"{name}: {' '.join(str(error).split())}") from error
    if checkpoint is not None:
        logger.info("%s: going on from %s", name, checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    report = reward_report(trainer.model, tokenizer, held_out_rows)
    card = {
        "name": name,
        "description": description,
        "base_model": model_id,
        "data": data,
        "recipe": asdict(recipe)
        | {"train_pairs": len(rows), "loss": "sigmoid + sft_weight * sft"}
        | objective
        | {"processes": trainer.accelerator.num_processes},
        "held_out": asdict(report),
    }
    if trainer.is_world_process_zero():
        adapter = scratch / "adapter"
        save_adapter(trainer.model, adapter, model_id)
        (adapter / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        if output.exists():
            output.rename(scratch / "replaced")
        adapter.rename(output)
        shutil.rmtree(scratch)
    trainer.accelerator.wait_for_everyone()
    return card


def _trainer(
    model: Any, tokenizer: Any, rows: list[dict[str, Any]], recipe: Recipe, folder: Path, *, bf16: bool
) -> Any:
    from accelerate import PartialState
    from datasets import Dataset, load_from_disk
    from peft import LoraConfig
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
        save_steps=max(1, recipe.steps // _CHECKPOINTS),
        save_total_limit=1,
        report_to=[],
    )
    lora = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    pairs = folder / "pairs"
    with PartialState().main_process_first():  # one copy for all: what one process adds to it, the others read
        if not (pairs / "state.json").is_file():
            Dataset.from_list(length_grouped(rows, recipe.batch_size, recipe.seed)).save_to_disk(pairs)
    return DPOTrainer(
        model=model,
        args=arguments,
        train_dataset=load_from_disk(pairs),
        processing_class=tokenizer,
        peft_config=lora,
    )


def save_adapter(policy: Any, adapter: Path, model_id: str) -> None:
    """The adapter alone, in bfloat16, as PEFT saves it; its base by id, not by a path of this machine."""
    from safetensors.torch import load_file, save_file

    policy.peft_config["default"].base_model_name_or_path = model_id
    policy.save_pretrained(adapter, save_embedding_layers=False)
    (adapter / "README.md").unlink(missing_ok=True)
    weights = {key: value.to(torch.bfloat16) for key, value in load_file(adapter / "adapter_model.safetensors").items()}
    save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
