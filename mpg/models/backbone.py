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
from mpg.models.cache import WIDTH_STEP, LaneCache
from mpg.models.head import Head
from mpg.models.lane_linear import Mix, wrap
from mpg.models.lean import LlamaPass
from mpg.models.own_pass import OwnPass
from mpg.models.positions import RowPositions, learned_positions
from mpg.models.served import way_of
from mpg.models.trunk import Trunk, first_layer


class BackboneSession(Protocol):
    """KV state of a number of lanes in one backbone."""

    def append(
        self,
        lanes: Sequence[int],
        mixes: Tensor,
        tokens: Tensor,
        starts: Tensor,
        extents: Tensor | None = None,
        *,
        trunks: Sequence[int] | None = None,
        reach: int | None = None,
        fresh: bool = False,
    ) -> Tensor:
        """Feed tokens to lanes.

        Args:
            lanes: distinct lanes, in the order of the batch.
            mixes: coefficient of each adapter in each lane, ``[lanes, n_branches - 1]``, or for each of the tokens,
                ``[lanes, time, n_branches - 1]``, where an adapter is not on from the beginning (aLoRA).
            tokens: ``[lanes, time]``, at positions ``starts [lanes]`` and on.
            extents: how long each lane's text may become, ``[lanes]``, see :mod:`mpg.models.positions`; ``None``: what
                is fed is its end.
            trunks: of a session with a trunk, each lane's trunk lane (:mod:`mpg.models.trunk`).
            reach: all tokens are known to lie before this position; ``None``: a device has to be asked.
            fresh: with a trunk, whether none of the tokens has been fed to another lane of a trunk lane before, and
                those of a trunk lane are fed the same: a device need not be asked either.

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

    def read(self, lane: int, length: int) -> Sequence[Tensor]:
        """What a lane keeps of its first ``length`` positions, apart from it."""
        ...

    def write(self, lane: int, kept: Sequence[Tensor]) -> None:
        """Fill the beginning of a lane with what was read of another one."""
        ...

    def close(self) -> None:
        """Give its memory back to the backbone; nothing else may be called afterwards."""
        ...


class Backbone(Protocol):
    """Scores branches; ``n_branches`` of them.

    One with adapters that are not on from the beginning has ``invocations``, see
    :func:`mpg.models.invocation.invocations_of`; one that reads long texts otherwise than short ones ``positions``; one
    that can run its lower layers apart ``first_layers``, the lowest that each adapter changes, and ``n_layers``; its
    ``session`` takes ``split`` and ``trunk_lanes``, see :class:`TransformersBackbone`.
    """

    n_branches: int
    device: torch.device

    def session(self, lanes: int, capacity: int) -> BackboneSession: ...


class TransformersBackbone:
    """A causal language model and the LoRA adapters over it.

    Args:
        model: a transformers causal LM in eval mode; it is changed in place (linear layers, attention). It may span
            several devices (:mod:`mpg.models.spanning`).
        adapters: PEFT adapter folders, or what was read of them, one branch each, in order.

    Raises:
        BankError: attention that is not full causal, an adapter that is refused or not one over this
            model's linear layers.
    """

    def __init__(self, model: Any, adapters: Sequence[Path | Lora] = (), way: str | None = None) -> None:
        self.model = model
        self.device = model.device
        self.devices = tuple(dict.fromkeys(each.device for each in model.parameters()))
        self.n_branches = 1 + len(adapters)
        self._spare: tuple[LaneCache, Trunk | None] | None = None
        loras = [each if isinstance(each, Lora) else read_lora(each) for each in adapters]
        self.invocations = tuple(lora.invocation for lora in loras)
        self._mix = Mix(loras, model.device, model.dtype)
        wrap(model, loras, self._mix)
        self.way = way_of(model.config) if way is None else way
        self.positions, self.n_positions = RowPositions.of(model), learned_positions(model.config)
        self._lean = LlamaPass(model) if self.way == "lean" else None
        self._pass = OwnPass(model) if self._lean is None else self._lean
        self.n_layers = 0 if self._lean is None else self._lean.n_layers  # that can be run apart
        self.first_layers = tuple(min(first_layer(lora.factors), self.n_layers) for lora in loras)
        self.head = Head(model, bare=self.way == "lean")

    def session(self, lanes: int, capacity: int, *, split: int = 0, trunk_lanes: int = 0) -> TransformersSession:
        """Room for lanes of up to ``capacity`` tokens; their first ``split`` layers are run in ``trunk_lanes``."""
        # Caches that an earlier session gave back: half a gigabyte of fresh pages takes as long as some passes.
        cache, trunk = self._spare or (None, None)
        self._spare = None
        if cache is None or cache.first_layer != split or not cache.holds(lanes, capacity):
            cache, trunk = self._cache(lanes, capacity, split), None
        if split and (trunk is None or not trunk.cache.holds(trunk_lanes, capacity)):
            size = self.model.config.get_text_config().hidden_size
            trunk = Trunk(self._cache(trunk_lanes, capacity), size, self.device, self.model.dtype)
        return TransformersSession(self, cache, trunk)

    def _cache(self, lanes: int, capacity: int, first_layer: int = 0) -> LaneCache:
        joined = self.way == "joined"
        across = keys_across(self.device) and not joined
        return LaneCache(
            lanes=lanes,
            capacity=capacity if self.device.type == "cpu" else -(-capacity // WIDTH_STEP) * WIDTH_STEP,
            dtype=self.model.dtype,
            keys_across=across,
            joined=joined,
            first_layer=first_layer,
            together=self.way == "lean" and not across,
        )

    def take_back(self, cache: LaneCache, trunk: Trunk | None) -> None:
        """Keep caches for the next session."""
        for each in (cache, trunk.cache) if trunk is not None else (cache,):
            each.forget()
        self._spare = cache, trunk

    @torch.inference_mode()
    def forward(
        self,
        cache: LaneCache,
        lanes: Sequence[int],
        mixes: Tensor,
        tokens: Tensor,
        starts: Tensor,
        extents: Tensor | None,
        reach: int | None,
    ) -> Tensor:
        """See :meth:`BackboneSession.append`."""
        positions, mask = self._aimed(cache, lanes, mixes, tokens.shape[1], starts, extents, reach)
        return self._pass(tokens, positions, mask, cache).to(self.device)

    @torch.inference_mode()
    def forward_from(
        self,
        trunk: Trunk,
        cache: LaneCache,
        lanes: Sequence[int],
        mixes: Tensor,
        tokens: Tensor,
        starts: Tensor,
        extents: Tensor | None,
        trunks: Sequence[int],
        reach: int | None,
        fresh: bool,
    ) -> Tensor:
        """The same, with the layers below ``cache.first_layer`` run in a trunk."""
        assert self._lean is not None
        lean, time, split = self._lean, tokens.shape[1], cache.first_layer
        below = mixes * torch.tensor([first < split for first in self.first_layers], dtype=mixes.dtype)

        def run(places: Sequence[int], at: Tensor, of: Sequence[int]) -> Tensor:
            extent = None if extents is None else extents[at]
            positions, mask = self._aimed(trunk.cache, of, below[list(places)], time, starts[at], extent, reach)
            return lean.layers(lean.embed(tokens[at]), positions, mask, trunk.cache, 0, split).to(self.device)

        x = trunk.states(trunks, tokens, starts, run, fresh=fresh)
        positions, mask = self._aimed(cache, lanes, mixes, time, starts, extents, reach)
        return lean.norm(lean.layers(x, positions, mask, cache, split, lean.n_layers)).to(self.device)

    def _aimed(
        self,
        cache: LaneCache,
        lanes: Sequence[int],
        mixes: Tensor,
        time: int,
        starts: Tensor,
        extents: Tensor | None,
        reach: int | None,
    ) -> tuple[Tensor, Tensor]:
        """Make the next layers' run be over these lanes; its positions ``[lanes, time]`` and its mask."""
        known = () if reach is None else (reach,)
        mask = cache.aim(lanes, starts, time, *known)
        self._mix.set(mixes, time)
        if self.positions is not None:
            self.positions.set(starts + time if extents is None else extents)
        positions = starts[:, None]
        if time > 1:
            positions = positions + torch.arange(time, device=starts.device)
        if self.n_positions is not None:  # drafts past a row's longest response, which nobody keeps
            positions = positions.clamp_max(self.n_positions - 1)
        return positions, mask


