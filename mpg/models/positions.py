"""Rotary positions that depend on how long a text is, row by row.

Two kinds of positions change their frequencies with the length of what a model reads: ``longrope`` (Phi-3) has one set
up to the length it was first trained at and another beyond, ``dynamic`` stretches them as a text grows. transformers
looks at the longest row of a pass: one long row would change the texts of all others. And what lies in a cache was
turned by the frequencies of its time.

Here a row has the frequencies of its own *extent*, prompt and longest response together, from its first token to its
last: those that transformers' ``forward`` takes over a text of that length. So they depend on nothing but the row's
prompt and settings. A row that may cross the border is read with the frequencies beyond it from its first token on.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


class RowPositions:
    """The rotary embeddings of a model, made to look at each row's own extent.

    Args:
        model: a transformers model; the ``forward`` of its rotary embeddings is replaced, in place.
    """

    def __init__(self, model: nn.Module) -> None:
        self._extents = torch.empty(0, dtype=torch.long)
        self._stretched, self._border = False, 0
        for module in _rotary(model):
            self._stretched |= any("dynamic" in kind for kind in _kinds(module).values())
            self._border = max(self._border, _border(module))
            module.forward = partial(self._forward, module, module.forward)

    @classmethod
    def of(cls, model: nn.Module) -> RowPositions | None:
        """``None``: no length changes anything."""
        return cls(model) if cls.concerns(model) else None

    @staticmethod
    def concerns(model: nn.Module) -> bool:
        """Whether lengths change anything; otherwise a position is turned alike in every text."""
        return bool(_rotary(model))

    def frequencies(self, extent: int) -> int:
        """The same number for extents that are read with the same frequencies."""
        return max(extent, self._border) if self._stretched else self._border + (extent > self._border)

    def set(self, extents: Tensor) -> None:
        """Of the running pass's lanes, ``[lanes]``."""
        least = torch.full_like(extents, self._border)
        self._extents = torch.maximum(extents, least) if self._stretched else least + (extents > least)

    def _forward(
        self, module: Any, forward: Any, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, ...] | Tensor:
        """See a rotary embedding's own: cosines and sines, or complex numbers, ``[lanes, time, dim]``."""
        out: list[Tensor] | None = None
        position_ids = position_ids.expand(len(self._extents), -1)  # transformers' own pass has one line for all
        for extent in self._extents.unique().tolist():
            lanes = (self._extents == extent).nonzero()[:, 0]
            positions = position_ids[lanes]
            if self._stretched or extent <= self._border:
                # Drafts past a row's longest response, which nobody keeps, and padding must not look like a long text.
                positions = positions.clamp_max(extent - 1)
            last = positions.new_full((len(lanes), 1), extent - 1)  # what tells the module how long the text is
            _forget_lengths(module)
            turned = forward(x, torch.cat([positions, last], dim=1), *args, **kwargs)
            found = [turned] if isinstance(turned, Tensor) else turned
            if out is None:
                out = [each.new_empty(*position_ids.shape, each.shape[-1]) for each in found]
            for every, each in zip(out, found, strict=True):
                every[lanes] = each[:, :-1]
        assert out is not None
        return out[0] if isinstance(turned, Tensor) else tuple(out)


@contextmanager
def each_by_its_length(model: nn.Module, lengths: Tensor) -> Iterator[None]:
    """Inside, a pass over padded rows reads each as a text of its own length ``[rows]``."""
    modules, positions = _rotary(model), RowPositions.of(model)
    if positions is not None:
        positions.set(lengths)
    try:
        yield
    finally:
        for module in modules:
            del module.forward  # the class's own again


def max_positions_of(config: Any) -> int | None:
    """Positions that a model takes; ``None``: it does not say."""
    text = config.get_text_config()
    return getattr(text, "max_position_embeddings", None) or getattr(text, "max_seq_len", None)  # MPT's word for it


def learned_positions(config: Any) -> int | None:
    """Positions that a model has a table of; ``None``: they are computed, however far."""
    text = config.get_text_config()
    return max_positions_of(config) if getattr(text, "rope_parameters", None) is None else None


def _rotary(model: nn.Module) -> list[Any]:
    """The rotary embeddings whose frequencies depend on lengths."""
    found = [module for module in model.modules() if hasattr(module, "rope_type")]
    return [each for each in found if any("dynamic" in k or k == "longrope" for k in _kinds(each).values())]


def _kinds(module: Any) -> dict[str | None, str]:
    """Kind of layers -> kind of positions; key ``None``: of all layers."""
    return dict(module.rope_type) if isinstance(module.rope_type, dict) else {None: module.rope_type}


def _border(module: Any) -> int:
    """The longest text that is read with the frequencies of short ones."""
    borders = []
    for layer, kind in _kinds(module).items():
        parameters = module.config.rope_parameters if layer is None else module.config.rope_parameters[layer]
        if kind == "longrope":
            borders.append(int(parameters["original_max_position_embeddings"]))
        elif "dynamic" in kind:
            borders.append(int(module.original_max_seq_len))
    return max(borders)


def _forget_lengths(module: Any) -> None:
    """A ``dynamic`` module remembers the longest text that it has read: take that back."""
    for layer, kind in _kinds(module).items():
        if "dynamic" in kind:
            prefix = "" if layer is None else f"{layer}_"
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
            setattr(module, f"{prefix}inv_freq", getattr(module, f"{prefix}original_inv_freq"))
