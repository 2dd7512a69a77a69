"""Log-policies in memory that is used again."""

from __future__ import annotations

import torch
from torch import Tensor

from mpg.laws.logspace import checked


class Workspace:
    """Log-policies in one place of memory: what a call returns lasts until the next call.

    For the lines of a large vocabulary the system hands out fresh pages each time, which costs more than
    the numbers do.
    """

    def __init__(self) -> None:
        self._scaled = self._out = torch.empty(0, 0)

    def log_policy(self, logits: Tensor, temperature: float) -> Tensor:
        """See :func:`mpg.laws.logspace.log_policy`; ``[rows, vocab]``."""
        dtype = logits.dtype if logits.dtype == torch.float64 else torch.float32
        shape, wanted = self._out.shape, (dtype, logits.device, logits.shape[1])
        if (self._out.dtype, self._out.device, shape[1]) != wanted or shape[0] < len(logits):
            self._scaled = torch.empty(logits.shape, dtype=dtype, device=logits.device)
            self._out = torch.empty_like(self._scaled)
        scaled, out = self._scaled[: len(logits)], self._out[: len(logits)]
        scaled.copy_(logits)
        if temperature != 1.0:
            scaled.div_(temperature)
        return checked(torch.log_softmax(scaled, -1, out=out))
