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

from mpg.models.sending import sent

# More contiguous runs than this are gathered into one copy: a kernel call a run would cost more.
_MAX_RUNS = 2
# Positions that a copy gathered for drafting has room for beyond those in use: drafting goes on in it.
_DRAFTS_AHEAD = 16
# Widths on a device are multiples of it: they stay for so many tokens, and additive masks lie aligned.
WIDTH_STEP = 64
# Sets of lanes that are fed in turns: their indices stay on the device.
_MOST_INDICES = 16


class LaneCache:
    """Keys and values of every lane; speaks the ``update`` protocol of transformers' caches.

    Tensors are ``[lanes, kv_heads, capacity, head_dim]`` per layer, allocated on first use (their shape
    is the model's own). A pass over one or two contiguous runs of lanes attends to views of them, any
    other to a copy, which is kept while the same lanes are fed token by token.

    On a CPU a pass is as wide as its longest lane. A device is never asked how long that is, where the caller knows a
    bound, and looks at more than it must.

    Args:
        lanes, capacity: how many, of how many positions.
        dtype: of the model.
        keys_across: whether the last two axes of keys are exchanged.
        joined: whether ``update`` answers with one tensor each, ``[lanes, kv_heads, width, dim]``, as transformers'
            own caches do and attention that looks at it wants; then ``keys_across`` must be False.
        first_layer: of the model's, the first that is kept here.
        together: whether a layer's keys and values lie in one tensor, ``[lanes, capacity, 2 * kv_heads, head_dim]``:
            :meth:`update_together` writes both at once. Then ``keys_across`` must be False.
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
        together: bool = False,
    ) -> None:
        self.lanes, self.capacity, self.keys_across = lanes, capacity, keys_across
        self._dtype, self._joined, self.first_layer, self.together = dtype, joined, first_layer, together
        self._keys: list[Tensor] = []  # as values, whatever their order in memory
        self._values: list[Tensor] = []
        self._both: list[Tensor] = []  # where they lie together
        self._indices: dict[tuple[int, ...], Tensor] = {}
        self._runs: list[slice] | None = None
        self._gathered: list[tuple[Tensor, Tensor]] = []  # per layer, of `_gathered_lanes`
        self._gathered_lanes: tuple[int, ...] = ()
        self._room = 0
        self._lane_index = self._positions = self._starts = torch.empty(0, dtype=torch.long)
        # By device, since layers may lie on several: the pass's lanes and positions, and
        self._on: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._flat: dict[torch.device, Tensor] = {}  # what it writes, in `_both` seen as [lanes * capacity, ..]
        self._flat_gathered: dict[torch.device, Tensor] = {}
        self.width = 0  # key positions that a pass attends to

    def holds(self, lanes: int, capacity: int) -> bool:
        """Whether so many lanes of so many positions have room."""
        return self.lanes >= lanes and self.capacity >= capacity

    def aim(self, lanes: Sequence[int], starts: Tensor, n_tokens: int, reach: int | None = None) -> Tensor:
        """Say where the next forward pass writes; returns its attention mask.

        Args:
            lanes: those taking part, in the order of the pass's batch.
            starts: position of each lane's first new token, ``[lanes]``.
            n_tokens: new tokens a lane.
            reach: all new tokens lie before this position; ``None``: nobody knows, so ``starts`` is asked.

        Returns:
            what is added to attention scores, ``[lanes, 1, n_tokens, width]``: 0 where a token sees (its
            own position and all before it), else -inf.

        Raises:
            ValueError: they reach beyond the capacity.
        """
        device = starts.device
        positions = starts[:, None]  # [lanes, tokens]
        if n_tokens > 1:
            positions = positions + torch.arange(n_tokens, device=device)
        self.width = self._width_for(positions, reach)
        self._runs = _runs(lanes)
        if n_tokens > 1 or self._runs or tuple(lanes) != self._gathered_lanes or self.width > self._room:
            self.forget()
            if n_tokens == 1 and not self._runs:
                self._gathered_lanes = tuple(lanes)
            ahead = _DRAFTS_AHEAD if self._gathered_lanes and device.type == "cpu" else 0
            self._room = min(self.capacity, self.width + ahead)
        self._lane_index = self._index_of(lanes, device)[:, None]
        self._positions, self._starts = positions, starts
        self._on, self._flat, self._flat_gathered = {}, {}, {}
        hidden = torch.arange(self.width, device=device) > positions[:, :, None]
        zero = torch.zeros((), dtype=self._dtype, device=device)
        return zero.masked_fill(hidden, -torch.inf)[:, None]

    def _width_for(self, positions: Tensor, reach: int | None) -> int:
        on_cpu = positions.device.type == "cpu"
        if reach is None or on_cpu:
            reach = int(positions.max()) + 1
        if reach > self.capacity:
            raise ValueError(f"cache of {self.capacity} positions is too short for {reach}")
        return reach if on_cpu else min(self.capacity, -(-reach // WIDTH_STEP) * WIDTH_STEP)

    def _index_of(self, lanes: Sequence[int], device: torch.device) -> Tensor:
        """Lanes as a tensor, which is sent to a device once."""
        key = tuple(lanes)
        if key not in self._indices:
            if len(self._indices) == _MOST_INDICES:
                self._indices.clear()
            self._indices[key] = sent(lanes, device)
        return self._indices[key]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write ``[lanes, heads, tokens, dim]``; per run, all that it may attend to."""
        layer_idx -= self.first_layer
        if layer_idx >= len(self._keys):
            self._keys.append(self._new(keys, across=self.keys_across))
            self._values.append(self._new(values, across=False))
        key_store, value_store = self._keys[layer_idx], self._values[layer_idx]
        self._write(key_store, value_store, *self._aimed_on(keys.device), keys, values)
        given = key_store, value_store, keys, values, layer_idx
        seen = self._seen(layer_idx) if self._runs else [self._gather(*given)]
        if self._joined:
            k, v = (torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*seen, strict=True))
            return k, v
        return [k for k, _ in seen], [v for _, v in seen]

    def update_together(self, both: Tensor, layer_idx: int) -> tuple[list[Tensor], list[Tensor]]:
        """The same for keys and values side by side, ``[lanes, tokens, 2 * kv_heads, dim]``, written at once."""
        layer = layer_idx - self.first_layer
        kv_heads, dim = both.shape[2] // 2, both.shape[3]
        if layer >= len(self._both):
            store = both.new_zeros(self.lanes, self.capacity, 2 * kv_heads, dim)
            self._both.append(store)
            self._keys.append(store[:, :, :kv_heads].transpose(1, 2))
            self._values.append(store[:, :, kv_heads:].transpose(1, 2))
        store, fresh = self._both[layer], both.flatten(0, 1)
        if both.device not in self._flat:
            lanes, positions = self._aimed_on(both.device)
            self._flat[both.device] = (lanes * self.capacity + positions).flatten()
        store.view(-1, *store.shape[2:]).index_copy_(0, self._flat[both.device], fresh)
        seen = self._seen(layer) if self._runs else [self._gather_together(store, fresh, layer)]
        return [k for k, _ in seen], [v for _, v in seen]

    def _seen(self, layer: int) -> list[tuple[Tensor, Tensor]]:
        return [self._view(self._keys[layer][run], self._values[layer][run]) for run in self._runs or ()]

    def _gather_together(self, store: Tensor, fresh: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        if layer < len(self._gathered):
            copied = self._gathered[layer][0]
            device = copied.device
            if device not in self._flat_gathered:
                first = torch.arange(0, len(copied) * self._room, self._room, device=device)
                self._flat_gathered[device] = (first[:, None] + self._aimed_on(device)[1]).flatten()
            copied.view(-1, *copied.shape[2:]).index_copy_(0, self._flat_gathered[device], fresh)
        else:
            copied = store[:, : self._room].index_select(0, self._aimed_on(store.device)[0][:, 0])
            if self._gathered_lanes:
                self._gathered.append((copied, copied))
        keys, values = copied.transpose(1, 2).chunk(2, dim=1)
        return self._view(keys, values)

    def _aimed_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The pass's lanes ``[lanes, 1]`` and positions ``[lanes, tokens]``, on a layer's device."""
        if device not in self._on:
            self._on[device] = self._lane_index.to(device), self._positions.to(device)
        return self._on[device]

    def _write(
        self, key_store: Tensor, value_store: Tensor, lanes: Tensor, positions: Tensor, keys: Tensor, values: Tensor
    ) -> None:
        key_store[lanes, :, positions] = keys.transpose(1, 2)
        value_store[lanes, :, positions] = values.transpose(1, 2)

    def _view(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """What a pass attends to, as it lies in memory."""
        keys, values = keys[:, :, : self.width], values[:, :, : self.width]
        return keys.transpose(2, 3) if self.keys_across else keys, values

    def _gather(
        self, key_store: Tensor, value_store: Tensor, keys: Tensor, values: Tensor, layer: int
    ) -> tuple[Tensor, Tensor]:
        index, positions = self._aimed_on(keys.device)
        lanes = index[:, 0]
        if layer < len(self._gathered):
            copies = self._gathered[layer]
            self._write(*copies, torch.arange(len(lanes), device=lanes.device)[:, None], positions, keys, values)
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
        for store in self._both:
            store[target, :length] = store[source, :length]
        for store in () if self._both else (*self._keys, *self._values):
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
        return self.width, 0

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
