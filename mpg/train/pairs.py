"""Pairs as rows that a trainer takes."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from mpg.models.chat import control_tokens_of, without_end


def rows_of(tokenizer: Any, pairs: Sequence[Any], max_tokens: int) -> list[dict[str, Any]]:
    """Rows for TRL: the prompt through the model's own chat template, answers closed by EOS.

    Rows whose longer side exceeds ``max_tokens`` are left out, never cut; so are those whose prompt or answers hold
    control tokens (:mod:`mpg.models.chat`): the trainer would read the end of the answer in the middle of it.
    """
    rows = []
    for pair in pairs:
        if has_control_tokens(tokenizer, pair):
            continue
        row: dict[str, Any] = {
            "prompt": str(tokenizer.apply_chat_template(pair.as_chat(), tokenize=False, add_generation_prompt=True)),
            "chosen": without_end(tokenizer, pair.chosen) + tokenizer.eos_token,
            "rejected": without_end(tokenizer, pair.rejected) + tokenizer.eos_token,
        }
        longest = max(len(tokenizer(row["prompt"] + row[side]).input_ids) for side in ("chosen", "rejected"))
        if longest <= max_tokens:
            rows.append(row | {"n_tokens": longest})
    return rows


def has_control_tokens(tokenizer: Any, pair: Any) -> bool:
    """Whether a pair's prompt or answers hold any, but for the end-of-text token that closes an answer."""
    control = control_tokens_of(tokenizer)
    answers = [without_end(tokenizer, text) for text in (pair.chosen, pair.rejected)]
    texts = [*answers, *(message["content"] for message in pair.as_chat())]
    return any(control.in_text(text) for text in texts)


def digest(rows: Sequence[dict[str, Any]]) -> str:
    """Of the very pairs that are trained on, in their order."""
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def length_grouped(
    rows: Sequence[dict[str, Any]], batch_size: int, seed: int, keys: Sequence[str] = ("prompt", "chosen", "rejected")
) -> list[dict[str, Any]]:
    """Rows in the order they are trained on: batches of like ``n_tokens`` (little padding), shuffled."""
    by_length = sorted(rows, key=lambda row: row["n_tokens"])
    batches = [by_length[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    random.Random(seed).shuffle(batches)
    return [{key: row[key] for key in keys} for batch in batches for row in batch]
