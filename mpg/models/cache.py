"""A preallocated KV cache of lanes, rolled back by moving a pointer.

A *lane* is one row under one branch. Keys and values of a token stand at the slot of its position. The
engine says where each lane's new tokens begin (``starts``); whatever an earlier, rejected draft left at
or behind that point is written over before anything can attend to it. Nothing is recomputed and nothing
is copied on a rollback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# More contiguous runs than this are gathered into one copy: a kernel call a run would cost more.
_MAX_RUNS = 2
# Positions that a copy gathered for drafting has room for beyond those in use: drafting goes on in it.
_DRAFTS_AHEAD = 16


class LaneCache:
    """Keys and values of every lane; speaks the ``update`` protocol of transformers' caches.

    Tensors are ``[lanes, kv_heads, capacity, head_dim]`` per layer, allocated on first use (their shape
    is the model's own). A pass over one or two contiguous runs of lanes attends to views of them, any
    other to a copy, which is kept while the same lanes are fed token by token.

    Args:
        lanes, capacity: how many, of how many positions.
        dtype: of the model.
        keys_across: whether the last two axes of keys are exchanged.
        joined: whether ``update`` answers with one tensor each, ``[lanes, kv_heads, width, dim]``, as transformers'
            own caches do and attention that looks at it wants; then ``keys_across`` must be False.
        first_layer: of the model's, the first that is kept here.
    """

    # transformers asks these of a cache that is passed through `past_key_values`.
    is_compileable = False

    def __init__(
        self,
        *,
        lanes: int,
        capacity: int,
        dtype: torch.dtype,
        keys_across: bool,
        joined: bool = False,
        first_layer: int = 0,
    ) -> None:
        self.lanes, self.capacity, self.keys_across = lanes, capacity, keys_across
        self._dtype, self._joined, self.first_layer = dtype, joined, first_layer
        self._keys: list[Tensor] = []  # as values, whatever their order in memory
        self._values: list[Tensor] = []
        self._runs: list[slice] | None = None
        self._gathered: list[tuple[Tensor, Tensor]] = []  # per layer, of `_gathered_lanes`
        self._gathered_lanes: tuple[int, ...] = ()
        self._room = 0
        self._lane_index = self._positions = self._starts = torch.empty(0, dtype=torch.long)
        self._width = 0

    def holds(self, lanes: int, capacity: int) -> bool:
        """Whether so many lanes of so many positions have room."""
        return self.lanes >= lanes and self.capacity >= capacity

    def aim(self, lanes: Sequence[int], starts: Tensor, n_tokens: int) -> Tensor:
        """Say where the next forward pass writes; returns its attention mask.

        Args:
            lanes: those taking part, in the order of the pass's batch.
            starts: position of each lane's first new token, ``[lanes]``.
            n_tokens: new tokens a lane.

        Returns:
            what is added to attention scores, ``[lanes, 1, n_tokens, width]``: 0 where a token sees (its
            own position and all before it), else -inf.
        """
        positions = starts[:, None] + torch.arange(n_tokens, device=starts.device)  # [lanes, tokens]
        self._width = int(positions.max()) + 1
        if self._width > self.capacity:
            raise ValueError(f"cache of {self.capacity} positions is too short for {self._width}")
        self._runs = _runs(lanes)
        if n_tokens > 1 or self._runs or tuple(lanes) != self._gathered_lanes or self._width > self._room:
            self.forget()
            if n_tokens == 1 and not self._runs:
                self._gathered_lanes = tuple(lanes)
            self._room = min(self.capacity, self._width + _DRAFTS_AHEAD) if self._gathered_lanes else self._width
        self._lane_index = torch.tensor(lanes, device=starts.device)[:, None]
        self._positions, self._starts = positions, starts
        hidden = torch.arange(self._width, device=starts.device) > positions[:, :, None]
        mask = torch.zeros(hidden.shape, dtype=self._dtype, device=starts.device)
        return mask.masked_fill_(hidden, -torch.inf)[:, None]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write ``[lanes, heads, tokens, dim]``; per run, all that it may attend to."""
        layer_idx -= self.first_layer
        if layer_idx >= len(self._keys):
            self._keys.append(self._new(keys, across=self.keys_across))
            self._values.append(self._new(values, across=False))
        key_store, value_store = self._keys[layer_idx], self._values[layer_idx]
        self._write(key_store, value_store, self._lane_index, keys, values)
        if self._runs:
            seen = [self._view(key_store[run], value_store[run]) for run in self._runs]
        else:
            seen = [self._gather(key_store, value_store, keys, values, layer_idx)]
        if self._joined:
            k, v = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*seen, strict=True))
            return k, v
        return [k for k, _ in seen], [v for _, v in seen]

    def _write(self, key_store: Tensor, value_store: Tensor, lanes: Tensor, keys: Tensor, values: Tensor) -> None:
        key_store[lanes, :, self._positions] = keys.transpose(1, 2)
        value_store[lanes, :, self._positions] = values.transpose(1, 2)

    def _view(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What a pass attends to, as it lies in memory."""
        keys, values = keys[:, :, : self._width], values[:, :, : self._width]
        return keys.transpose(2, 3) if self.keys_across else keys, values

    def _gather(
        self, key_store: Tensor, value_store: Tensor, keys: Tensor, values: Tensor, layer: int
    ) -> tuple[Tensor, Tensor]:
        lanes = self._lane_index[:, 0]
        if layer < len(self._gathered):
            copies = self._gathered[layer]
            self._write(*copies, torch.arange(len(lanes), device=lanes.device)[:, None], keys, values)
        else:
            key_store = key_store[:, :, : self._room]
            # Gathered as it lies in memory: a copy keeps the order of the axes.
            across = self.keys_across
            picked = key_store.transpose(2, 3)[lanes].transpose(2, 3) if across else key_store[lanes]
            copies = picked, value_store[:, :, : self._room][lanes]
            if self._gathered_lanes:
                self._gathered.append(copies)
        return self._view(*copies)

    def forget(self) -> None:
        """Drop the gathered copy."""
        self._gathered, self._gathered_lanes = [], ()

    def _new(self, like: Tensor, *, across: bool) -> Tensor:
        heads, dim = like.shape[1], like.shape[3]
        if across:
            return like.new_zeros(self.lanes, heads, dim, self.capacity).transpose(2, 3)
        return like.new_zeros(self.lanes, heads, self.capacity, dim)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of one lane over another's."""
        self.forget()
        for store in (*self._keys, *self._values):
            store[target, :, :length] = store[source, :, :length]

    def read(self, lane: int, length: int) -> list[Tensor]:
        """The first ``length`` positions of a lane, apart from it."""
        return [store[lane, :, :length].clone() for store in (*self._keys, *self._values)]

    def write(self, lane: int, kept: Sequence[Tensor]) -> None:
        """Fill the beginning of a lane with what was read of another one."""
        self.forget()
        for store, each in zip((*self._keys, *self._values), kept, strict=True):
            store[lane, :, : each.shape[1]] = each

    # ------------------------------------------------------------------ what transformers asks of a cache

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are always passed explicitly, so it decides nothing."""
        return 0

    def get_mask_sizes(self, q_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """How many positions a pass attends to, and the first of them."""
        return self._width, 0

    def get_query_offset(self, layer_idx: int = 0) -> Tensor:
        """The position of each lane's first new token, ``[lanes]``; :func:`mpg.models.attention.lane_mask` reads it."""
        return self._starts


def _runs(lanes: Sequence[int]) -> list[slice] | None:
    """The lanes as at most ``_MAX_RUNS`` ascending contiguous runs, or ``None``."""
    runs: list[slice] = []
    for lane in lanes:
        if runs and runs[-1].stop == lane:
            runs[-1] = slice(runs[-1].start, lane + 1)
        elif len(runs) == _MAX_RUNS:
            return None
        else:
            runs.append(slice(lane, lane + 1))
    return runs
