"""The forward pass through transformers' own modules, over a lane cache."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from mpg.models.attention import use_lane_attention
from mpg.models.cache import LaneCache
from mpg.models.errors import BankError


class OwnPass:
    """Forward passes over a model's layers, as transformers wrote them.

    Masks are built by the model itself, for the kinds of layers that it has, from where each lane's tokens stand. A
    model that attends in a way of its own, past transformers' attention interface, is handed a causal mask.

    Args:
        model: a transformers causal LM; its attention is changed in place where it can be.
    """

    def __init__(self, model: Any) -> None:
        self._body: Any = body_of(model)
        self._masked = not use_lane_attention(model)

    def __call__(self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: LaneCache) -> Tensor:
        """See :meth:`mpg.models.lean.LlamaPass.__call__`."""
        more = {"attention_mask": mask} if self._masked else {}
        output = self._body(
            input_ids=tokens, position_ids=positions, past_key_values=cache, use_cache=True, return_dict=True, **more
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


def body_of(model: Any) -> nn.Module:
    """A causal LM without its vocabulary head. Raises BankError: it has none that could be told from the rest."""
    body: nn.Module = model.get_submodule(body_name(model))
    return body


def body_name(model: Any) -> str:
    """The name of a causal LM's part that is all but its vocabulary head. Raises BankError, see :func:`body_of`."""
    from transformers import PreTrainedModel

    bodies = [name for name, module in model.named_children() if isinstance(module, PreTrainedModel)]
    if len(bodies) != 1:
        raise BankError(f"model type {model.config.model_type!r}: its layers lie where none are looked for")
    return bodies[0]
