"""Multi-Personality Generation and Speculative Chunk-level Rejection sampling (arXiv 2511.01891).

>>> from mpg import DecoderSettings, FunctionModel, ModelBank, Request, decode, law

Names are imported on first use, so that ``import mpg`` costs nothing and loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpg.decoding.engine import decode
    from mpg.models.bank import ModelBank
    from mpg.models.errors import BankError
    from mpg.models.functions import FunctionModel
    from mpg.oracle.law import law
    from mpg.request import Completion, Request
    from mpg.settings import UNTOLD, DecoderSettings

__version__ = "0.1.0"

_HOME = {
    "BankError": "mpg.models.errors",
    "Completion": "mpg.request",
    "DecoderSettings": "mpg.settings",
    "FunctionModel": "mpg.models.functions",
    "ModelBank": "mpg.models.bank",
    "Request": "mpg.request",
    "UNTOLD": "mpg.settings",
    "decode": "mpg.decoding.engine",
    "law": "mpg.oracle.law",
}
__all__ = [
    "UNTOLD",
    "BankError",
    "Completion",
    "DecoderSettings",
    "FunctionModel",
    "ModelBank",
    "Request",
    "decode",
    "law",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mpg' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
