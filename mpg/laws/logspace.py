"""Logits to normalised log-probabilities: pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


class NotNumbersError(FloatingPointError):
    """A model's logits are not numbers.

    Attributes:
        line: the first line of the log-policies that is no law.
        whose: the model in words, and ``slot``: the row's place, and ``request``: its index, as far as known.
    """

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line
        self.whose = "a model"
        self.slot = self.request = -1

    @property
    def why(self) -> str:
        """What went wrong, without the request that it befell."""
        return (
            f"{self.whose}: its logits are not numbers (NaN or infinite): nothing can be drawn from them; "
            "set model.dtype to float32, and look for a damaged model or adapter"
        )

    def __str__(self) -> str:
        return self.why if self.request < 0 else f"request {self.request}: {self.why}"


def log_policy(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Normalised log-probabilities at a temperature, float32 (float64 stays) ``[..., vocab]``.

    Args:
        temperature: one for all, or one a line, ``[lines]``.

    Raises:
        NotNumbersError: logits that are not numbers.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    by = divisor(temperature, logits)
    return checked((logits if by is None else logits / by).log_softmax(-1))


def divisor(temperature: float | Tensor, logits: Tensor) -> float | Tensor | None:
    """What ``logits [lines, vocab]`` are divided by; ``None``: by nothing."""
    if not isinstance(temperature, Tensor):
        return None if temperature == 1.0 else temperature
    return temperature.to(logits)[:, None] if temperature.dim() else temperature


def broken_lines(log_policies: Tensor) -> Tensor:
    """Which of ``log_policies [.., vocab]`` are no laws, see :func:`checked`."""
    return log_policies[..., 0].isnan()


def checked(log_policies: Tensor) -> Tensor:
    """Log-policies as they are, checked: one NaN among a line's logits, or no finite one, makes every entry of it NaN.

    Raises:
        NotNumbersError: a line is not a law.
    """
    broken = broken_lines(log_policies)
    if bool(broken.any()):
        raise NotNumbersError(int(broken.flatten().nonzero()[0]))
    return log_policies
