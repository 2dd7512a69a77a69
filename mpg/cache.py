"""A preallocated KV cache with a length per row, rolled back by moving a pointer.

Keys and values of a token stand at the slot of its position. The engine says where each row's new
tokens begin (``starts``); whatever an earlier, rejected draft left at or behind that point is written
over before anything can attend to it. Nothing is recomputed and nothing is copied on a rollback.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SlotCache:
    """Keys and values of every branch and slot; speaks the ``update`` protocol of transformers' caches.

    Tensors are ``[branches, slots, capacity, kv_heads, head_dim]`` per layer, allocated on first use
    (their shape is the model's own).
    """

    # transformers asks these of a cache that is passed through `past_key_values`.
    is_compileable = False

    def __init__(self, *, branches: int, slots: int, capacity: int) -> None:
        self.branches, self.slots, self.capacity = branches, slots, capacity
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        self._branch_slice = self._slot_slice = slice(0, 0)
        self._index: tuple[Any, ...] = ()
        self._width = 0

    def aim(self, branches: slice, slots: slice, starts: Tensor, n_tokens: int) -> Tensor:
        """Say where the next forward pass writes; returns its attention mask.

        Args:
            branches, slots: contiguous ranges taking part.
            starts: position of each slot's first new token, ``[rows]``.
            n_tokens: new tokens a row.

        Returns:
            ``[rows, 1, n_tokens, width]`` bool: a token sees its own position and all before it.
        """
        positions = starts[:, None] + torch.arange(n_tokens, device=starts.device)  # [rows, tokens]
        self._width = int(positions.max()) + 1
        if self._width > self.capacity:
            raise ValueError(f"cache of {self.capacity} positions is too short for {self._width}")
        self._branch_slice, self._slot_slice = branches, slots
        rows = torch.arange(positions.shape[0], device=starts.device)[:, None]
        self._index = (slice(None), rows, positions)
        seen = torch.arange(self._width, device=starts.device)
        return (seen <= positions[:, :, None])[:, None]

    def update(self, keys: Tensor, values: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write ``[branches * rows, heads, tokens, dim]`` and return all that the pass may attend to."""
        if layer_idx >= len(self._keys):
            shape = (self.branches, self.slots, self.capacity, keys.shape[1], keys.shape[3])
            self._keys.append(keys.new_zeros(shape))
            self._values.append(values.new_zeros(shape[:-1] + values.shape[3:]))
        return self._write(self._keys[layer_idx], keys), self._write(self._values[layer_idx], values)

    def _write(self, store: Tensor, new: Tensor) -> Tensor:
        view = store[self._branch_slice, self._slot_slice]  # [branches, rows, capacity, heads, dim]
        view[self._index] = new.transpose(1, 2).unflatten(0, view.shape[:2])
        return view[:, :, : self._width].flatten(0, 1).transpose(1, 2)  # [branches * rows, heads, width, dim]

    def copy(self, source: int, target: int) -> None:
        """Copy one slot over another: a prompt that is there already, or the last row into a freed slot."""
        for store in (*self._keys, *self._values):
            store[:, target] = store[:, source]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Part of the protocol; positions are always passed explicitly, so it decides nothing."""
        return 0
