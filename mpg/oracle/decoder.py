"""The slow, obvious decoder: one row, one token, every branch over the whole text anew.

No batch, no cache, no drafts ahead of the text. It shares the target's formulas and the verdict with the
engine and nothing else; the engine's texts equal it token for token in float32.
"""

from __future__ import annotations

import torch
from torch.nn.functional import one_hot

from mpg.decoding.rows import DRAFT, REPLACEMENT, ROUTE, TEST
from mpg.decoding.seeding import RowStream
from mpg.laws.drawing import draw, truncate
from mpg.laws.layout import parts_of_one_row
from mpg.laws.logspace import log_policy
from mpg.laws.row_settings import RowSettings
from mpg.laws.target import SUMS, TargetState, alphas_of, follow, log_q_of, mixture_law, token_law
from mpg.laws.verify import settle
from mpg.models.bank import ModelBank
from mpg.models.uncached import branch_logits
from mpg.request import Request
from mpg.settings import DecoderSettings, drafter_of


def decode_slowly(bank: ModelBank, request: Request, settings: DecoderSettings) -> tuple[int, ...]:
    """The response of an exact decoder, its EOS included; ``scr-exact`` with token verification.

    Raises:
        ValueError: an approximate decoder, block verification, or a request that can't be decoded.
    """
    if not settings.facts.exact or settings.verification != "token":
        raise ValueError(f"decoder {settings.name!r}: the slow decoder is for exact ones, settled token by token")
    bank.check(request, settings)
    bank = bank.under(settings)
    uniforms = torch.from_numpy(RowStream(request.seed).take(4 * settings.max_new_tokens).reshape(-1, 1, 4))
    strengths = [settings.strength_of(name) for name in bank.attributes]
    own = RowSettings.of([settings], bank.attributes)
    alphas = alphas_of(request.weights, bank.attributes, settings)[None]  # [1, attributes]
    mix = bank.soup_mix(request.weights, strengths) if settings.facts.soup else None
    kind, parts, log_weights = settings.target, parts_of_one_row(bank.layout), alphas.log()
    drafter = drafter_of(settings)
    response: list[int] = []
    component = torch.zeros(1, dtype=torch.long)  # drawn at every horizon and, by a drafter, after a rejection
    drawn = False
    while len(response) < settings.max_new_tokens and not (response and response[-1] in bank.eos_ids):
        u, position = uniforms[len(response)], torch.tensor([len(response)])
        if kind in SUMS and (not drawn or len(response) % (settings.horizon or settings.max_new_tokens) == 0):
            component, drawn = draw(log_weights.softmax(-1), u[:, ROUTE]), True
        if kind == "routed" and not settings.greedy:  # whose largest token is of the sum that it samples
            log_weights = one_hot(component, len(strengths)).double().log()
        state = TargetState(alphas, log_weights)
        log_policies = log_policy(
            branch_logits(bank, request, response, mix, settings.max_new_tokens), settings.law_temperature
        )
        target, log_q = token_law(kind, log_policies, parts, state, own)
        if not settings.facts.speculative:
            token = draw(target, u[:, DRAFT])
        else:
            if drafter == "mixture":
                law, draft = mixture_law(log_q, parts, log_weights), draw(log_q[int(component)].exp(), u[:, DRAFT])
            else:
                law = truncate(log_policies[:1].exp(), top_k=settings.top_k, top_p=settings.top_p)
                draft = draw(law, u[:, DRAFT])
            token, accepted = settle(target, law, draft, u[:, TEST], u[:, REPLACEMENT])
            drawn = bool(accepted)
        if kind in SUMS:
            log_q_token = log_q_of(token, log_policies, parts, strengths, log_q)
            log_weights = follow(state, log_q_token, parts, position, settings.horizon)
        response.append(int(token))
    return tuple(response)
