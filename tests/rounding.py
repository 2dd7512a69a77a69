"""A backbone whose last digits depend on the number of threads and on the shape of a pass, on any processor.

Some processors' matrix products do so; on others nothing would notice that a data set is not computed with what was
decided for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mpg import ModelBank
from mpg.models.backbone import BackboneSession

# Relative: some thirty times the rounding of a float32.
STEP = 2.0**-19


def rounding_bank(*args: Any, **kwargs: Any) -> ModelBank:
    """:meth:`mpg.ModelBank.load`, with backbones that round as described."""
    bank = ModelBank.load(*args, **kwargs)
    bank.backbones = tuple(RoundingBackbone(backbone) for backbone in bank.backbones)
    return bank


class RoundingBackbone:
    """Another backbone, rounded."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.n_branches, self.device = inner, inner.n_branches, inner.device

    def session(self, lanes: int, capacity: int) -> RoundingSession:
        return RoundingSession(self.inner.session(lanes, capacity))


class RoundingSession:
    """The states of each pass, scaled by a factor that its shape and the threads decide."""

    def __init__(self, inner: BackboneSession) -> None:
        self._inner = inner
        self.logits, self.close = inner.logits, inner.close
        self.copy, self.read, self.write = inner.copy, inner.read, inner.write

    def append(
        self, lanes: Sequence[int], mixes: Tensor, tokens: Tensor, starts: Tensor, extents: Tensor | None = None
    ) -> Tensor:
        hidden = self._inner.append(lanes, mixes, tokens, starts, extents)
        shape = 7 * torch.get_num_threads() + 3 * len(lanes) + tokens.shape[1]
        return hidden * (1 + STEP * (shape % 11))
