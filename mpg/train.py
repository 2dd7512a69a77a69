"""Train a preference model: a LoRA adapter by DPO (Rafailov et al. 2023) with an SFT term.

``loss = -log sigmoid(beta * (log r(chosen) - log r(rejected))) - sft_weight * mean log pi(chosen)``

where ``log r(y) = log pi(y|x) - log pi_0(y|x)``. The second term (RPO, Pang et al. 2024) holds the
likelihood of the chosen answers up: with plain DPO it falls, and an adapter used as a density ratio
at strength 1 then pushes the text away from fluent language instead of towards the attribute.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

CARD_FILE = "card.json"


@dataclass(frozen=True)
class Recipe:
    """How an adapter is trained. Lengths in tokens."""

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


@dataclass(frozen=True)
class RewardReport:
    """Implicit rewards ``log r(y)`` over held-out pairs, in nats.

    ``accuracy`` is the share of pairs with ``log r(chosen) > log r(rejected)``.
    """

    n_pairs: int
    accuracy: float
    mean_margin: float
    chosen_log_likelihood_reference: float
    chosen_log_likelihood: float


def _prompt_text(tokenizer: Any, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _rows(tokenizer: Any, pairs: Sequence[Any], max_tokens: int) -> list[dict[str, Any]]:
    """Rows for TRL: the prompt through the model's own chat template, answers closed by EOS.

    Rows whose longer side exceeds ``max_tokens`` are left out, never cut.
    """
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {
            "prompt": _prompt_text(tokenizer, pair.question),
            "chosen": pair.chosen + tokenizer.eos_token,
            "rejected": pair.rejected + tokenizer.eos_token,
        }
        longest = max(len(tokenizer(row["prompt"] + row[side]).input_ids) for side in ("chosen", "rejected"))
        if longest <= max_tokens:
            rows.append(row | {"n_tokens": longest})
    return rows


def _length_grouped(rows: list[dict[str, Any]], batch_size: int, seed: int) -> list[dict[str, Any]]:
    """Rows in the order they are trained on: batches of like length (little padding), shuffled."""
    by_length = sorted(rows, key=lambda row: row["n_tokens"])
    batches = [by_length[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    random.Random(seed).shuffle(batches)
    keys = ("prompt", "chosen", "rejected")
    return [{key: row[key] for key in keys} for batch in batches for row in batch]


@torch.no_grad()
def _answer_log_probs(
    model: Any, tokenizer: Any, rows: list[dict[str, Any]], side: str, batch_size: int = 8
) -> torch.Tensor:
    """Summed log-probability of each row's answer, float32 ``[rows]``."""
    totals = torch.empty(len(rows))
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i][side]) + len(rows[i]["prompt"]))
    for start in range(0, len(rows), batch_size):
        batch = by_length[start : start + batch_size]
        prompts = [tokenizer(rows[i]["prompt"]).input_ids for i in batch]
        answers = [tokenizer(rows[i][side], add_special_tokens=False).input_ids for i in batch]
        width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        ids = torch.full((len(batch), width), tokenizer.pad_token_id)  # [batch, width], padded on the right
        scored = torch.zeros(len(batch), width, dtype=torch.bool)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            scored[row, len(prompt) : len(prompt) + len(answer)] = True
        ids, scored = ids.to(model.device), scored.to(model.device)
        logits = model(ids).logits[:, :-1].float()  # [batch, width - 1, vocab]
        log_probs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]  # [batch, width - 1]
        totals[torch.tensor(batch)] = (log_probs * scored[:, 1:]).sum(-1).cpu()
    return totals


def reward_report(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> RewardReport:
    """Measure a PEFT model's implicit reward on rows it was not trained on."""
    model.eval()
    policy = {side: _answer_log_probs(model, tokenizer, rows, side) for side in ("chosen", "rejected")}
    with model.disable_adapter():
        reference = {side: _answer_log_probs(model, tokenizer, rows, side) for side in ("chosen", "rejected")}
    margin = (policy["chosen"] - reference["chosen"]) - (policy["rejected"] - reference["rejected"])  # [rows]
    return RewardReport(
        n_pairs=len(rows),
        accuracy=float((margin > 0).float().mean()),
        mean_margin=float(margin.mean()),
        chosen_log_likelihood_reference=float(reference["chosen"].mean()),
        chosen_log_likelihood=float(policy["chosen"].mean()),
    )


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
) -> dict[str, Any]:
    """Train one adapter and write it with its card; returns the card.

    Args:
        name: attribute the adapter speaks for.
        description: one line for people.
        model_id: embedded id, Hub id or folder.
        train_pairs, held_out_pairs: objects with ``question``, ``chosen``, ``rejected``.
        data: provenance of the pairs, copied into the card.
        output: folder to write; replaced whole when training has ended.
        recipe: see :class:`Recipe`.
        dtype: of the frozen base weights; the adapter itself trains in float32.
    """
    from datasets import Dataset
    from peft import LoraConfig
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from mpg.embedded import resolve

    path = resolve(model_id)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True)

    shuffled = list(train_pairs)
    random.Random(recipe.seed).shuffle(shuffled)
    rows = _rows(tokenizer, shuffled, recipe.max_pair_tokens)[: recipe.max_pairs]
    held_out_rows = _rows(tokenizer, held_out_pairs, 2 * recipe.max_pair_tokens)
    logger.info("%s: %d pairs to train on, %d held out", name, len(rows), len(held_out_rows))

    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=output.parent))
    try:
        arguments = DPOConfig(
            output_dir=str(scratch / "trainer"),
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
            disable_tqdm=None,
            bf16=dtype == torch.bfloat16,
            seed=recipe.seed,
            train_sampling_strategy="sequential",  # _length_grouped has shuffled
            logging_steps=5,
            save_strategy="no",
            report_to=[],
        )
        lora = LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.lora_alpha,
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        trainer = DPOTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(_length_grouped(rows, recipe.batch_size, recipe.seed)),
            processing_class=tokenizer,
            peft_config=lora,
        )
        trainer.train()
        policy = trainer.model
        report = reward_report(policy, tokenizer, held_out_rows)

        adapter = scratch / "adapter"
        policy.peft_config["default"].base_model_name_or_path = model_id
        policy.save_pretrained(adapter, save_embedding_layers=False)
        (adapter / "README.md").unlink(missing_ok=True)
        weights = {
            key: value.to(torch.bfloat16) for key, value in load_file(adapter / "adapter_model.safetensors").items()
        }
        save_file(weights, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
        card = {
            "name": name,
            "description": description,
            "base_model": model_id,
            "data": data,
            "recipe": asdict(recipe) | {"train_pairs": len(rows), "loss": "sigmoid + sft_weight * sft"},
            "held_out": asdict(report),
        }
        (adapter / CARD_FILE).write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
        if output.exists():
            shutil.rmtree(output)
        adapter.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return card
