"""Log-policies in memory that is used again."""

from __future__ import annotations

import torch
from torch import Tensor

from mpg.laws.logspace import checked, divisor


class Workspace:
    """Log-policies in one place of memory: what a call returns lasts until the next call.

    For the lines of a large vocabulary the system hands out fresh pages each time, which costs more than
    the numbers do.
    """

    def __init__(self) -> None:
        self._scaled = self._out = torch.empty(0, 0)

    def log_policy(self, logits: Tensor, temperature: float | Tensor, *, check: bool = True) -> Tensor:
        """See :func:`mpg.laws.logspace.log_policy`; ``[rows, vocab]``.

        Args:
            check: whether to look at once if they are numbers, which waits for a device.
        """
        logits = logits if logits.dtype == torch.float64 else logits.float()
        shape, wanted = self._out.shape, (logits.dtype, logits.device, logits.shape[1])
        if (self._out.dtype, self._out.device, shape[1]) != wanted or shape[0] < len(logits):
            self._out = torch.empty_like(logits)
        out = self._out[: len(logits)]
        by = divisor(temperature, logits)
        if by is not None:
            logits = torch.div(logits, by, out=self._scaled_like(out))
        torch.log_softmax(logits, -1, out=out)
        return checked(out) if check else out

    def _scaled_like(self, out: Tensor) -> Tensor:
        known = (self._scaled.dtype, self._scaled.device, self._scaled.shape[1])
        if known != (out.dtype, out.device, out.shape[1]) or len(self._scaled) < len(out):
            self._scaled = torch.empty_like(self._out)
        return self._scaled[: len(out)]
