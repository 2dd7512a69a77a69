"""The target's law over complete responses, by enumeration: the slow, obvious reference.

One row, one token at a time, float64, no cache, no drafts, no batching. The engine is held against it.
Only for toys: the number of responses is ``vocab ** max_new_tokens``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mpg.bank import ModelBank
from mpg.branches import FunctionBackbone
from mpg.logspace import log_policy, truncate
from mpg.settings import DecoderSettings, Request, check_request
from mpg.target import follow, log_components, log_product, mixture


def law(
    bank: ModelBank, prompt_ids: Sequence[int], weights: Mapping[str, float], settings: DecoderSettings
) -> dict[tuple[int, ...], float]:
    """Probability of every complete response under the target (``pi_0`` for ``reference``).

    A response that stopped carries its EOS as the last token, as ``Completion.token_ids`` does. For
    ``scr`` this is the law it approximates.

    Raises:
        ValueError: a bank that is not made of functions, or weights that don't fit it.
    """
    (backbone,) = bank.backbones
    if not isinstance(backbone, FunctionBackbone):
        raise ValueError("law enumerates toys: it takes a bank made by ModelBank.from_functions")
    check_request(Request(prompt_ids, weights, seed=0), bank.attributes, settings)
    strengths = [settings.strength_of(a) for a in bank.attributes]
    alphas = torch.tensor([[weights.get(a, 0.0) for a in bank.attributes]], dtype=torch.float64)
    out: dict[tuple[int, ...], float] = {}

    def extend(response: tuple[int, ...], probability: float, log_weights: Tensor) -> None:
        if len(response) == settings.max_new_tokens or (response and response[-1] in bank.eos_ids):
            out[response] = out.get(response, 0.0) + probability
            return
        prefix = torch.tensor([[*prompt_ids, *response]])
        logits = torch.stack([model.fn(prefix).double() for model in backbone.models])  # [branches, 1, vocab]
        log_policies = log_policy(logits, settings.temperature)
        log_q = None
        if settings.name == "reference":
            target = log_policies[0].exp()
        elif settings.aggregate == "product":
            target = log_product(log_policies, bank.layout, alphas, strengths).exp()
        else:
            log_q = log_components(log_policies, bank.layout, strengths)
            target = mixture(log_q, log_weights)
        if settings.truncates:
            target = truncate(target, top_k=settings.top_k, top_p=settings.top_p)
        for token, p in enumerate(target[0].tolist()):
            if p <= 0.0:
                continue
            following = log_weights
            if log_q is not None:
                position = torch.tensor([len(response)])
                following = follow(log_weights, alphas.log(), log_q[:, :, token].T, position, settings.horizon)
            extend((*response, token), probability * p, following)

    extend((), 1.0, alphas.log())
    return out
