"""How many rows fit into a device's memory: what a batch begins with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mpg.decoding.rounds.base import NUMBERS_AT_ONCE_ON_GPU
from mpg.models.backbone import Backbone
from mpg.models.bank import ModelBank
from mpg.models.cache import WIDTH_STEP
from mpg.models.lanes import TOKENS_AT_ONCE_ON_GPU
from mpg.request import Request
from mpg.settings import UNTOLD, DecoderSettings

# Of the free memory, what rows are given: allocators round up, and kernels take room of their own.
_SHARE = 0.9
# Prompts that rows to come will read again are kept in up to a quarter more (:mod:`mpg.decoding.prompts`).
_WITH_KEPT_PROMPTS = 1.25
# Tensors of a block of log-policies that live at a time: logits, scaled, normalised, components, target, residual.
_TENSORS_OF_A_BLOCK = 6


def free_bytes(bank: ModelBank) -> int | None:
    """Memory that is free for rows on a bank's CUDA devices, in bytes; ``None``: it lies on the processor.

    What torch's allocator holds and nothing uses is free, too. Of several devices the fullest decides: rows take of
    each by its layers.
    """
    devices = {each for backbone in bank.backbones for each in getattr(backbone, "devices", (bank.device,))}
    if bank.device.type != "cuda":
        return None
    each = [
        torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        for device in devices
    ]
    return len(each) * int(min(each))


def rows_that_fit(bank: ModelBank, requests: Sequence[Request], settings: Sequence[DecoderSettings], free: int) -> int:
    """Rows, at least 1, that fit into ``free`` bytes of a device.

    .. code-block:: text

        rows = (0.9 free - fixed) / (1.25 cache + drafts)
        cache  = capacity * sum over backbones (lanes of a row + 1) * bytes a token
        bytes a token = 2 * layers * key-value heads * head size * bytes a number
        capacity = longest prompt + longest response + longest chunk + 1, rounded up to WIDTH_STEP
        drafts = longest chunk * vocabulary * 4
        fixed  = 6 * 4 * NUMBERS_AT_ONCE_ON_GPU + TOKENS_AT_ONCE_ON_GPU * (4 hidden + 2 intermediate) * bytes a number

    ``cache`` counts each of a row's branches as if it shared no layer, and one lane more for the copy that drafting
    over scattered lanes makes; log-policies (``fixed``) are computed block by block, however many rows there are.

    Args:
        settings: of each request. free: in bytes, see :func:`free_bytes`.
    """
    if not requests:
        return 1
    chunk = max(own.chunk_len for own in settings)
    capacity = longest_prompt(requests) + max(own.max_new_tokens for own in settings) + chunk + 1
    capacity = -(-capacity // WIDTH_STEP) * WIDTH_STEP
    widest = [0] * len(bank.backbones)
    for request in requests:
        branches = bank.layout.branches_of(request.weights)
        first = 0
        for k, backbone in enumerate(bank.backbones):
            lanes = sum(first <= branch < first + backbone.n_branches for branch in branches)
            lanes += k == 0 and UNTOLD in request.prompts
            widest[k] = max(widest[k], lanes)
            first += backbone.n_branches
    cache = sum(
        capacity * (lanes + 1) * bytes_of_token(backbone)
        for lanes, backbone in zip(widest, bank.backbones, strict=True)
    )
    drafts = chunk * bank.vocab_size * torch.float32.itemsize
    fixed = _TENSORS_OF_A_BLOCK * torch.float32.itemsize * NUMBERS_AT_ONCE_ON_GPU
    fixed += max(map(_bytes_of_a_pass, bank.backbones))
    return max(1, int((_SHARE * free - fixed) / (_WITH_KEPT_PROMPTS * cache + drafts)))


def longest_prompt(requests: Sequence[Request]) -> int:
    """In tokens, those that attributes read for themselves included."""
    return max(len(prompt) for each in requests for prompt in (each.prompt_ids, *each.prompts.values()))


def bytes_of_token(backbone: Backbone) -> int:
    """What a lane keeps of a token, keys and values of all layers; 0 of functions, which keep nothing on a device."""
    text, size = _config_of(backbone)
    if text is None:
        return 0
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(text.num_hidden_layers) * int(heads) * int(dim) * size


def _bytes_of_a_pass(backbone: Backbone) -> int:
    text, size = _config_of(backbone)
    if text is None:
        return 0
    wide = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return TOKENS_AT_ONCE_ON_GPU * (4 * int(text.hidden_size) + 2 * int(wide)) * size


def _config_of(backbone: Backbone) -> tuple[Any, int]:
    """A transformers model's configuration of text, and the bytes of its numbers."""
    model = getattr(backbone, "model", None)
    return (None, 0) if model is None else (model.config.get_text_config(decoder=True), model.dtype.itemsize)
