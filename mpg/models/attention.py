"""Attention over a lane cache, as transformers' attention interface wants it.

Grouped-query heads are folded into the query's time axis: keys and values are read where they lie,
neither repeated per query head nor copied out of the cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NAME = "mpg_lanes"


def keys_across(device: torch.device) -> bool:
    """Whether a cache keeps its keys as ``[dim, positions]``.

    A CPU multiplies by them twice as fast that way; the fused kernels of a GPU want ``[positions, dim]``.
    """
    return device.type == "cpu"


def lane_attention(
    module: nn.Module,
    query: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention.

    Args:
        query: ``[lanes, heads, tokens, dim]``.
        keys: per run of lanes ``[run, kv_heads, width, dim]``, the last two exchanged where :func:`keys_across`.
        values: ``[run, kv_heads, width, dim]``.
        attention_mask: what is added to the scores, ``[lanes, 1, tokens, width]``.

    Returns:
        ``[lanes, tokens, heads, dim]``, and no attention weights.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(query, keys, values, attention_mask, scale), None


def attend(query: Tensor, keys: list[Tensor], values: list[Tensor], mask: Tensor, scale: float) -> Tensor:
    """See :func:`lane_attention`; ``[lanes, tokens, heads, dim]``."""
    lanes, heads, tokens, dim = query.shape
    kv_heads = values[0].shape[1]
    folded = query.reshape(lanes, kv_heads, heads // kv_heads * tokens, dim)
    kernel = _by_products if keys_across(query.device) else _fused
    outputs, first = [], 0
    for k, v in zip(keys, values, strict=True):
        run = slice(first, first + len(k))
        outputs.append(kernel(folded[run], k, v, mask[run], scale))
        first = run.stop
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return output.view(lanes, heads, tokens, dim).transpose(1, 2).contiguous()


def _by_products(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Two matrix products a head and lane, for keys ``[run, kv_heads, dim, width]``."""
    run, kv_heads, width, dim = values.shape
    n, tokens = run * kv_heads, mask.shape[2]
    scores = torch.bmm((query * scale).reshape(n, -1, dim), keys.reshape(n, dim, width))
    scores = scores.view(run, kv_heads, -1, tokens, width).add_(mask[:, :, None])  # [.., groups, tokens, width]
    return torch.bmm(scores.softmax(-1).view(n, -1, width), values.reshape(n, width, dim))


def _fused(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """One kernel over all, for keys ``[run, kv_heads, width, dim]``."""
    mask = mask.repeat(1, 1, query.shape[2] // mask.shape[2], 1)
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)


def use_lane_attention(model: Any) -> None:
    """Make a transformers model attend through :func:`lane_attention`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, lane_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
