"""From hidden states to logits: the vocabulary head in float32, and what a model's own ``forward`` does after it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mpg.models.errors import BankError
from mpg.models.lane_linear import MatMul
from mpg.models.own_pass import body_of


class Head:
    """Next-token logits of hidden states, float32 (float64 stays).

    A law read off logits in bfloat16 is off by about .01 a token, whatever the hidden states: logits of 20 are kept to
    .06. So products of bfloat16 numbers are summed and kept in float32.

    What comes after the head (Granite divides by ``logits_scaling``, Cohere multiplies by ``logit_scale``, Gemma caps)
    is no list here: the model's own ``forward`` runs, with its layers replaced by the hidden states that are at hand.

    Args:
        model: a transformers causal LM.
        bare: whether its ``forward`` is known to do nothing after the head: then it is not asked.

    Raises:
        BankError: a model without a vocabulary head of its own, or with its layers elsewhere.
    """

    def __init__(self, model: Any, *, bare: bool) -> None:
        head = model.get_output_embeddings()
        if not isinstance(head, nn.Linear):
            raise BankError(f"model type {model.config.model_type!r}: its vocabulary head is no linear layer")
        self.n_tokens, self._linear = head.out_features, Float32Linear(head.weight.detach(), head.bias)
        self._device = head.weight.device
        self._forward: Any = None if bare else self._own_forward(model, head)

    def _own_forward(self, model: Any, head: nn.Module) -> Any:
        body, names = body_of(model), {module: name for name, module in model.named_children()}
        if head not in names:
            raise BankError(f"model type {model.config.model_type!r}: its head lies where none is looked for")
        self._given = _Given()
        forward = copy.copy(model)
        object.__setattr__(forward, "_modules", dict(model._modules))
        forward._modules |= {names[head]: self._linear, names[body]: self._given}
        return forward

    def __call__(self, hidden: Tensor) -> Tensor:
        """``[..., hidden]`` -> ``[..., vocab]``."""
        if hidden.device != self._device:  # of a model that spans several
            return self(hidden.to(self._device)).to(hidden.device)
        if self._forward is None:
            return self._linear(hidden)
        self._given.hidden = hidden.reshape(-1, 1, hidden.shape[-1])
        nothing = torch.zeros(self._given.hidden.shape[:2], dtype=torch.long, device=hidden.device)
        logits: Tensor = self._forward(input_ids=nothing, use_cache=False).logits
        return logits.view(*hidden.shape[:-1], -1)


class _Given(nn.Module):
    """Stands where a model's layers stood, and answers with given hidden states."""

    hidden: Tensor

    @property
    def decoder(self) -> _Given:  # OPT and its like ask for it
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutputWithPast

        class Output(BaseModelOutputWithPast):
            def __getattr__(self, name: str) -> None:
                if name.startswith("__"):
                    raise AttributeError(name)

        return Output(last_hidden_state=self.hidden)


class Float32Linear(nn.Module):
    """``x W^T + bias`` with sums and outputs in float32 whatever the weights are kept in."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self._dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        self._bias = None if bias is None else bias.detach().to(self._dtype)
        halves = weight.dtype in (torch.bfloat16, torch.float16)
        self._low = weight if halves and _sums_in_float32(weight) else None
        self._full = None if self._low is not None else MatMul(weight.to(self._dtype), self._bias, pack=halves)

    def forward(self, x: Tensor) -> Tensor:
        """``x [..., in]`` -> ``[..., out]``."""
        if self._full is not None:
            return self._full(x.to(self._dtype))
        assert self._low is not None
        flat = x.reshape(-1, x.shape[-1]).to(self._low.dtype)
        out = torch.mm(flat, self._low.T, out_dtype=torch.float32)
        return (out if self._bias is None else out + self._bias).view(*x.shape[:-1], -1)


def _sums_in_float32(weight: Tensor) -> bool:
    """Whether the device multiplies numbers of this kind into float32, without a copy of the weights."""
    one = weight.new_ones(8, 8)
    try:
        return bool(torch.mm(one, one, out_dtype=torch.float32).dtype == torch.float32)
    except (NotImplementedError, RuntimeError, TypeError):
        return False
