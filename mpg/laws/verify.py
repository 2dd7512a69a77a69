"""Verdicts over drafted tokens: pure functions, uniforms in, verdict out.

- *draft*: a token proposed by the drafter ``q``; *chunk*: the drafts of one round
- *accepted*: a draft that is kept; *residual*: the law ``norm(max(T - q, 0))`` a rejected draft is
  replaced from
- *threshold* (``scr``): the bound M that a chunk's ratio R is tested against
- *salvage* (``scr``): the longest accepted prefix of a rejected chunk
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mpg.laws.drawing import draw


def settle(
    target: Tensor, draft_law: Tensor, draft: Tensor, test: Tensor, replacement: Tensor
) -> tuple[Tensor, Tensor]:
    """One position of speculative sampling (Leviathan et al. 2023; Chen et al. 2023): lossless.

    Given the text before a position, what it returns depends on the position's own uniforms alone.
    So a text does not depend on how many tokens were drafted at a time.

    Args:
        target, draft_law: T and q, ``[rows, vocab]``.
        draft: tokens drawn from q, ``[rows]``.
        test, replacement: uniforms in [0, 1), ``[rows]``.

    Returns:
        tokens ``[rows]``, which follow T; whether each is the draft, ``[rows]`` bool.
    """
    wanted, proposed = (law.gather(1, draft[:, None])[:, 0] for law in (target, draft_law))
    accepted = accept_token(wanted, proposed, test)
    if target.device.type != "cpu":  # which is not asked how many are rejected
        return torch.where(accepted, draft, draw(residual(target, draft_law), replacement)), accepted
    token = draft.clone()
    rejected = (~accepted).nonzero()[:, 0]
    if len(rejected):
        token[rejected] = draw(residual(target[rejected], draft_law[rejected]), replacement[rejected])
    return token, accepted


def accept_token(target: Tensor, draft: Tensor, uniforms: Tensor) -> Tensor:
    """Speculative sampling's test ``u < min(1, T[x] / q[x])``, ``[rows]`` bool.

    Args:
        target, draft: probabilities of the drafted tokens, ``[rows]``; drafts have ``q[x] > 0``.
        uniforms: in [0, 1), ``[rows]``.
    """
    return passes(target / draft, uniforms)


def passes(probability: Tensor, uniforms: Tensor) -> Tensor:
    """Whether an event of this probability (1 where it is more) happens, bool of its shape."""
    return uniforms.to(probability) < probability


def residual(target: Tensor, draft: Tensor) -> Tensor:
    """Law of the replacement, unnormalised: ``max(T - q, 0)``, ``[rows, vocab]``.

    Where rounding leaves no mass (T and q equal to the last bit), the target itself.
    """
    rest = (target - draft).clamp_min(0.0)
    empty = rest.sum(-1, keepdim=True) <= 0
    return target.where(empty, rest)


def block_scales(log_target: Tensor, log_draft: Tensor) -> Tensor:
    """``p_i = min(p_{i-1} T(x_i) / q(x_i), 1)`` for i = 0..chunk, ``[rows, chunk + 1]`` (Sun et al. 2024).

    Args:
        log_target, log_draft: of the drafts, ``[rows, chunk]``.
    """
    log_p = [torch.zeros_like(log_target[:, 0])]
    for step in (log_target - log_draft).unbind(1):
        log_p.append((log_p[-1] + step).clamp_max(0.0))
    return torch.stack(log_p, dim=1).exp()


def block_thresholds(scales: Tensor, rest: Tensor, lengths: Tensor) -> Tensor:
    """Block verification (Sun et al. 2024, Algorithm 2): probability with which a prefix passes.

    ``h_i = s_i / (s_i + 1 - p_i)`` for a prefix of i drafts, ``s_i = sum_x max(p_i T(x) - q(x), 0)`` after
    it; ``h_i = p_i`` for the whole chunk. The longest prefix that passes is kept; the token after a
    shorter one follows :func:`residual` of ``p_i T`` and q.

    Args:
        scales: ``p_i`` for i = 0..chunk, ``[rows, chunk + 1]``.
        rest: ``s_i`` for i = 0..chunk - 1, ``[rows, chunk]``.
        lengths: drafts of each chunk up to its end, ``[rows]``.

    Returns:
        ``h_i`` for i = 1..chunk, ``[rows, chunk]``; 0 past a chunk's end.
    """
    counts = torch.arange(1, rest.shape[1] + 1, device=lengths.device)  # [chunk]
    p = scales[:, 1:]
    s = torch.cat([rest[:, 1:], torch.zeros_like(rest[:, :1])], dim=1)
    inner = s / (s + 1 - p).clamp_min(torch.finfo(s.dtype).tiny)
    return torch.where(counts == lengths[:, None], p, inner) * (counts <= lengths[:, None])


def block_verdict(
    targets: Sequence[Tensor],
    draft_laws: Sequence[Tensor],
    drafts: Tensor,
    log_target: Tensor,
    lengths: Tensor,
    uniforms: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Block verification of drafted chunks: lossless, as :func:`settle` is, and keeps more of a chunk.

    Args:
        targets, draft_laws: T and q at each position, ``[rows, vocab]`` each.
        drafts: ``[rows, chunk]`` or longer.
        log_target: of the drafts, ``[rows, chunk]`` float64.
        lengths: drafts of each chunk up to its end, ``[rows]``.
        uniforms: in [0, 1), ``[rows, chunk]``.

    Returns:
        how many drafts are kept, ``[rows]``; ``p_i T`` at each position, whose :func:`residual` over q the token after
        a shorter prefix follows.
    """
    log_draft = [q.gather(1, x[:, None])[:, 0].double().log() for q, x in zip(draft_laws, drafts.T, strict=False)]
    scales = block_scales(log_target, torch.stack(log_draft, dim=1))
    scaled = [p[:, None] * law for p, law in zip(scales.unbind(1), targets, strict=False)]  # p_i T
    rest = torch.stack([(law - q).clamp_min(0).sum(-1) for law, q in zip(scaled, draft_laws, strict=True)], dim=1)
    return longest(passes(block_thresholds(scales, rest, lengths), uniforms)), scaled


