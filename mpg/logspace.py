"""Probabilities in log space, truncation, and drawing with a given uniform: pure functions."""

from __future__ import annotations

import torch
from torch import Tensor

# Nucleus candidates looked at before a row is sorted whole; a speed knob that never changes a law.
_CANDIDATES = 1024


def log_policy(logits: Tensor, temperature: float) -> Tensor:
    """Normalised log-probabilities at a temperature, float32 (float64 stays) ``[..., vocab]``."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return (logits if temperature == 1.0 else logits / temperature).log_softmax(-1)


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


def _nucleus_cutoff(probs: Tensor, top_p: float) -> Tensor:
    """Probability of the last token of each row's nucleus, ``[rows, 1]``."""
    k = min(_CANDIDATES, probs.shape[-1])
    cutoff, found = _cutoff_among(probs.topk(k, dim=-1).values, top_p)
    wide = (~found).nonzero()[:, 0]
    if k < probs.shape[-1] and len(wide):
        cutoff[wide], _ = _cutoff_among(probs[wide].sort(dim=-1, descending=True).values, top_p)
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

    The sums run in float64: over a vocabulary of 50,000 a float32 sum loses tokens in the tail.
    ``probs`` need not be normalised; a token of probability 0 is never drawn.
    """
    cumulative = probs.cumsum(-1, dtype=torch.float64)  # [rows, vocab]
    points = uniforms.to(cumulative)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, points, right=True)[:, 0]
    # Rounding can carry u * total up to total itself: then the last token with mass is meant.
    last = torch.searchsorted(cumulative, cumulative[:, -1:].contiguous())[:, 0]
    return torch.minimum(tokens, last)
