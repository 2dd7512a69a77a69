"""How likely a decoder is to begin with each of a few given answers: choice items are scored so, without sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mpg.laws.layout import parts_of_one_row
from mpg.laws.logspace import log_policy
from mpg.laws.row_settings import RowSettings
from mpg.laws.target import SUMS, TargetState, alphas_of, follow, log_q_of, log_token_law
from mpg.models.bank import ModelBank
from mpg.models.uncached import branch_logits
from mpg.request import Request
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

    The target is taken without top-k and top-p, and at temperature 1 where the decoder is greedy: a choice that these
    cut off is unlikely, not impossible. For the approximate decoders it is the law that they approximate. Each is
    finite wherever the models' logits are, at any temperature and strength: in log space, float64 from the logits on.

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
            bank.check(request, settings)
        except ValueError as error:
            raise ValueError(f"request {index}: {error}") from None
    bank = bank.under(settings)
    settings = replace(settings, top_k=0, top_p=1.0, temperature=settings.law_temperature)
    strengths = [settings.strength_of(name) for name in bank.attributes]
    own = RowSettings.of([settings], bank.attributes)
    kind = settings.target
    needs = [bank.layout.branches_of(request.weights if settings.facts.weighted else ()) for request, _ in asked]
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
            texts = [(asked[i][0], needs[i], before) for i, before in some]
            for (index, before), logits in zip(some, _logits(bank, texts, settings, strengths), strict=True):
                total, state = known[index, before]
                parts = parts_of_one_row(bank.layout, needs[index])
                log_policies = log_policy(logits.double(), settings.temperature)
                log_law = log_token_law(kind, log_policies, parts, state, own)
                choices = asked[index][1]
                for token in {o[depth] for o in choices if len(o) > depth and tuple(o[:depth]) == before}:
                    after = state
                    if kind in SUMS:
                        of_token = log_q_of(torch.tensor([token]), log_policies, parts, strengths)
                        moved = follow(state, of_token, parts, torch.tensor([depth]), settings.horizon)
                        after = TargetState(state.alphas, moved)
                    known[index, (*before, token)] = total + float(log_law[0, token]), after
    return [[known[index, tuple(choice)][0] for choice in choices] for index, (_, choices) in enumerate(asked)]


def _split(items: list[tuple[int, Tokens]], size: int) -> list[list[tuple[int, Tokens]]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _logits(
    bank: ModelBank,
    texts: Sequence[tuple[Request, Sequence[int], Tokens]],
    settings: DecoderSettings,
    strengths: Sequence[float],
) -> list[Tensor]:
    """Next-token logits of each text under its branches, ``[branches, vocab]``; of the soup alone where it decodes."""
    if settings.facts.soup:
        return [
            branch_logits(bank, request, before, bank.soup_mix(request.weights, strengths), settings.max_new_tokens)
            for request, _, before in texts
        ]
    layout = bank.layout
    fed = [{b: [*r.prompt_of(layout.owner(b)), *before] for b in needed} for r, needed, before in texts]
    width = max(len(ids) for lanes in fed for ids in lanes.values())
    session = bank.session(len(texts), width, needs=[needed for _, needed, _ in texts])
    for request, needed, _ in texts:
        session.add_row(
            needed,
            prompt_of=request.prompt_of,
            max_new_tokens=settings.max_new_tokens,
            used=request.weights,
        )
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
        mine = torch.tensor([lane_of[row, branch] for branch in lanes], device=bank.device)
        last = torch.tensor([len(tokens) - 1 for tokens in lanes.values()], device=bank.device)
        out.append(states.logits(mine, last).cpu())
    session.close()
    return out
