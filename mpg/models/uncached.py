"""Next-token logits of whole texts, without a session that goes on: each text is fed anew."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mpg.models.bank import ModelBank
from mpg.request import Request


@torch.inference_mode()
def branch_logits(
    bank: ModelBank, request: Request, response: Sequence[int], mix: Tensor | None, max_new_tokens: int
) -> Tensor:
    """Next-token logits under every branch, or under the soup alone, ``[branches, vocab]``.

    Args:
        mix: of the soup, see :meth:`mpg.ModelBank.soup_mix`; ``None``: every branch.
        max_new_tokens: how long the response may become, which some models' positions depend on.
    """
    lines = []
    soup = bank.layout.n_branches
    for branch in range(soup) if mix is None else [soup]:
        ids = [*request.prompt_of(None if branch == soup else bank.layout.owner(branch)), *response]
        session = bank.session(1, len(ids), needs=[[branch]])  # a branch alone: it shares no layer with others
        row = session.add_row(
            [branch], mix, prompt_of=request.prompt_of, max_new_tokens=max_new_tokens, used=request.weights
        )
        tokens = torch.tensor([ids], device=bank.device)
        states = session.append(session.pick([(row, branch)]), tokens, torch.zeros_like(tokens[:, 0]))
        lines.append(states.logits(slice(None), len(ids) - 1))
    return torch.cat(lines).cpu()
