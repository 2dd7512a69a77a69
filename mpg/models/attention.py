"""Attention over a lane cache, as transformers' attention interface wants it.

Grouped-query heads are folded into the query's time axis: keys and values are read where they lie,
neither repeated per query head nor copied out of the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from mpg.models.errors import BankError

NAME = "mpg_lanes"
# cuDNN's kernel is planned anew for each width, which takes longer than a step: widths grow with every token.
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# What models hand to an attention function beside what is computed with here: the mask says who sees whom, and
# nothing is dropped out or packed in a decoder that only reads. Anything else is refused by name.
_HARMLESS = frozenset(
    ("dropout", "is_causal", "sliding_window", "position_ids", "cache_position", "use_cache", "output_attentions",
     "output_hidden_states", "output_router_logits", "return_dict", "past_key_values", "inputs_embeds",
     "position_embeddings", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "layer_idx",
     "num_items_in_batch")
)  # fmt: skip


def keys_across(device: torch.device) -> bool:
    """Whether a cache keeps its keys as ``[dim, positions]``.

    A CPU multiplies by them twice as fast that way; the fused kernels of a GPU want ``[positions, dim]``.
    """
    return device.type == "cpu"


def lane_attention(
    module: nn.Module,
    query: Tensor,
    keys: list[Tensor] | Tensor,
    values: list[Tensor] | Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention.

    Args:
        query: ``[lanes, heads, tokens, dim]``.
        keys: per run of lanes ``[run, kv_heads, width, dim]``, the last two exchanged where :func:`keys_across`; or
            of all lanes together, not exchanged.
        values: ``[run, kv_heads, width, value dim]``, likewise.
        attention_mask: what is added to the scores, ``[lanes, 1, tokens, width]``.
        softcap: scores are ``softcap * tanh(score / softcap)`` (Gemma 2).
        s_aux: attention sinks, one more score a head that no value belongs to, ``[heads]`` (gpt-oss).

    Returns:
        ``[lanes, tokens, heads, value dim]``, and no attention weights.

    Raises:
        BankError: the model attends in a way that is not known here.
    """
    unknown = [name for name, value in kwargs.items() if name not in _HARMLESS and value is not None]
    if unknown or attention_mask is None or attention_mask.shape[1] != 1:
        what = ", ".join(unknown) or "a mask a head, or none"
        raise BankError(f"{type(module).__name__} attends with {what}, which is not known here; use another model")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(keys, Tensor) and isinstance(values, Tensor):
        keys, values, across = [keys], [values], False
    else:
        across = keys_across(query.device)
    return attend(query, keys, values, attention_mask, scale, softcap, s_aux, across=across), None  # type: ignore[arg-type]


def attend(
    query: Tensor,
    keys: list[Tensor],
    values: list[Tensor],
    mask: Tensor,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    *,
    across: bool,
) -> Tensor:
    """See :func:`lane_attention`; ``[lanes, tokens, heads, value dim]``."""
    lanes, heads, tokens, dim = query.shape
    kv_heads, value_dim = values[0].shape[1], values[0].shape[-1]
    folded = query.reshape(lanes, kv_heads, heads // kv_heads * tokens, dim)
    plain = softcap is None and sinks is None
    outputs, first = [], 0
    for k, v in zip(keys, values, strict=True):
        run = slice(first, first + len(k))
        if plain and not across:
            outputs.append(_fused(folded[run], k, v, mask[run], scale))
        else:
            k = k if across else k.transpose(2, 3)
            outputs.append(_by_products(folded[run], k, v, mask[run], scale, softcap, sinks))
        first = run.stop
    output = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    # A GPU's kernels answer with the axes in another order in memory: heads are unfolded before they are joined.
    unfolded = output.view(lanes, kv_heads, heads // kv_heads, tokens, value_dim)
    return unfolded.permute(0, 3, 1, 2, 4).reshape(lanes, tokens, heads, value_dim).contiguous()


def _by_products(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Two matrix products a head and lane, for keys ``[run, kv_heads, dim, width]``."""
    run, kv_heads, width, value_dim = values.shape
    n, tokens = run * kv_heads, mask.shape[2]
    # Where every head has keys of its own nothing was folded, and the query may lie in memory token by token.
    scores = torch.bmm((query * scale).reshape(n, -1, query.shape[-1]), keys.reshape(n, -1, width))
    if softcap is not None:
        scores = scores.div_(softcap).tanh_().mul_(softcap)
    scores = scores.view(run, kv_heads, -1, tokens, width).add_(mask[:, :, None])  # [.., groups, tokens, width]
    if sinks is None:
        weights = scores.softmax(-1)
    else:
        more = sinks.to(scores).view(1, kv_heads, -1, 1, 1).expand(*scores.shape[:-1], 1)
        weights = torch.cat([scores, more], dim=-1).softmax(-1)[..., :-1]
    return torch.bmm(weights.reshape(n, -1, width), values.reshape(n, width, value_dim))


def _fused(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """One kernel over all, for keys ``[run, kv_heads, width, dim]``."""
    mask = folded(mask, query.shape[2] // mask.shape[2])
    with sdpa_kernel(_KERNELS):
        return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scale)


def folded(mask: Tensor, groups: int) -> Tensor:
    """A mask ``[lanes, 1, tokens, width]`` for so many heads in a row, ``[lanes, 1, groups * tokens, width]``.

    The layers of a pass may be handed one that was folded once for all.
    """
    if groups == 1:
        return mask
    return mask.expand(-1, -1, groups, -1) if mask.shape[2] == 1 else mask.repeat(1, 1, groups, 1)


def lane_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Tensor,
    *,
    mask_function: Callable[..., Tensor],
    dtype: torch.dtype = torch.float32,
    **kwargs: Any,
) -> Tensor:
    """A pass's mask, as transformers' mask interface wants it: full, sliding or chunked as the model's layers are.

    Args:
        q_offset: :meth:`mpg.models.cache.LaneCache.get_query_offset`, the position of each lane's first token
            ``[lanes]``: a lane's tokens stand at their positions, and nothing is padded on the left.
        mask_function: whether a query at a position sees a key at another one.

    Returns:
        what is added to attention scores, ``[lanes, 1, tokens, width]``.
    """
    device = q_offset.device
    lanes = torch.arange(batch_size, device=device)[:, None, None, None]
    queries = (q_offset[:, None] + torch.arange(q_length, device=device))[:, None, :, None]
    keys = torch.arange(kv_length, device=device)[None, None, None]
    seen = mask_function(lanes, torch.zeros_like(lanes), queries, keys).expand(batch_size, 1, q_length, kv_length)
    return torch.zeros(seen.shape, dtype=dtype, device=device).masked_fill_(~seen, -torch.inf)


def use_lane_attention(model: Any) -> bool:
    """Make a transformers model attend through :func:`lane_attention`; whether it can be made to."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, lane_attention)
    AttentionMaskInterface.register(NAME, lane_mask)
    if not model._can_set_attn_implementation():
        return False
    model.set_attn_implementation(NAME)
    return True
