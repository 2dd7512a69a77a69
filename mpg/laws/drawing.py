"""Truncation of a law, and drawing from it with a given uniform: pure functions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Nucleus candidates looked at before more are, and before a row is sorted whole: a speed knob that
# never changes a law. At temperature 0.8 and top-p 0.95 most nuclei hold fewer than 64 tokens.
_CANDIDATES = (64, 1024)
# Tokens summed at a time by `draw`: near the square root of a vocabulary of 50,000.
_DRAW_BLOCK = 256


def truncate(probs: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """Top-k, then top-p (nucleus, Holtzman et al. 2020), renormalised.

    Every token at least as probable as the last one kept is kept, so that ties are not broken by
    the order of a sort: the law depends on the probabilities alone.

    Args:
        probs: ``[rows, vocab]``, each row summing to 1.
        top_k: 0 turns it off.
        top_p: smallest mass to keep, 1.0 turns it off.
    """
    vocab = probs.shape[-1]
    if 0 < top_k < vocab:
        cutoff = probs.topk(top_k, dim=-1).values[:, -1:]  # [rows, 1]
        probs = probs * (probs >= cutoff)
        probs = probs / probs.sum(-1, keepdim=True)
    if top_p < 1.0:
        cutoff = _nucleus_cutoff(probs, top_p)
        probs = probs * (probs >= cutoff)
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


def truncate_log(log_probs: Tensor, *, top_k: int, top_p: float) -> Tensor:
    """:func:`truncate` of normalised log-probabilities ``[rows, vocab]``, to such: -inf where a token is cut off.

    A token kept keeps a finite one, however far below the least probability that a float can hold.
    """
    vocab = log_probs.shape[-1]
    if 0 < top_k < vocab:
        cutoff = log_probs.topk(top_k, dim=-1).values[:, -1:]  # [rows, 1]
        log_probs = log_probs.masked_fill(log_probs < cutoff, -torch.inf)
        log_probs = log_probs - log_probs.logsumexp(-1, keepdim=True)
    if top_p < 1.0:
        probs = log_probs.exp()  # what underflows here is no part of a nucleus
        log_probs = log_probs.masked_fill(probs < _nucleus_cutoff(probs, top_p), -torch.inf)
        log_probs = log_probs - log_probs.logsumexp(-1, keepdim=True)
    return log_probs


def one_hot_of_largest(values: Tensor) -> Tensor:
    """All mass on each row's largest value, the lowest index of several: ``[rows, vocab]`` of 0 and 1."""
    return torch.zeros_like(values).scatter_(-1, values.argmax(-1, keepdim=True), 1.0)


def _nucleus_cutoff(probs: Tensor, top_p: float) -> Tensor:
    """Probability of the last token of each row's nucleus, ``[rows, 1]``."""
    cutoff = probs.new_zeros(len(probs), 1)
    wide = torch.arange(len(probs), device=probs.device)
    for k in (*_CANDIDATES, probs.shape[-1]):
        k = min(k, probs.shape[-1])
        cutoff[wide], found = _cutoff_among(probs[wide].topk(k, dim=-1).values, top_p)
        wide = wide[~found]
        if k == probs.shape[-1] or not len(wide):
            break
    return cutoff


def _cutoff_among(values: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """The cutoff within descending ``values [rows, k]``, ``[rows, 1]``, and whether they reach top_p, ``[rows]``.

    The nucleus is the shortest run whose mass reaches ``top_p``: a token is in it while the mass
    before it falls short.
    """
    cumulative = values.cumsum(-1)
    last = (cumulative - values < top_p).sum(-1, keepdim=True) - 1
    return values.gather(-1, last), cumulative[:, -1] >= top_p


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse-CDF draw: token of each row at its uniform in [0, 1); ``[rows]`` int64.

    First among blocks of tokens, then within one; sums of more than a block's run in float64, since over a
    vocabulary of 50,000 a float32 sum loses tokens in the tail. ``probs`` need not be normalised; a token of
    probability 0 is never drawn.
    """
    rows, vocab = probs.shape
    blocks = F.pad(probs, (0, -vocab % _DRAW_BLOCK)).view(rows, -1, _DRAW_BLOCK)
    edges = blocks.sum(-1).double().cumsum(-1)  # [rows, blocks]
    points = uniforms.to(edges)[:, None] * edges[:, -1:]
    block = _first_above(edges, points)  # [rows, 1]
    before = torch.where(block > 0, edges.gather(1, (block - 1).clamp_min(0)), 0.0)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, _DRAW_BLOCK))[:, 0]
    within = _first_above(inside.cumsum(-1, dtype=torch.float64), points - before)
    return (block * _DRAW_BLOCK + within)[:, 0]


def _first_above(cumulative: Tensor, points: Tensor) -> Tensor:
    """Index of the first cumulative sum above the point, ``[rows, 1]``.

    Rounding can carry a point up to the total itself: then the last entry with mass is meant.
    """
    found = torch.searchsorted(cumulative, points, right=True)
    return torch.minimum(found, torch.searchsorted(cumulative, cumulative[:, -1:].contiguous()))
