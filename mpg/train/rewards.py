"""What an adapter has learnt, on pairs it was not trained on: implicit rewards, and its distance from the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mpg.models.positions import each_by_its_length
from mpg.models.template import PLAIN, ChatStyle

_BATCH_SIZE = 8
# Answers over whose tokens the distance from the reference is averaged: it needs whole laws, not one number each.
_ANSWERS_FOR_DISTANCE = 24


@dataclass(frozen=True)
class RewardReport:
    """Implicit rewards ``log r(y)`` over held-out pairs, in nats, and how far the policy is from the reference.

    Attributes:
        accuracy: share of pairs with ``log r(chosen) > log r(rejected)``.
        mean_margin: mean of ``log r(chosen) - log r(rejected)``.
        chosen_log_likelihood_reference, chosen_log_likelihood: mean of the chosen answers' under
            ``pi_0`` and under the adapter.
        kl_per_token: mean of ``KL(pi(.|prefix) || pi_0(.|prefix))`` over the prefixes of chosen answers.
        acceptance_per_token: mean of ``sum_v min(pi, pi_0)`` likewise: the chance that a draft of the
            reference is accepted when the target is this adapter's component at strength 1.
    """

    n_pairs: int
    accuracy: float
    mean_margin: float
    chosen_log_likelihood_reference: float
    chosen_log_likelihood: float
    kl_per_token: float
    acceptance_per_token: float


@torch.no_grad()
def reward_report(model: Any, rows: Sequence[dict[str, Any]]) -> RewardReport:
    """Measure a PEFT model on rows with ``prompt_ids``, ``chosen_ids``, ``rejected_ids``, as it is trained on them."""
    model.eval()
    policy = {side: _answer_log_probs(model, rows, side) for side in ("chosen", "rejected")}
    with model.disable_adapter():
        reference = {side: _answer_log_probs(model, rows, side) for side in ("chosen", "rejected")}
    margin = (policy["chosen"] - reference["chosen"]) - (policy["rejected"] - reference["rejected"])  # [rows]
    kl, overlap, n_tokens = 0.0, 0.0, 0
    for _, ids, scored in _batches(rows[:_ANSWERS_FOR_DISTANCE], "chosen", 2, model.device):
        own = _log_laws(model, ids, scored)  # [tokens, vocab]
        with model.disable_adapter():
            base = _log_laws(model, ids, scored)
        kl += float((own.exp() * (own - base)).sum())
        overlap += float(torch.minimum(own, base).exp().sum())
        n_tokens += len(own)
    return RewardReport(
        n_pairs=len(rows),
        accuracy=float((margin > 0).double().mean()),
        mean_margin=float(margin.mean()),
        chosen_log_likelihood_reference=float(reference["chosen"].mean()),
        chosen_log_likelihood=float(policy["chosen"].mean()),
        kl_per_token=kl / n_tokens,
        acceptance_per_token=overlap / n_tokens,
    )


def adapter_report(
    model_id: str, adapter: str | Path, pairs: Sequence[Any], max_tokens: int, style: ChatStyle = PLAIN
) -> RewardReport:
    """Measure a saved adapter.

    Args:
        pairs: objects with ``as_chat()``, ``chosen``, ``rejected``; longer ones than ``max_tokens`` are left out.
        style: what the chat template is told beside the messages.
    """
    from peft import PeftModel

    from mpg.models.hub import Place
    from mpg.models.load import embeddings_of
    from mpg.models.pretrained import load_tokenizer, load_weights
    from mpg.train.pairs import rows_of

    place = Place(model_id)
    tokenizer, base = load_tokenizer(place), load_weights(place, torch.float32)
    rows = rows_of(tokenizer, pairs, max_tokens, style=style, n_embeddings=embeddings_of(base))
    return reward_report(PeftModel.from_pretrained(base, str(adapter)), rows)


def _answer_log_probs(model: Any, rows: Sequence[dict[str, Any]], side: str) -> Tensor:
    """Summed log-probability of each row's answer, float32 ``[rows]``."""
    totals = torch.empty(len(rows))
    for members, ids, scored in _batches(rows, side, _BATCH_SIZE, model.device):
        logits = _logits(model, ids, scored).float()  # [batch, width - 1, vocab]
        log_probs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]  # [batch, width - 1]
        totals[torch.tensor(members)] = (log_probs * scored).sum(-1).cpu()
    return totals


def _log_laws(model: Any, ids: Tensor, scored: Tensor) -> Tensor:
    """Log-laws at the scored positions, ``[tokens, vocab]``."""
    return _logits(model, ids, scored)[scored].float().log_softmax(-1)


def _logits(model: Any, ids: Tensor, scored: Tensor) -> Tensor:
    """Of all but the last tokens, ``[batch, width - 1, vocab]``; each row as if it were alone."""
    lengths = (scored * torch.arange(2, scored.shape[1] + 2, device=ids.device)).amax(1)
    with each_by_its_length(model, lengths):
        logits: Tensor = model(ids).logits[:, :-1]
    return logits


def _batches(
    rows: Sequence[dict[str, Any]], side: str, batch_size: int, device: Any
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Rows of like length together: their indices, tokens ``[batch, width]`` padded on the right, and which of the
    ``width - 1`` predictions are of the answer."""
    by_length = sorted(range(len(rows)), key=lambda i: len(rows[i][f"{side}_ids"]) + len(rows[i]["prompt_ids"]))
    for start in range(0, len(rows), batch_size):
        members = by_length[start : start + batch_size]
        prompts = [rows[i]["prompt_ids"] for i in members]
        answers = [rows[i][f"{side}_ids"] for i in members]
        width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        ids = torch.zeros(len(members), width, dtype=torch.long)  # padding is after what is scored, and never is itself
        scored = torch.zeros(len(members), width - 1, dtype=torch.bool)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            scored[row, len(prompt) - 1 : len(prompt) + len(answer) - 1] = True
        yield members, ids.to(device), scored.to(device)