def longest(passed: Tensor) -> Tensor:
    """Length of the longest prefix that passed, ``[rows, chunk]`` bool -> ``[rows]``; 0 if none did."""
    return (passed * torch.arange(1, passed.shape[1] + 1, device=passed.device)).amax(dim=1)


def accepted_prefix(log_prefix_ratios: Tensor, log_bound: Tensor, log_uniforms: Tensor, *, salvage: bool) -> Tensor:
    """``scr``'s test: how many tokens of each chunk are kept, ``[rows]`` int64.

    The whole chunk is kept when ``u < min(1, R / M)``. Otherwise, with ``salvage``, the longest
    prefix of m tokens with ``u < R_m / M`` is kept, ``R_m`` its own ratio; else nothing.

    Args:
        log_prefix_ratios: ``log R_m`` for m = 1..chunk, ``[rows, chunk]``; columns past a chunk's end
            repeat its last value.
        log_bound: ``log M``, ``[rows]``.
        log_uniforms: ``[rows]``.
    """
    chunk = log_prefix_ratios.shape[1]
    passed = log_uniforms[:, None] < log_prefix_ratios - log_bound[:, None]  # [rows, chunk]
    if not salvage:
        return passed[:, -1].long() * chunk
    return longest(passed)


def whole_accepted(log_r: float, bound: float, uniform: float) -> bool:
    """Rejection sampling of one whole response: whether ``u < R / M``.

    A uniform of 0 stands for the least positive float, so that its logarithm is a number.
    """
    return math.log(uniform or 5e-324) < log_r - math.log(bound)


def resampled(log_r: Tensor, uniform: Tensor) -> int:
    """Sampling-importance resampling (Rubin 1987): one of ``log_r [responses]`` in proportion to R."""
    if not log_r.isfinite().any():  # all outside the truncated target: none is better than another
        log_r = torch.zeros_like(log_r)
    return int(draw(log_r.softmax(-1)[None], uniform)[0])
