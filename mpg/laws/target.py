"""The targets: components, aggregates and the horizon (MPG, arXiv 2511.01891), in log space.

Notation as in the README: ``pi_0`` the reference, ``pi_i`` the preference model of attribute i,
``rho_i`` the model it was trained from (mostly ``pi_0``), ``r_i = pi_i / rho_i`` its density ratio,
``alpha_i`` its weight, ``lambda_i`` its strength.

- component ``q_i ∝ pi_0 r_i^lambda_i``, normalised over the vocabulary
- ``sum``: ``T = sum_i w_i q_i``; ``w`` starts at ``alpha`` and follows the tokens kept
  (``w_i ∝ w_i q_i(t)``, Bayes), reset to ``alpha`` every ``horizon`` positions
- ``product``: ``T ∝ pi_0 prod_i r_i^(alpha_i lambda_i)``, the family of MOD (Shi et al. 2024) and of
  Drift (Kim et al. 2025), whose weights may have any sign and sum
- ``pad``: the same product over the reference's truncated candidates (Chen et al. 2025)
- ``routed``: the sum of components that are truncated each, what drawing one of them samples

At temperature 0 (*greedy*) a target is the argmax of its own law at temperature 1, the lowest id of several: a law that
has all its mass there. Weights follow the tokens by the components at temperature 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mpg.laws.drawing import one_hot_of_largest, truncate, truncate_log
from mpg.laws.layout import Part
from mpg.laws.row_settings import RowSettings
from mpg.settings import DecoderSettings


@dataclass(frozen=True)
class TargetState:
    """What the target needs to know of a block's rows: ``[rows, attributes]`` each, float64.

    ``log_weights`` are the mixture's, unnormalised; ``-inf`` for a weight of zero.
    """

    alphas: Tensor
    log_weights: Tensor


SUMS = ("sum", "routed")  # targets whose weights follow the tokens


def alphas_of(weights: Mapping[str, float], attributes: Sequence[str], settings: DecoderSettings) -> Tensor:
    """A request's weights as the target takes them, float64 ``[attributes]``: 0 where none is given.

    A division of 1 is divided by its sum, which a request may miss by rounding (``WEIGHT_TOLERANCE``); signed weights
    are exponents, and stay as they are.
    """
    given = torch.tensor([float(weights.get(name, 0.0)) for name in attributes], dtype=torch.float64)
    return given if settings.facts.signed or not weights else given / given.sum()


def token_law(
    kind: str,
    log_policies: Tensor,
    parts: Sequence[Part],
    state: TargetState,
    settings: RowSettings,
    *,
    cut: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """The target's law of the next token, to draw from; where its logarithm is wanted: :func:`log_token_law`.

    Args:
        log_policies: normalised, at the rows' temperatures, ``[lines, vocab]``; the block's references come first, one
            a row.
        parts: one per attribute that any row of the block carries.
        settings: of the block's rows.
        cut: whether the whole is truncated; otherwise that is the caller's, with :func:`truncated`.

    Returns:
        probabilities ``[rows, vocab]``; for the sums, per part its log-components ``[n, vocab]``.
    """
    if kind in SUMS:
        log_q = _components(kind, log_policies, parts, settings)
        law = mixture_law(log_q, parts, state.log_weights)
        cut = cut and kind == "sum"
        return largest_or(settings.greedy, law, lambda: truncated(law, settings) if cut else law), log_q
    log_law = _log_of_one(kind, log_policies, parts, state, settings)
    cut = cut and kind != "pad"
    drawn = largest_or(settings.greedy, log_law, lambda: truncated(log_law.exp(), settings) if cut else log_law.exp())
    return drawn, []


def log_token_law(
    kind: str,
    log_policies: Tensor,
    parts: Sequence[Part],
    state: TargetState,
    settings: RowSettings,
) -> Tensor:
    """The logarithm of :func:`token_law`'s law, ``[rows, vocab]``: finite wherever a token has mass.

    It never passes through probabilities, which underflow: in float32 below ``exp(-103)``, which a low temperature or
    a high strength reaches at once. For a few tokens: the sums' costs several times what their law to draw from does.
    """
    if kind in SUMS:
        log_q = _components(kind, log_policies, parts, settings)
        log_law = log_mixture(log_q, parts, state.log_weights)
    else:
        log_law = _log_of_one(kind, log_policies, parts, state, settings)
    whole = kind in ("routed", "pad")  # whose parts are truncated
    return largest_or(
        settings.greedy, log_law, lambda: log_law if whole else _truncated_log(log_law, settings), log=True
    )


def largest_or(greedy: bool | Tensor, values: Tensor, law: Callable[[], Tensor], *, log: bool = False) -> Tensor:
    """All mass on the largest of ``values [rows, vocab]`` in greedy rows, a law in the others.

    Args:
        greedy: one for all, or ``[rows]``.
        law: asked for where a row is not greedy.
        log: whether a logarithm is wanted, as the law is one.
    """
    if greedy is False:
        return law()
    largest = one_hot_of_largest(values)
    largest = largest.log() if log else largest
    return torch.where(greedy[:, None], largest, law()) if isinstance(greedy, Tensor) else largest


def truncated(law: Tensor, settings: RowSettings) -> Tensor:
    """A law ``[rows, vocab]`` after top-k and top-p."""
    if not settings.truncates:
        return law
    return truncate(law, top_k=settings.top_k, top_p=settings.top_p, most_k=settings.most_k)


def _truncated_log(log_law: Tensor, settings: RowSettings) -> Tensor:
    if not settings.truncates:
        return log_law
    return truncate_log(log_law, top_k=settings.top_k, top_p=settings.top_p, most_k=settings.most_k)


def _components(
    kind: str,
    log_policies: Tensor,
    parts: Sequence[Part],
    settings: RowSettings,
) -> list[Tensor]:
    """The log-components of a sum, per part ``[n, vocab]``; the routed one's are truncated each."""
    log_q = [log_component(log_policies, part, settings.strengths[part.attribute]) for part in parts]
    if kind != "routed" or not settings.truncates:
        return log_q
    return [_truncated_log(q, settings.at(part.rows)) for q, part in zip(log_q, parts, strict=True)]


