"""How likely a decoder is to begin with each of a few given answers: choice items are scored so, without sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mpg.laws.layout import parts_of_one_row
from mpg.laws.logspace import log_policy
from mpg.laws.target import SUMS, TargetState, alphas_of, follow, log_q_of, token_law
from mpg.models.bank import ModelBank
from mpg.models.uncached import branch_logits
from mpg.request import Request, check_request
from mpg.settings import DecoderSettings

Tokens = tuple[int, ...]


@torch.inference_mode()
def choice_log_probs(
    bank: ModelBank,
    asked: Sequence[tuple[Request, Sequence[Sequence[int]]]],
    settings: DecoderSettings,
    *,
    batch_size: int = 8,
) -> list[list[float]]:
    """Log-probability that a response under the decoder's target begins with each of some token sequences, in nats.

    The target is taken without top-k and top-p: a choice that truncation cuts off is unlikely, not impossible. For
    the approximate decoders it is the law that they approximate.

    Args:
        asked: requests, each with the tokens of its choices; what two choices begin with is run once.
        batch_size: requests run together.

    Raises:
        ValueError: a choice without tokens, or a request that can't be decoded, by its index.
    """
    for index, (request, choices) in enumerate(asked):
        if not all(map(len, choices)):
            raise ValueError(f"request {index}: a choice has no tokens; give it some")
        try:
            check_request(request, bank.attributes, settings, bank.n_embeddings)
        except ValueError as error:
            raise ValueError(f"request {index}: {error}") from None
    settings = replace(settings, top_k=0, top_p=1.0)
    strengths = [settings.strength_of(name) for name in bank.attributes]
    kind, parts = settings.target, parts_of_one_row(bank.layout)
    # What is known of a beginning: its log-probability, and the target's state after it.
    known: dict[tuple[int, Tokens], tuple[float, TargetState]] = {}
    for index, (request, _) in enumerate(asked):
        alphas = alphas_of(request.weights, bank.attributes, settings)[None]  # [1, attributes]
        known[index, ()] = 0.0, TargetState(alphas, alphas.log())
    for depth in range(max((len(choice) for _, choices in asked for choice in choices), default=0)):
        longer = {
            (index, tuple(choice[:depth])): None
            for index, (_, choices) in enumerate(asked)
            for choice in choices
            if len(choice) > depth
        }
        for some in _split(list(longer), batch_size):
            lines = _logits(bank, [(asked[i][0], before) for i, before in some], settings, strengths)
            for (index, before), logits in zip(some, lines, strict=True):
                total, state = known[index, before]
                log_policies = log_policy(logits, settings.temperature)
                law, log_q = token_law(kind, log_policies, parts, state, settings, strengths)
                choices = asked[index][1]
                for token in {o[depth] for o in choices if len(o) > depth and tuple(o[:depth]) == before}:
                    likely, after = float(law[0, token]), state
                    if kind in SUMS:
                        of_token = log_q_of(torch.tensor([token]), log_policies, parts, strengths, log_q)
                        moved = follow(state, of_token, parts, torch.tensor([depth]), settings.horizon)
                        after = TargetState(state.alphas, moved)
                    known[index, (*before, token)] = total + (math.log(likely) if likely > 0 else -math.inf), after
    return [[known[index, tuple(choice)][0] for choice in choices] for index, (_, choices) in enumerate(asked)]


def _split(items: list[tuple[int, Tokens]], size: int) -> list[list[tuple[int, Tokens]]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _logits(
    bank: ModelBank, texts: Sequence[tuple[Request, Tokens]], settings: DecoderSettings, strengths: Sequence[float]
) -> list[Tensor]:
    """Next-token logits of each text under every branch, ``[branches, vocab]``; of the soup alone where it decodes."""
    if settings.facts.soup:
        return [
            branch_logits(bank, request, before, bank.soup_mix(request.weights, strengths)) for request, before in texts
        ]
    layout = bank.layout
    fed = [[[*r.prompt_of(layout.owner(b)), *before] for b in range(layout.n_branches)] for r, before in texts]
    width = max(len(ids) for lanes in fed for ids in lanes)
    session = bank.session(len(texts), width)
    for _ in texts:
        session.add_row(range(layout.n_branches))
    entries = session.every_lane()
    places = list(zip(entries.rows.tolist(), entries.branches.tolist(), strict=True))
    ids = torch.zeros(len(places), width, dtype=torch.long)  # padded on the right: never looked at
    for lane, (row, branch) in enumerate(places):
        ids[lane, : len(fed[row][branch])] = torch.tensor(fed[row][branch])
    ids = ids.to(bank.device)
    states = session.append(entries, ids, torch.zeros_like(entries.rows))
    lane_of = {place: lane for lane, place in enumerate(places)}
    out = []
    for row, lanes in enumerate(fed):
        mine = torch.tensor([lane_of[row, branch] for branch in range(layout.n_branches)], device=bank.device)
        last = torch.tensor([len(tokens) - 1 for tokens in lanes], device=bank.device)
        out.append(states.logits(mine, last).cpu())
    session.close()
    return out
