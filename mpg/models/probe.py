"""A model's laws before it is taken apart, and after: what loading must not change.

Every model is held against itself when it is loaded, whatever the table of types says: a few tokens of two texts go
through its own ``forward``, one text at a time, before its layers are replaced, and through the engine's pass
afterwards. It costs a few passes over a handful of tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mpg.models.backbone import TransformersBackbone
from mpg.models.errors import BankError

_TOKENS = 8
# Mean total variation. Float32 differs by the order of sums; in 16 bits two passes round differently, and an expert or
# two may change: wrong arithmetic was off by .3 and more.
_MOST = {torch.float32: 1e-3, torch.float64: 1e-6}
_MOST_IN_16_BITS = 0.25


@torch.inference_mode()
def own_laws(model: Any) -> Tensor:
    """The laws after each token of two texts, each alone through the model's ``forward``, ``[2, tokens, vocab]``."""
    passes = [model(input_ids=text[None], use_cache=False).logits[0] for text in _texts(model)]
    return torch.stack(passes).float().softmax(-1)


def check_laws(backbone: TransformersBackbone, own: Tensor, model: str) -> None:
    """Hold the engine's pass over the bare model against ``own``, of :func:`own_laws`, one text begun before the other.

    Raises:
        BankError: it is another law.
    """
    texts, half = _texts(backbone.model), _TOKENS // 2
    session = backbone.session(2, 2 * _TOKENS)
    none = torch.zeros(2, backbone.n_branches - 1, dtype=torch.float64)
    device = texts.device
    starts = torch.tensor([half, 0], device=device)
    hidden = [session.append([0], none[:1], texts[:1, :half], starts[1:])]
    hidden.append(session.append([0, 1], none, torch.stack([texts[0, half:], texts[1, :half]]), starts))
    found = session.logits(torch.cat(hidden)).softmax(-1)  # [3, half, vocab]
    session.close()
    wanted = torch.cat([own[0].view(2, half, -1), own[1:, :half]]).to(found)
    check_numbers(wanted, model, backbone.model.dtype)
    apart = float((found - wanted).abs().sum(-1).mean()) / 2
    most = _MOST.get(backbone.model.dtype, _MOST_IN_16_BITS)
    if not apart <= most:
        raise BankError(
            f"model {model}: the engine's pass draws from another law than the model's own forward, by {apart:.2g} of "
            f"total variation a token (at most {most:g}): its type {backbone.model.config.model_type!r} is not served "
            f"as it is here"
        )


def check_numbers(laws: Tensor, model: str, dtype: torch.dtype) -> None:
    """Raise BankError where a model's laws are none."""
    if not bool(laws.isfinite().all()):
        raise BankError(
            f"model {model}: its logits are not numbers (NaN or infinite): a file is damaged, or {dtype} is too narrow "
            f"for it; fetch it again, or set model.dtype: float32"
        )


def _texts(model: Any) -> Tensor:
    """``[2, tokens]``, from all over the vocabulary."""
    size = model.get_input_embeddings().weight.shape[0]
    places = torch.arange(2 * _TOKENS, device=model.device).view(2, _TOKENS)
    return (places * 7919 + 17) % size
