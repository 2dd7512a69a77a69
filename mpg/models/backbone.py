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

from mpg.models.adapter_files import Lora, read_lora
from mpg.models.attention import keys_across
from mpg.models.cache import LaneCache
from mpg.models.head import Head
from mpg.models.lane_linear import Mix, wrap
from mpg.models.lean import LlamaPass
from mpg.models.own_pass import OwnPass
from mpg.models.positions import RowPositions, learned_positions
from mpg.models.served import way_of


class BackboneSession(Protocol):
    """KV state of a number of lanes in one backbone."""

    def append(
        self, lanes: Sequence[int], mixes: Tensor, tokens: Tensor, starts: Tensor, extents: Tensor | None = None
    ) -> Tensor:
        """Feed tokens to lanes.

        Args:
            lanes: distinct lanes, in the order of the batch.
            mixes: coefficient of each adapter in each lane, ``[lanes, n_branches - 1]``, or for each of the tokens,
                ``[lanes, time, n_branches - 1]``, where an adapter is not on from the beginning (aLoRA).
            tokens: ``[lanes, time]``, at positions ``starts [lanes]`` and on.
            extents: how long each lane's text may become, ``[lanes]``, see :mod:`mpg.models.positions`; ``None``: what
                is fed is its end.

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
    """Scores branches; ``n_branches`` of them.

    One with adapters that are not on from the beginning has ``invocations``, see
    :func:`mpg.models.invocation.invocations_of`; one that reads long texts otherwise than short ones ``positions``.
    """

    n_branches: int
    device: torch.device

    def session(self, lanes: int, capacity: int) -> BackboneSession: ...


class TransformersBackbone:
    """A causal language model and the LoRA adapters over it.

    Args:
        model: a transformers causal LM in eval mode; it is changed in place (linear layers, attention).
        adapters: PEFT adapter folders, or what was read of them, one branch each, in order.

    Raises:
        BankError: attention that is not full causal, an adapter that is refused or not one over this
            model's linear layers.
    """

    def __init__(self, model: Any, adapters: Sequence[Path | Lora] = (), way: str | None = None) -> None:
        self.model = model
        self.device = model.device
        self.n_branches = 1 + len(adapters)
        self._spare: LaneCache | None = None
        loras = [each if isinstance(each, Lora) else read_lora(each) for each in adapters]
        self.invocations = tuple(lora.invocation for lora in loras)
        self._mix = Mix(loras, model.device, model.dtype)
        wrap(model, loras, self._mix)
        self.way = way_of(model.config) if way is None else way
        self.positions, self.n_positions = RowPositions.of(model), learned_positions(model.config)
        self._pass = LlamaPass(model) if self.way == "lean" else OwnPass(model)
        self.head = Head(model, bare=self.way == "lean")

    def session(self, lanes: int, capacity: int) -> TransformersSession:
        # A cache that an earlier session gave back: half a gigabyte of fresh pages takes as long as some passes.
        cache, self._spare = self._spare, None
        if cache is None or cache.lanes < lanes or cache.capacity < capacity:
            joined = self.way == "joined"
            across = keys_across(self.device) and not joined
            dtype = self.model.dtype
            cache = LaneCache(lanes=lanes, capacity=capacity, dtype=dtype, keys_across=across, joined=joined)
        return TransformersSession(self, cache)

    def take_back(self, cache: LaneCache) -> None:
        """Keep a cache for the next session."""
        cache.forget()
        self._spare = cache

    @torch.inference_mode()
    def forward(
        self,
        cache: LaneCache,
        lanes: Sequence[int],
        mixes: Tensor,
        tokens: Tensor,
        starts: Tensor,
        extents: Tensor | None,
    ) -> Tensor:
        """See :meth:`BackboneSession.append`."""
        mask = cache.aim(lanes, starts, tokens.shape[1])
        self._mix.set(mixes, tokens.shape[1])
        if self.positions is not None:
            self.positions.set(starts + tokens.shape[1] if extents is None else extents)
        positions = starts[:, None] + torch.arange(tokens.shape[1], device=starts.device)
        if self.n_positions is not None:  # drafts past a row's longest response, which nobody keeps
            positions = positions.clamp_max(self.n_positions - 1)
        return self._pass(tokens, positions, mask, cache)


class TransformersSession:
    """One preallocated cache over a backbone's lanes."""

    def __init__(self, backbone: TransformersBackbone, cache: LaneCache) -> None:
        self._backbone, self.cache = backbone, cache

    def append(
        self, lanes: Sequence[int], mixes: Tensor, tokens: Tensor, starts: Tensor, extents: Tensor | None = None
    ) -> Tensor:
        return self._backbone.forward(self.cache, lanes, mixes, tokens, starts, extents)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        return self._backbone.head(hidden)

    def copy(self, source: int, target: int, length: int) -> None:
        self.cache.copy(source, target, length)

    def close(self) -> None:
        self._backbone.take_back(self.cache)
