"""Logits to normalised log-probabilities: pure functions."""

from __future__ import annotations

import torch
from torch import Tensor


def log_policy(logits: Tensor, temperature: float) -> Tensor:
    """Normalised log-probabilities at a temperature, float32 (float64 stays) ``[..., vocab]``.

    Raises:
        FloatingPointError: logits that are not numbers.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return checked((logits if temperature == 1.0 else logits / temperature).log_softmax(-1))


def checked(log_policies: Tensor) -> Tensor:
    """Log-policies as they are, checked: one NaN among a line's logits, or no finite one, makes every entry of it NaN.

    Raises:
        FloatingPointError: a line is not a law.
    """
    if bool(log_policies[..., 0].isnan().any()):
        raise FloatingPointError(
            "a model's logits are not numbers (NaN or infinite): nothing can be drawn from them; "
            "set model.dtype to float32, and look for a damaged model or adapter"
        )
    return log_policies