class TransformersSession:
    """One preallocated cache over a backbone's lanes, and one over its trunk lanes."""

    def __init__(self, backbone: TransformersBackbone, cache: LaneCache, trunk: Trunk | None = None) -> None:
        self._backbone, self.cache, self.trunk = backbone, cache, trunk

    def append(
        self,
        lanes: Sequence[int],
        mixes: Tensor,
        tokens: Tensor,
        starts: Tensor,
        extents: Tensor | None = None,
        *,
        trunks: Sequence[int] | None = None,
        reach: int | None = None,
        fresh: bool = False,
    ) -> Tensor:
        if self.trunk is not None:
            assert trunks is not None
            given = (lanes, mixes, tokens, starts, extents, trunks, reach, fresh)
            return self._backbone.forward_from(self.trunk, self.cache, *given)
        return self._backbone.forward(self.cache, lanes, mixes, tokens, starts, extents, reach)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        return self._backbone.head(hidden)

    def copy(self, source: int, target: int, length: int) -> None:
        self.cache.copy(source, target, length)

    def read(self, lane: int, length: int) -> list[Tensor]:
        return self.cache.read(lane, length)

    def write(self, lane: int, kept: Sequence[Tensor]) -> None:
        self.cache.write(lane, kept)

    def close(self) -> None:
        self._backbone.take_back(self.cache, self.trunk)
