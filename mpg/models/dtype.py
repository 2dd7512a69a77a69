"""The number format that models are loaded in."""

from __future__ import annotations


def pick_dtype(wanted: str) -> str:
    """``float32`` or ``bfloat16``; ``auto`` takes bfloat16 where the hardware computes in it.

    The choice follows from the machine's capabilities, not from a timing, so that it is the same on
    every start. It is part of every row's identity.
    """
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return "bfloat16" if flags.get("avx512_bf16") or flags.get("amx_bf16") else "float32"
