"""Backbones: models that score many lanes, of several branches, in one forward pass.

A transformers model and the LoRA adapters over it form one backbone; its branches are the bare model
(branch 0) and each adapter. A whole model of its own is a backbone with one branch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mpg.models.adapter_files import read_lora
from mpg.models.attention import keys_across, use_lane_attention
from mpg.models.cache import LaneCache
from mpg.models.errors import BankError
from mpg.models.lane_linear import MatMul, Mix, wrap
from mpg.models.lean import LLAMA_LIKE, LlamaPass


class BackboneSession(Protocol):
    """KV state of a number of lanes in one backbone."""

    def append(self, lanes: Sequence[int], mixes: Tensor, tokens: Tensor, starts: Tensor) -> Tensor:
        """Feed tokens to lanes.

        Args:
            lanes: distinct lanes, in the order of the batch.
            mixes: coefficient of each adapter in each lane, ``[lanes, n_branches - 1]``.
            tokens: ``[lanes, time]``, at positions ``starts [lanes]`` and on.

        Returns:
            hidden states ``[lanes, time, hidden]``.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits ``[..., vocab]`` of hidden states ``[..., hidden]``."""
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of lane ``source`` over lane ``target``."""
        ...

    def close(self) -> None:
        """Give its memory back to the backbone; nothing else may be called afterwards."""
        ...


class Backbone(Protocol):
    """Scores branches; ``n_branches`` of them."""

    n_branches: int
    device: torch.device

    def session(self, lanes: int, capacity: int) -> BackboneSession: ...


class TransformersBackbone:
    """A causal language model and the LoRA adapters over it.

    Args:
        model: a transformers causal LM in eval mode; it is changed in place (linear layers, attention).
        adapters: PEFT adapter folders, one branch each, in order.

    Raises:
        BankError: attention that is not full causal, an adapter that is not plain LoRA over this
            model's linear layers.
    """

    def __init__(self, model: Any, adapters: Sequence[Path] = ()) -> None:
        _check_attention(model.config)
        self.model = model
        self.device = model.device
        self.n_branches = 1 + len(adapters)
        self._spare: LaneCache | None = None
        self._mix = Mix()
        loras = [read_lora(Path(path)) for path in adapters]
        self._ranks = torch.tensor([lora.rank for lora in loras], dtype=torch.long)
        wrap(model, loras, [str(path) for path in adapters], self._mix)
        use_lane_attention(model)
        self.lean = LlamaPass(model) if model.config.model_type in LLAMA_LIKE else None
        head = model.get_output_embeddings()
        self.head = MatMul(head.weight.detach(), head.bias)

    def session(self, lanes: int, capacity: int) -> TransformersSession:
        # A cache that an earlier session gave back: half a gigabyte of fresh pages takes as long as some passes.
        cache, self._spare = self._spare, None
        if cache is None or cache.lanes < lanes or cache.capacity < capacity:
            across = keys_across(self.device)
            cache = LaneCache(lanes=lanes, capacity=capacity, dtype=self.model.dtype, keys_across=across)
        return TransformersSession(self, cache)

    def take_back(self, cache: LaneCache) -> None:
        """Keep a cache for the next session."""
        cache.forget()
        self._spare = cache

    @torch.inference_mode()
    def forward(self, cache: LaneCache, lanes: Sequence[int], mixes: Tensor, tokens: Tensor, starts: Tensor) -> Tensor:
        mask = cache.aim(lanes, starts, tokens.shape[1])
        self._mix.set(None)
        if mixes.any():
            wide = mixes.repeat_interleave(self._ranks, dim=1)  # [lanes, sum of ranks]
            zero_one = bool(((mixes == 0) | (mixes == 1)).all())
            self._mix.set(wide.to(self.device, self.model.dtype)[:, None], zero_one=zero_one)
        positions = starts[:, None] + torch.arange(tokens.shape[1], device=starts.device)
        if self.lean is not None:
            return self.lean(tokens, positions, mask, cache)
        output = self.model.base_model(
            input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


class TransformersSession:
    """One preallocated cache over a backbone's lanes."""

    def __init__(self, backbone: TransformersBackbone, cache: LaneCache) -> None:
        self._backbone, self.cache = backbone, cache

    def append(self, lanes: Sequence[int], mixes: Tensor, tokens: Tensor, starts: Tensor) -> Tensor:
        return self._backbone.forward(self.cache, lanes, mixes, tokens, starts)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        return self._backbone.head(hidden)

    def copy(self, source: int, target: int, length: int) -> None:
        self.cache.copy(source, target, length)

    def close(self) -> None:
        self._backbone.take_back(self.cache)


def _check_attention(config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if kinds != {"full_attention"} or (window and not getattr(config, "layer_types", None)):
        raise BankError(
            f"model type {config.model_type!r} mixes other layers with full causal attention "
            f"({', '.join(sorted(kinds))}, sliding_window={window}); use a full-attention model"
        )