def _log_of_one(
    kind: str,
    log_policies: Tensor,
    parts: Sequence[Part],
    state: TargetState,
    settings: RowSettings,
) -> Tensor:
    """The log-law of a target that is no sum, before the truncation of the whole, ``[rows, vocab]``."""
    log_pi0 = log_policies[: len(state.alphas)]  # [rows, vocab]
    if kind == "reference":
        return log_pi0
    base = _truncated_log(log_pi0, settings) if kind == "pad" else log_pi0
    return log_product(base, log_policies, parts, state.alphas, settings.strengths)


def log_component(log_policies: Tensor, part: Part, strength: float | Tensor) -> Tensor:
    """Normalised component ``log q_i`` of a part's rows, ``[n, vocab]``.

    Args:
        strength: of the attribute, one for all, or ``[rows]``, of all rows of the block.
    """
    if part.plain and not isinstance(strength, Tensor) and strength == 1.0:
        return log_policies[part.policy]  # q_i = pi_i
    policy = log_policies[part.policy]
    exponent = _of_part(strength, part, policy)
    log_q = (log_policies[part.rows] + exponent * (policy - log_policies[part.rho])).log_softmax(-1)
    # Where q_i is pi_i, it is so to the last bit, whatever strength a row beside it has.
    return torch.where(exponent == 1.0, policy, log_q) if part.plain and isinstance(exponent, Tensor) else log_q


def _of_part(strength: float | Tensor, part: Part, like: Tensor) -> float | Tensor:
    """A strength as a factor of a part's lines ``[n, vocab]``."""
    return strength[part.rows, None].to(like) if isinstance(strength, Tensor) else strength


def mixture_law(log_q: Sequence[Tensor], parts: Sequence[Part], log_weights: Tensor) -> Tensor:
    """``sum_i softmax(log_weights)_i q_i`` as probabilities, ``[rows, vocab]``."""
    weights = log_weights.softmax(-1).to(log_q[0])  # [rows, attributes]
    total: Tensor | None = None
    for part, component in zip(parts, log_q, strict=True):  # a row once a part: no sum depends on an order
        weight = weights[part.rows, part.attribute, None]
        share = component.exp().mul_(weight)
        if total is None and isinstance(part.rows, slice) and part.rows == slice(0, len(log_weights)):
            total = share
            continue
        total = share.new_zeros(len(log_weights), share.shape[-1]) if total is None else total
        _add(total, part.rows, share)
    assert total is not None
    return total


