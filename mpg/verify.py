"""Verdicts over a drafted chunk: pure functions, uniforms in, verdict out.

- *draft*: a token proposed by the drafter ``q``; *chunk*: the drafts of one round
- *accepted*: a draft that is kept; *residual*: the law ``norm(max(T - q, 0))`` a rejected draft is
  replaced from; *bonus token*: the token after a wholly accepted chunk, drawn from ``T``
- *threshold* (``scr``): the bound M that a chunk's ratio R is tested against
- *salvage* (``scr``): the longest accepted prefix of a rejected chunk
"""

from __future__ import annotations

from torch import Tensor


def accept_token(target: Tensor, draft: Tensor, uniforms: Tensor) -> Tensor:
    """Speculative sampling's test ``u < min(1, T[x] / q[x])`` (Leviathan et al. 2023), ``[rows]`` bool.

    Args:
        target, draft: probabilities of the drafted tokens, ``[rows]``.
        uniforms: in [0, 1), ``[rows]``.
    """
    return uniforms.to(target) * draft < target


def residual(target: Tensor, draft: Tensor) -> Tensor:
    """Law of the replacement, unnormalised: ``max(T - q, 0)``, ``[rows, vocab]``.

    Where rounding leaves no mass (T and q equal to the last bit), the target itself.
    """
    rest = (target - draft).clamp_min(0.0)
    empty = rest.sum(-1, keepdim=True) <= 0
    return target.where(empty, rest)


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
    lengths = passed * passed.new_ones(chunk).long().cumsum(0)  # m where the prefix of m passes
    return lengths.amax(dim=1)
