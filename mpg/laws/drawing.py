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


def truncate(probs: Tensor, *, top_k: int | Tensor, top_p: float | Tensor, most_k: int | None = None) -> Tensor:
    """Top-k, then top-p (nucleus, Holtzman et al. 2020), renormalised.

    Every token at least as probable as the last one kept is kept, so that ties are not broken by
    the order of a sort: the law depends on the probabilities alone.

    Args:
        probs: ``[rows, vocab]``, each row summing to 1.
        top_k: one for all, or ``[rows]`` int64; 0 turns it off.
        top_p: smallest mass to keep, one for all, or ``[rows]``; 1.0 turns it off. A row in which it is off stays as
            it is, whatever is cut off others.
        most_k: the largest of several ``top_k``; ``None``: looked up, which waits for a GPU.
    """
    if _any_k(top_k, most_k, probs.shape[-1]):
        cutoff, on = _top_k_cutoff(probs, top_k, most_k)
        probs = _kept(probs, cutoff, on)
    if isinstance(top_p, Tensor) or top_p < 1.0:
        cutoff, on = _nucleus_cutoff(probs, top_p)
        probs = _kept(probs, cutoff, on)
    return probs


def truncate_log(log_probs: Tensor, *, top_k: int | Tensor, top_p: float | Tensor, most_k: int | None = None) -> Tensor:
    """:func:`truncate` of normalised log-probabilities ``[rows, vocab]``, to such: -inf where a token is cut off.

    A token kept keeps a finite one, however far below the least probability that a float can hold.
    """
    if _any_k(top_k, most_k, log_probs.shape[-1]):
        cutoff, on = _top_k_cutoff(log_probs, top_k, most_k)
        log_probs = _kept_log(log_probs, log_probs, cutoff, on)
    if isinstance(top_p, Tensor) or top_p < 1.0:
        probs = log_probs.exp()  # what underflows here is no part of a nucleus
        cutoff, on = _nucleus_cutoff(probs, top_p)
        log_probs = _kept_log(log_probs, probs, cutoff, on)
    return log_probs


def one_hot_of_largest(values: Tensor) -> Tensor:
    """All mass on each row's largest value, the lowest index of several: ``[rows, vocab]`` of 0 and 1."""
    return torch.zeros_like(values).scatter_(-1, values.argmax(-1, keepdim=True), 1.0)


def _any_k(top_k: int | Tensor, most_k: int | None, vocab: int) -> bool:
    """Whether top-k cuts any row."""
    return most_k != 0 if isinstance(top_k, Tensor) else 0 < top_k < vocab


def _kept(probs: Tensor, cutoff: Tensor, on: Tensor | None) -> Tensor:
    """What reaches the cutoff, renormalised; ``on [rows, 1]``: where anything is cut at all, ``None``: everywhere."""
    if on is None:
        probs = probs * (probs >= cutoff)
        return probs / probs.sum(-1, keepdim=True)
    probs = probs * (probs >= cutoff.where(on, 0.0))
    return probs / probs.sum(-1, keepdim=True).where(on, 1.0)


def _kept_log(log_probs: Tensor, compared: Tensor, cutoff: Tensor, on: Tensor | None) -> Tensor:
    """:func:`_kept` of logarithms: where what is ``compared`` reaches the cutoff."""
    # A softmax of logarithms renormalises them; on a CPU it takes a twelfth of the time of their logsumexp.
    if on is None:
        return log_probs.masked_fill(compared < cutoff, -torch.inf).log_softmax(-1)
    return log_probs.masked_fill(compared < cutoff, -torch.inf).log_softmax(-1).where(on, log_probs)


def _top_k_cutoff(values: Tensor, top_k: int | Tensor, most_k: int | None) -> tuple[Tensor, Tensor | None]:
    """The k-th largest value of each row, ``[rows, 1]``, and where top-k is on, see :func:`_kept`."""
    if not isinstance(top_k, Tensor):
        return values.topk(top_k, dim=-1).values[:, -1:], None
    vocab = values.shape[-1]
    width = min(int(top_k.max()) if most_k is None else most_k, vocab)
    k = top_k[:, None]
    largest = values.topk(max(1, width), dim=-1).values
    return largest.gather(1, k.clamp(1, max(1, width)) - 1), (k > 0) & (k < vocab)


