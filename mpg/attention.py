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
        keys, values: per run of lanes ``[run, kv_heads, width, dim]``.
        attention_mask: ``[lanes, 1, tokens, width]`` bool.

    Returns:
        ``[lanes, tokens, heads, dim]``, and no attention weights.
    """
    lanes, heads, tokens, dim = query.shape
    groups = heads // keys[0].shape[1]
    folded = query.reshape(lanes, -1, groups * tokens, dim)  # [lanes, kv_heads, groups * tokens, dim]
    mask = attention_mask if tokens == 1 else attention_mask.repeat(1, 1, groups, 1)
    outputs, first = [], 0
    for k, v in zip(keys, values, strict=True):
        run = slice(first, first + k.shape[0])
        outputs.append(F.scaled_dot_product_attention(folded[run], k, v, attn_mask=mask[run], scale=scaling))
        first = run.stop
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return output.reshape(lanes, heads, tokens, dim).transpose(1, 2).contiguous(), None


def use_lane_attention(model: Any) -> None:
    """Make a transformers model attend through :func:`lane_attention`."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, lane_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
