"""Log-probabilities of given texts under every branch of a bank: no sampling, one pass a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mpg.laws.layout import Part
from mpg.laws.target import log_component
from mpg.models.bank import ModelBank
from mpg.models.invocation import check_prompts
from mpg.models.workspace import Workspace
from mpg.request import Request, stranger_in

# Lines of the vocabulary looked at together, see `mpg.decoding.rounds.base.NUMBERS_AT_ONCE`.
_POSITIONS_AT_ONCE = 8


@torch.inference_mode()
def component_log_probs(
    bank: ModelBank,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    strengths: Sequence[float] | None = None,
    temperature: float = 1.0,
    batch_size: int = 8,
) -> list[tuple[Tensor, Tensor]]:
    """Score responses token by token.

    Args:
        texts: (prompt tokens, response tokens), neither empty.
        strengths: lambda per attribute of the bank, 1 each by default.
        temperature: divides all logits.
        batch_size: texts scored together.

    Returns:
        per text ``log q_i`` of its tokens, ``[tokens, attributes]``, and their log-probabilities under
        every branch, ``[tokens, branches]``; float64, in nats.

    Raises:
        ValueError: a text without prompt or response tokens, with one that the models have no embedding for, or whose
            prompt lacks what an adapter waits for (aLoRA), by its index.
    """
    _check(
        bank, texts, lambda prompt: check_prompts(bank.invocations, bank.attributes, Request(prompt, {}, 0).prompt_of)
    )
    lambdas = [1.0] * len(bank.attributes) if strengths is None else list(strengths)
    scored: list[list[tuple[Tensor, Tensor]]] = [[] for _ in texts]
    for i, log_policies, drawn in _passes(bank, texts, range(bank.layout.n_branches), temperature, batch_size):
        scored[i].append(_of_tokens(bank, log_policies, drawn, lambdas))
    return [(torch.cat([q for q, _ in each]), torch.cat([p for _, p in each])) for each in scored]


@torch.inference_mode()
def reference_log_probs(
    bank: ModelBank,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    temperature: float = 1.0,
    batch_size: int = 8,
) -> list[Tensor]:
    """``log pi_0`` of responses' tokens, ``[tokens]`` each, float64, in nats; no other model is run.

    Args and raises: as :func:`component_log_probs`.
    """
    _check(bank, texts)
    scored: list[list[Tensor]] = [[] for _ in texts]
    for i, log_policies, drawn in _passes(bank, texts, (0,), temperature, batch_size):
        scored[i].append(log_policies.gather(1, drawn[:, None])[:, 0].double().cpu())
    return [torch.cat(each) for each in scored]


def _check(
    bank: ModelBank,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    check_prompt: Callable[[Sequence[int]], object] = len,
) -> None:
    """Raises ValueError, see :func:`component_log_probs`. Args: check_prompt: raises it for a prompt."""
    for index, (prompt, response) in enumerate(texts):
        if not len(prompt) or not len(response):
            raise ValueError(f"text {index}: {'prompt' if not len(prompt) else 'response'} has no tokens; give one")
        try:
            check_prompt(prompt)
        except ValueError as error:
            raise ValueError(f"text {index}: {error}") from None
        stranger = stranger_in([*prompt, *response], bank.n_embeddings)
        if stranger is not None:
            raise ValueError(f"text {index}: {stranger}; leave it out, or resize the model's embeddings")


def _passes(
    bank: ModelBank,
    texts: Sequence[tuple[Sequence[int], Sequence[int]]],
    branches: Sequence[int],
    temperature: float,
    batch_size: int,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Responses in pieces, each text's in their order.

    Args:
        branches: that are run, rising, the reference's 0 first.

    Yields:
        a text's index, the log-policies ``[branches * tokens, vocab]`` of a piece, branch by branch, which are
        overwritten by the next one, and its tokens ``[tokens]``.
    """
    order = sorted(range(len(texts)), key=lambda i: len(texts[i][0]) + len(texts[i][1]))
    workspace = Workspace()
    for first in range(0, len(order), batch_size):
        batch = order[first : first + batch_size]
        fed = [[*texts[i][0], *texts[i][1]][:-1] for i in batch]
        width = max(map(len, fed))
        session = bank.session(len(batch), width, needs=[branches] * len(batch), one_prompt=True)
        for i in batch:
            session.add_row(branches, prompt_of=Request(texts[i][0], {}, 0).prompt_of, max_new_tokens=len(texts[i][1]))
        entries = session.every_lane()
        ids = torch.zeros(len(batch), width, dtype=torch.long, device=bank.device)
        for row, tokens in enumerate(fed):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        states = session.append(entries, ids[entries.rows], torch.zeros_like(entries.rows))
        for row, i in enumerate(batch):
            mine = (entries.rows == row).nonzero()[:, 0]
            lanes = mine[entries.branches[mine].argsort()]  # in the order of the branches
            prompt, response = texts[i]
            positions = torch.arange(len(response), device=bank.device) + len(prompt) - 1
            for some in positions.split(_POSITIONS_AT_ONCE):
                # Lines branch by branch, the reference's first, as the target's functions want them.
                logits = states.logits(lanes.repeat_interleave(len(some)), some.repeat(len(lanes)))
                first_token = int(some[0]) - len(prompt) + 1
                drawn = torch.tensor(list(response[first_token : first_token + len(some)]), device=bank.device)
                yield i, workspace.log_policy(logits, temperature), drawn
        session.close()


def _of_tokens(
    bank: ModelBank, log_policies: Tensor, tokens: Tensor, strengths: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """``log q_i`` ``[tokens, attributes]`` and ``log pi_b`` ``[tokens, branches]``.

    Args:
        log_policies: ``[branches * tokens, vocab]``, branch by branch.
    """
    n, layout, row = len(tokens), bank.layout, torch.arange(len(tokens), device=tokens.device)
    log_q = []
    for i, (policy, rho) in enumerate(zip(layout.policy, layout.reference, strict=True)):
        part = Part(i, row, policy * n + row, rho * n + row, plain=rho == 0)
        log_q.append(log_component(log_policies, part, strengths[i])[row, tokens])
    log_probs = log_policies.gather(1, tokens.repeat(layout.n_branches)[:, None]).view(-1, n).T
    return torch.stack(log_q, dim=1).double().cpu(), log_probs.double().cpu()
