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


class LaneCache:
    """Keys and values of every lane; speaks the ``update`` protocol of transformers' caches.

    Tensors are ``[lanes, kv_heads, capacity, head_dim]`` per layer, allocated on first use (their shape
    is the model's own). A pass over one or two contiguous runs of lanes attends to views of them.
    """

    # transformers asks these of a cache that is passed through `past_key_values`.
    is_compileable = False

    def __init__(self, *, lanes: int, capacity: int) -> None:
        self.lanes, self.capacity = lanes, capacity
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._runs: list[slice] | None = None
        self._lane_index = self._positions = torch.empty(0, dtype=torch.long)
        self._width = 0

    def aim(self, lanes: Sequence[int], starts: Tensor, n_tokens: int) -> Tensor:
        """Say where the next forward pass writes; returns its attention mask.

        Args:
            lanes: those taking part, in the order of the pass's batch.
            starts: position of each lane's first new token, ``[lanes]``.
            n_tokens: new tokens a lane.

        Returns:
            ``[lanes, 1, n_tokens, width]`` bool: a token sees its own position and all before it.
        """
        positions = starts[:, None] + torch.arange(n_tokens, device=starts.device)  # [lanes, tokens]
        self._width = int(positions.max()) + 1
        if self._width > self.capacity:
            raise ValueError(f"cache of {self.capacity} positions is too short for {self._width}")
        self._runs = _runs(lanes)
        self._lane_index = torch.tensor(lanes, device=starts.device)[:, None]
        self._positions = positions
        seen = torch.arange(self._width, device=starts.device)
        return (seen <= positions[:, :, None])[:, None]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        """Write ``[lanes, heads, tokens, dim]``; per run, all that it may attend to."""
        if layer_idx >= len(self._keys):
            shape = (self.lanes, keys.shape[1], self.capacity, keys.shape[3])
            self._keys.append(keys.new_zeros(shape))
            self._values.append(values.new_zeros(shape[:-1] + values.shape[3:]))
        return self._write(self._keys[layer_idx], keys), self._write(self._values[layer_idx], values)

    def _write(self, store: Tensor, new: Tensor) -> list[Tensor]:
        store[self._lane_index, :, self._positions] = new.transpose(1, 2)
        if self._runs is None:
            return [store[self._lane_index[:, 0], :, : self._width]]
        return [store[run, :, : self._width] for run in self._runs]  # each [lanes, heads, width, dim]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of one lane over another's."""
        for store in (*self._keys, *self._values):
            store[target, :, :length] = store[source, :, :length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Part of the protocol; positions are always passed explicitly, so it decides nothing."""
        return 0


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
