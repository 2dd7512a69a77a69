"""The target's law over complete responses, by enumeration: the slow, obvious reference.

One row, one token at a time, float64, no cache, no drafts, no batching. The engine is held against it.
Only for toys: the number of responses is ``vocab ** max_new_tokens``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mpg.laws.layout import parts_of_one_row
from mpg.laws.logspace import log_policy
from mpg.laws.row_settings import RowSettings
from mpg.laws.target import SUMS, TargetState, alphas_of, follow, log_q_of, token_law
from mpg.models.bank import ModelBank
from mpg.models.errors import BankError
from mpg.models.functions import FunctionBackbone
from mpg.request import Request, check_request
from mpg.settings import DecoderSettings


def law(
    bank: ModelBank,
    prompt_ids: Sequence[int],
    weights: Mapping[str, float],
    settings: DecoderSettings,
    prompts: Mapping[str, Sequence[int]] | None = None,
) -> dict[tuple[int, ...], float]:
    """Probability of every complete response under the decoder's target.

    A response that stopped carries its EOS as the last token, as ``Completion.token_ids`` does. For the
    approximate decoders this is the law that they approximate.

    Args:
        prompts: what an attribute's own models read instead, and the reference told nothing, see
            :class:`mpg.request.Request`.

    Raises:
        ValueError: a bank that is not made of functions, or weights that don't fit it.
    """
    (backbone,) = bank.backbones
    if not isinstance(backbone, FunctionBackbone):
        raise ValueError("law enumerates toys: it takes a bank made by ModelBank.from_functions")
    request = Request(prompt_ids, weights, seed=0, prompts=prompts or {})
    check_request(request, bank.attributes, settings, bank.n_embeddings)
    bank = bank.under(settings)
    strengths = [settings.strength_of(name) for name in bank.attributes]
    own = RowSettings.of([settings], bank.attributes)
    alphas = alphas_of(weights, bank.attributes, settings)[None]  # [1, attributes]
    models = [*backbone.models, *backbone.models[: bank.layout.untold is not None]]  # the last: the reference, untold
    if settings.facts.soup:
        if not bank.can_mix:
            raise BankError("soup: these function models have no deltas to add up; give from_functions a soup")
        models = [backbone.model(bank.soup_mix(weights, strengths).tolist())]
    kind, parts = settings.target, parts_of_one_row(bank.layout)
    out: dict[tuple[int, ...], float] = {}

    def extend(response: tuple[int, ...], probability: float, log_weights: Tensor) -> None:
        if len(response) == settings.max_new_tokens or (response and response[-1] in bank.eos_ids):
            out[response] = out.get(response, 0.0) + probability
            return
        prefixes = [[*request.prompt_of(bank.layout.owner(b)), *response] for b in range(len(models))]
        scored = zip(models, prefixes, strict=True)
        logits = torch.cat([model.fn(torch.tensor([ids])).double() for model, ids in scored])  # [branches, vocab]
        state = TargetState(alphas, log_weights)
        log_policies = log_policy(logits, settings.law_temperature)
        target, log_q = token_law(kind, log_policies, parts, state, own)
        position = torch.tensor([len(response)])
        for token, p in enumerate(target[0].tolist()):
            if p <= 0.0:
                continue
            following = log_weights
            if kind in SUMS:
                log_q_token = log_q_of(torch.tensor([token]), log_policies, parts, strengths, log_q)
                following = follow(state, log_q_token, parts, position, settings.horizon)
            extend((*response, token), probability * p, following)

    extend((), 1.0, alphas.log())
    return out
