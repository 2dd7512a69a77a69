"""How likely a decoder is to begin with each of a few given answers: choice items are scored so, without sampling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from mpg.bank import ModelBank
from mpg.logspace import log_policy
from mpg.settings import DecoderSettings, Request, check_request
from mpg.slow import branch_logits
from mpg.target import SUMS, TargetState, follow, kind_of, log_q_of, parts_of_one_row, token_law


def option_log_probs(
    bank: ModelBank, request: Request, options: Sequence[Sequence[int]], settings: DecoderSettings
) -> list[float]:
    """Log-probability that a response under the decoder's target begins with each of some token sequences, in nats.

    The target is taken without top-k and top-p: an option that truncation cuts off is unlikely, not impossible. For
    the approximate decoders it is the law that they approximate.

    Args:
        options: tokens of each; tokens that two begin with are run once.

    Raises:
        ValueError: an option without tokens, by its index, or a request that can't be decoded.
    """
    for index, option in enumerate(options):
        if not len(option):
            raise ValueError(f"option {index}: has no tokens; give one")
    check_request(request, bank.attributes, settings)
    settings = replace(settings, top_k=0, top_p=1.0)
    strengths = [settings.strength_of(name) for name in bank.attributes]
    given = torch.tensor([[request.weights.get(name, 0.0) for name in bank.attributes]], dtype=torch.float64)
    alphas = given if settings.name == "drift" or not request.weights else given / given.sum()
    mix = [float(w) * s for w, s in zip(alphas[0], strengths, strict=True)] if settings.name == "soup" else None
    kind, parts = kind_of(settings), parts_of_one_row(bank.layout)
    known: dict[tuple[int, ...], torch.Tensor] = {}
    out = []
    for option in options:
        total, state = 0.0, TargetState(alphas, alphas.log())
        for position, token in enumerate(option):
            before = tuple(option[:position])
            if before not in known:
                logits = branch_logits(bank, request, list(before), mix)
                known[before] = log_policy(logits, settings.temperature)
            law, log_q = token_law(kind, known[before], parts, state, settings, strengths)
            likely = float(law[0, token])
            total += math.log(likely) if likely > 0 else -math.inf
            if kind in SUMS:
                chosen = torch.tensor([token])
                of_token = log_q_of(chosen, known[before], parts, strengths, log_q)
                at = torch.tensor([position])
                state = TargetState(alphas, follow(state, of_token, parts, at, settings.horizon))
        out.append(total)
    return out
