"""The forward pass of models built like Llama, with as few operations as it takes.

A pass over a few lanes is bound by the number of operations and not by their size: transformers' own
modules launch about twice as many. Same weights, same numbers up to rounding (``tests/mpg/models/test_lean.py``).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from mpg.models.attention import attend, folded
from mpg.models.cache import LaneCache
from mpg.models.lane_linear import LaneLinears
from mpg.models.positions import RowPositions

# Positions whose turns are computed at a time, at least.
_FEWEST_TURNS = 512


class LlamaPass:
    """Forward passes over a wrapped model's backbone.

    Args:
        model: a transformers causal LM of a type in ``LLAMA_LIKE`` whose linear layers are wrapped.
    """

    def __init__(self, model: Any) -> None:
        base = model.base_model
        self._embed, self._rotary, self._norm = base.embed_tokens, base.rotary_emb, _RmsNorm(base.norm)
        self._layers = [_Layer(layer, index) for index, layer in enumerate(base.layers)]
        self.n_layers = len(self._layers)
        self._by_length = RowPositions.concerns(model)
        self._turns = torch.empty(0, 2, 0)  # cosines and signed sines of positions 0.., [positions, 2, dim]

    def __call__(self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: LaneCache) -> Tensor:
        """Hidden states ``[lanes, time, hidden]`` of ``tokens [lanes, time]`` at ``positions``.

        Args:
            mask: see :meth:`LaneCache.aim`, which was called for this pass.
        """
        return self.norm(self.layers(self.embed(tokens), positions, mask, cache, 0, self.n_layers))

    def embed(self, tokens: Tensor) -> Tensor:
        """``[lanes, time]`` -> ``[lanes, time, hidden]``."""
        x: Tensor = self._embed(tokens)
        return x

    def norm(self, x: Tensor) -> Tensor:
        """What comes after the last layer."""
        return self._norm(x.to(self._norm.device))

    def layers(self, x: Tensor, positions: Tensor, mask: Tensor, cache: LaneCache, first: int, last: int) -> Tensor:
        """The layers from ``first`` up to ``last``, over ``x [lanes, time, hidden]``."""
        turns = self._turns_at(positions, cache.width, x)[..., None, :]  # [lanes, time, 2, 1, dim]
        cos, signed = turns[:, :, 0], turns[:, :, 1]
        if cache.together:
            mask = folded(mask, self._layers[0].groups)
        for layer in self._layers[first:last]:
            if layer.device != x.device:  # of a model that spans several
                x, cos, signed, mask = (each.to(layer.device) for each in (x, cos, signed, mask))
            x = layer(x, cos, signed, mask, cache)
        return x

    def _turns_at(self, positions: Tensor, upto: int, x: Tensor) -> Tensor:
        """Rotary cosines and signed sines at ``positions [lanes, time]``, all before ``upto``."""
        if self._by_length:
            return self._turned(positions, x)
        known = self._turns
        if len(known) < upto or (known.dtype, known.device) != (x.dtype, x.device):
            table = torch.arange(max(upto, 2 * len(known), _FEWEST_TURNS), device=x.device)[None]
            self._turns = self._turned(table, x)[0]
        return self._turns[positions]

    def _turned(self, positions: Tensor, x: Tensor) -> Tensor:
        cos, sin = self._rotary(x, position_ids=positions)  # [lanes, time, dim]
        half = sin.shape[-1] // 2
        return torch.stack([cos, torch.cat([-sin[..., :half], sin[..., half:]], dim=-1)], dim=2)


class _Layer:
    def __init__(self, layer: Any, index: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._index, self._dim, self._scale = index, attention.head_dim, attention.scaling
        self._qkv = _group(attention.q_proj, attention.k_proj, attention.v_proj)
        self._out, self._down = _group(attention.o_proj), _group(mlp.down_proj)
        self._gate_up = _group(mlp.gate_proj, mlp.up_proj)
        self._act = mlp.act_fn
        self._before, self._between = _RmsNorm(layer.input_layernorm), _RmsNorm(layer.post_attention_layernorm)
        self.device = self._before.device
        sizes = self._qkv.sizes
        self._heads, self._kv_heads = sizes[0] // self._dim, sizes[1] // self._dim
        self.groups = self._heads // self._kv_heads

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: LaneCache) -> Tensor:
        x = x + self._attention(self._before(x), cos, sin, mask, cache)
        gate, up = self._gate_up(self._between(x)).chunk(2, dim=-1)
        return x + self._down(self._act(gate).mul_(up))

    def _attention(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, cache: LaneCache) -> Tensor:
        lanes, time, _ = x.shape
        states = self._qkv(x).view(lanes, time, -1, self._dim)  # queries, keys and values head by head
        turned = states[:, :, : self._heads + self._kv_heads]
        first, second = turned.chunk(2, dim=-1)
        # Rotary positions (Su et al. 2021): x cos + (-x2, x1) sin; keys stay beside their values where both are written
        # at once.
        out = turned if cache.together else None
        turned = torch.addcmul(turned * cos, torch.cat([second, first], dim=-1), sin, out=out)
        query, key = turned.transpose(1, 2).split([self._heads, self._kv_heads], dim=1)
        if cache.together:
            keys, values = cache.update_together(states[:, :, self._heads :], self._index)
        else:
            keys, values = cache.update(key, states[:, :, self._heads + self._kv_heads :].transpose(1, 2), self._index)
        return self._out(attend(query, keys, values, mask, self._scale, across=cache.keys_across).view(lanes, time, -1))


def _group(*layers: Any) -> LaneLinears:
    """The group that layers were wrapped into together."""
    group: LaneLinears = layers[0].group
    assert all(layer.group is group for layer in layers)
    return group


class _RmsNorm:
    """Root mean square normalisation (Zhang and Sennrich 2019).

    torch has one kernel for it on a GPU and a chain of eight on a CPU, but one for layer normalisation there; of
    ``[x, -x]``, whose mean is 0 and whose variance is the mean square of x, the two are the same.
    """

    def __init__(self, norm: Any) -> None:
        self._weight, self._epsilon = norm.weight.detach(), norm.variance_epsilon
        self.device = self._weight.device
        self._twice = torch.cat([self._weight, self._weight]) if self._weight.device.type == "cpu" else None

    def __call__(self, x: Tensor) -> Tensor:
        size = self._weight.shape[0]
        if self._twice is None:
            return F.rms_norm(x, (size,), self._weight, self._epsilon)
        return F.layer_norm(torch.cat([x, -x], dim=-1), (2 * size,), self._twice, None, self._epsilon)[..., :size]