def log_mixture(log_q: Sequence[Tensor], parts: Sequence[Part], log_weights: Tensor) -> Tensor:
    """The logarithm of :func:`mixture_law`, ``[rows, vocab]``, where probabilities would underflow as well."""
    log_w = log_weights.log_softmax(-1)  # [rows, attributes]
    total = log_q[0].new_full((len(log_weights), log_q[0].shape[-1]), -torch.inf)
    for part, component in zip(parts, log_q, strict=True):
        weighted = component + log_w[part.rows, part.attribute, None].to(component)
        total[part.rows] = torch.logaddexp(total[part.rows], weighted)
    return total


def log_product(
    log_base: Tensor, log_policies: Tensor, parts: Sequence[Part], alphas: Tensor, strengths: Sequence[float | Tensor]
) -> Tensor:
    """``log_softmax(log_base + sum_i alpha_i lambda_i log r_i)``, ``[rows, vocab]``.

    Args:
        strengths: per attribute, one for all, or ``[rows]``.
    """
    tilted, exponents = log_base.clone(), alphas.to(log_base)
    for part in parts:
        strength, exponent = (
            _of_part(strengths[part.attribute], part, tilted),
            exponents[part.rows, part.attribute, None],
        )
        if isinstance(strength, Tensor) or strength != 1.0:
            exponent = exponent * strength
        _add(tilted, part.rows, (log_policies[part.policy] - log_policies[part.rho]).mul_(exponent))
    return tilted.log_softmax(-1)


def _add(total: Tensor, rows: Tensor | slice, more: Tensor) -> None:
    """``total[rows] += more`` in place, no row twice."""
    if isinstance(rows, slice):
        total[rows].add_(more)
    else:
        total[rows] += more


def log_q_of(
    token: Tensor,
    log_policies: Tensor,
    parts: Sequence[Part],
    strengths: Sequence[float | Tensor],
    log_q: Sequence[Tensor] = (),
) -> list[Tensor]:
    """Per part the log-component of one token a row, ``[n]``.

    Args:
        token: ``[rows]``.
        strengths: per attribute, one for all, or ``[rows]``.
        log_q: the log-components, where :func:`token_law` gave them.
    """
    out = []
    for i, part in enumerate(parts):
        mine = token[part.rows, None]
        if log_q:
            picked = log_q[i].gather(1, mine)
        elif part.plain and not isinstance(strength := strengths[part.attribute], Tensor) and strength == 1.0:
            lines = part.policy
            if isinstance(lines, slice):
                picked = log_policies[lines].gather(1, mine)
            else:
                picked = log_policies[lines, mine[:, 0]][:, None]
        else:
            picked = log_component(log_policies, part, strengths[part.attribute]).gather(1, mine)
        out.append(picked[:, 0])
    return out


def follow(
    state: TargetState,
    log_q_token: Sequence[Tensor],
    parts: Sequence[Part],
    position: Tensor,
    horizon: int | Tensor | None,
) -> Tensor:
    """The mixture's log-weights after one kept token a row, ``[rows, attributes]``.

    Args:
        log_q_token: see :func:`log_q_of`.
        position: index of that token within the response, ``[rows]``.
        horizon: the weights are ``alpha`` again at every position that is a multiple of it, wherever
            the rounds of drafting happen to end. One for all, or ``[rows]``; ``None``: never.
    """
    updated = state.log_weights.clone()
    for part, log_q in zip(parts, log_q_token, strict=True):
        if isinstance(part.rows, slice):
            updated[part.rows, part.attribute].add_(log_q)  # in float64, as what it is added to
        else:
            updated[part.rows, part.attribute] += log_q.to(updated)
    updated = updated.log_softmax(-1)
    if horizon is None:
        return updated
    boundary = ((position + 1) % horizon == 0)[:, None]
    return torch.where(boundary, state.alphas.log(), updated)
