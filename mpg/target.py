"""The target: components, aggregates and the horizon (MPG, arXiv 2511.01891), in log space.

Notation as in the README: ``pi_0`` the reference, ``pi_i`` the preference model of attribute i,
``rho_i`` the model it was trained from (mostly ``pi_0``), ``r_i = pi_i / rho_i`` its density ratio,
``alpha_i`` its weight, ``lambda_i`` its strength.

- component ``q_i ∝ pi_0 r_i^lambda_i``, normalised over the vocabulary
- sum: ``T = sum_i w_i q_i``; ``w`` starts at ``alpha`` and follows the tokens kept
  (``w_i ∝ w_i q_i(t)``, Bayes), reset to ``alpha`` every ``horizon`` positions
- product: ``T ∝ pi_0 prod_i r_i^(alpha_i lambda_i)``
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Which branch of a bank plays which part. Branch 0 is the reference ``pi_0``.

    Attributes:
        attributes: names, in the order of the weights.
        policy: branch of each attribute's ``pi_i``.
        reference: branch of each attribute's ``rho_i`` (0: ``pi_0``).
    """

    attributes: tuple[str, ...]
    policy: tuple[int, ...]
    reference: tuple[int, ...]

    @property
    def n_branches(self) -> int:
        return 1 + max((*self.policy, *self.reference, 0))


def log_ratios(log_policies: Tensor, layout: Layout) -> Tensor:
    """``log r_i = log pi_i - log rho_i``: ``[branches, ..., vocab]`` -> ``[attributes, ..., vocab]``."""
    return log_policies[list(layout.policy)] - log_policies[list(layout.reference)]


def log_components(log_policies: Tensor, layout: Layout, strengths: Sequence[float]) -> Tensor:
    """Normalised components ``log q_i``: ``[branches, rows, vocab]`` -> ``[attributes, rows, vocab]``."""
    if all(rho == 0 for rho in layout.reference) and all(s == 1.0 for s in strengths):
        return log_policies[list(layout.policy)]  # q_i = pi_i
    exponents = torch.as_tensor(strengths, dtype=log_policies.dtype, device=log_policies.device)
    tilted = log_policies[0] + exponents.view(-1, 1, 1) * log_ratios(log_policies, layout)
    return tilted.log_softmax(-1)


def mixture(log_q: Tensor, log_weights: Tensor) -> Tensor:
    """``sum_i softmax(log_weights)_i q_i`` as probabilities, ``[rows, vocab]``.

    Args:
        log_q: ``[attributes, rows, vocab]``.
        log_weights: ``[rows, attributes]``, unnormalised; ``-inf`` for a weight of zero.
    """
    weights = log_weights.softmax(-1).T.to(log_q)  # [attributes, rows]
    total = torch.zeros_like(log_q[0])
    for weight, component in zip(weights, log_q, strict=True):  # one vocabulary at a time: it stays in cache
        total.addcmul_(weight[:, None], component.exp())
    return total


def log_product(log_policies: Tensor, layout: Layout, alphas: Tensor, strengths: Sequence[float]) -> Tensor:
    """``log_softmax(log pi_0 + sum_i alpha_i lambda_i log r_i)``.

    Args:
        log_policies: ``[branches, rows, vocab]``.
        alphas: ``[rows, attributes]``.
    """
    exponents = alphas.to(log_policies) * torch.as_tensor(strengths).to(log_policies)  # [rows, attributes]
    tilt = torch.einsum("na,anv->nv", exponents, log_ratios(log_policies, layout))
    return (log_policies[0] + tilt).log_softmax(-1)


def follow(
    log_weights: Tensor, log_alphas: Tensor, log_q_token: Tensor, position: Tensor, horizon: int | None
) -> Tensor:
    """The mixture's log-weights after one kept token.

    Args:
        log_weights, log_alphas: ``[rows, attributes]``.
        log_q_token: ``log q_i`` of the token kept, ``[rows, attributes]``.
        position: index of that token within the response, ``[rows]``.
        horizon: the weights are ``alpha`` again at every position that is a multiple of it, wherever
            the rounds of drafting happen to end.
    """
    updated = (log_weights + log_q_token.to(log_weights)).log_softmax(-1)
    if horizon is None:
        return updated
    boundary = ((position + 1) % horizon == 0)[:, None]
    return torch.where(boundary, log_alphas, updated)