def _nucleus_cutoff(probs: Tensor, top_p: float | Tensor) -> tuple[Tensor, Tensor | None]:
    """Probability of the last token of each row's nucleus, ``[rows, 1]``, and where top-p is on, see :func:`_kept`."""
    on: Tensor | None = None
    if isinstance(top_p, Tensor):
        on = top_p[:, None] < 1.0
        # Where it is off, the first token reaches what is asked for: no row is looked at for longer than its own needs.
        top_p = top_p[:, None].where(on, torch.finfo(probs.dtype).tiny).to(probs)
    if probs.device.type != "cpu":
        return _cutoff_of_all(probs, top_p), on
    cutoff = probs.new_zeros(len(probs), 1)
    wide = torch.arange(len(probs), device=probs.device)
    for k in (*_CANDIDATES, probs.shape[-1]):
        k = min(k, probs.shape[-1])
        wanted = top_p[wide] if isinstance(top_p, Tensor) else top_p
        cutoff[wide], found = _cutoff_among(probs[wide].topk(k, dim=-1).values, wanted)
        wide = wide[~found]
        if k == probs.shape[-1] or not len(wide):
            break
    return cutoff, on


def _cutoff_of_all(probs: Tensor, top_p: float | Tensor) -> Tensor:
    """:func:`_nucleus_cutoff` on a device, which is asked once whether the most probable tokens are enough."""
    k = min(_CANDIDATES[-1], probs.shape[-1])
    cutoff, found = _cutoff_among(probs.topk(k, dim=-1).values, top_p)
    if k < probs.shape[-1] and not bool(found.all()):
        whole, _ = _cutoff_among(probs.sort(dim=-1, descending=True).values, top_p)
        cutoff = torch.where(found[:, None], cutoff, whole)  # a row's own does not depend on those beside it
    return cutoff


def _cutoff_among(values: Tensor, top_p: float | Tensor) -> tuple[Tensor, Tensor]:
    """The cutoff within descending ``values [rows, k]``, ``[rows, 1]``, and whether they reach top_p, ``[rows]``.

    The nucleus is the shortest run whose mass reaches ``top_p``, one for all or ``[rows, 1]``: a token is in it while
    the mass before it falls short.
    """
    cumulative = values.cumsum(-1)
    last = (cumulative - values < top_p).sum(-1, keepdim=True) - 1
    if values.device.type != "cpu":
        last = last.clamp_min(0)  # of what is not a number, which is found out later
    return values.gather(-1, last), (cumulative[:, -1:] >= top_p)[:, 0]


def draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Inverse-CDF draw: token of each row at its uniform in [0, 1); ``[rows]`` int64.

    First among blocks of tokens, then within one; sums of more than a block's run in float64, since over a
    vocabulary of 50,000 a float32 sum loses tokens in the tail. ``probs`` need not be normalised; a token of
    probability 0 is never drawn.
    """
    rows, vocab = probs.shape
    more = -vocab % _DRAW_BLOCK
    blocks = (F.pad(probs, (0, more)) if more else probs).reshape(rows, -1, _DRAW_BLOCK)
    edges = blocks.sum(-1).double().cumsum(-1)  # [rows, blocks]
    points = uniforms.to(edges)[:, None] * edges[:, -1:]
    block = _first_above(edges, points)  # [rows, 1]
    before = F.pad(edges, (1, 0)).gather(1, block)
    inside = blocks.gather(1, block[:, :, None].expand(-1, -1, _DRAW_BLOCK))[:, 0]
    within = _first_above(inside.cumsum(-1, dtype=torch.float64), points - before)
    return torch.add(within, block, alpha=_DRAW_BLOCK)[:, 0]


def _first_above(cumulative: Tensor, points: Tensor) -> Tensor:
    """Index of the first cumulative sum above the point, ``[rows, 1]``.

    Rounding can carry a point up to the total itself: then the last entry with mass is meant.
    """
    found = torch.searchsorted(cumulative, points, right=True)
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())
    if cumulative.device.type != "cpu":
        last = last.clamp_max(cumulative.shape[-1] - 1)  # of what is not a number, which is found out later
    return torch.minimum(found, last)
