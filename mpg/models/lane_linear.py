"""Linear layers over shared weights: every lane of a pass has its own mix of adapters.

The big base matmul runs once over all lanes, and with it the low ranks of all adapters side by side; a
lane's *mix* (one coefficient per adapter) decides which of them count. All zeros is the bare model,
one-hot an adapter, anything else a weighted sum of deltas (a "soup").
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpg.models.adapter_files import Lora, check_fit, linear_shape
from mpg.models.errors import AdapterError, BankError
from mpg.models.sending import moved

# Batch size that packed weights are laid out for: a hint, any other gives the same numbers.
_PACK_HINT = 32
# Mixes of passes that come in turns, remembered; a GPU multiplies by matrices whose sides are multiples of it.
_MOST_MIXES, _ALIGNED = 16, 8
# Layers that models of the Llama family call on one input, in the order of the calls.
_SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass
class _Coefficients:
    """What a pass's mixes are to the layers.

    Attributes:
        adapters: each adapter's, ``[lanes, time or 1, adapters]``.
        ranks: the same once for each of its ranks, ``[lanes, time or 1, sum of ranks]``.
        zero_one: whether all are 0 or 1, as outside soups.
        repeated: for so many layers side by side, an input's shape, a width and a device: the mix, and where it is 0.
    """

    adapters: Tensor
    ranks: Tensor
    zero_one: bool
    repeated: dict[tuple[int, torch.Size, int, torch.device], tuple[Tensor, Tensor]] = field(default_factory=dict)


class Mix:
    """The running pass's coefficients, shared by all layers of a model.

    Args:
        loras: the model's adapters; ``device``, ``dtype``: of its weights.
    """

    def __init__(self, loras: Sequence[Lora], device: torch.device, dtype: torch.dtype) -> None:
        self._ranks = torch.tensor([lora.rank for lora in loras], dtype=torch.long)
        self._to: dict[str, Any] = {"device": device, "dtype": dtype}
        self._known: dict[tuple[bytes, torch.Size, int], _Coefficients | None] = {}
        self._now: _Coefficients | None = None
        self._time = 1

    @property
    def is_bare(self) -> bool:
        """Whether no adapter counts in the running pass."""
        return self._now is None

    def set(self, mixes: Tensor, time: int) -> None:
        """For a pass of ``time`` tokens a lane.

        Args:
            mixes: each adapter's in each lane, ``[lanes, adapters]``, or token by token, ``[lanes, time, adapters]``;
                on the host. The same again costs a device nothing.
        """
        key = mixes.numpy().tobytes(), mixes.shape, time
        if key not in self._known:
            if len(self._known) == _MOST_MIXES:
                self._known.clear()
            self._known[key] = self._coefficients(mixes)
        self._now, self._time = self._known[key], time
        if self._now is not None and time > 1:  # of many shapes, and large: for this pass alone
            self._now.repeated.clear()

    def _coefficients(self, mixes: Tensor) -> _Coefficients | None:
        if not mixes.any():
            return None
        wide = mixes if mixes.ndim == 3 else mixes[:, None]
        ranks = moved(wide.repeat_interleave(self._ranks, dim=-1), **self._to)
        return _Coefficients(wide, ranks, bool(((mixes == 0) | (mixes == 1)).all()))

    def apply(self, low: Tensor, times: int, x: Tensor) -> Tensor:
        """``mix * low`` in place, of as many layers side by side over an input, ``[..., times * sum of ranks]``.

        An adapter that a lane has no share in is left out of it, not multiplied by 0, which would make NaN of what
        overflows there: a broken adapter costs the rows that use it.
        """
        assert self._now is not None
        now, width = self._now, low.shape[-1]
        key = times, x.shape, width, x.device
        if key not in now.repeated:  # a layer of a pass looks it up: there are hundreds
            wide = now.ranks.to(x.device).repeat(1, 1, times)
            mix = self._spread(F.pad(wide, (0, width - wide.shape[-1])), x)
            now.repeated[key] = mix, mix == 0
        mix, off = now.repeated[key]
        low = low.masked_fill_(off, 0.0)
        return low if now.zero_one else low.mul_(mix)

    def adapters(self, x: Tensor) -> Tensor:
        """``[lanes, time or 1, adapters]``, over an input."""
        assert self._now is not None
        if self._now.adapters.device != self._to["device"]:
            self._now.adapters = moved(self._now.adapters, **self._to)
        self._now.adapters = self._now.adapters.to(self._to["dtype"])
        return self._spread(self._now.adapters.to(x.device), x)

    def _spread(self, wide: Tensor, x: Tensor) -> Tensor:
        """To stand beside an input, of whatever shape a model gives it: ``[lanes, time, ..., in]``, or flat over both.

        Raises:
            BankError: some of the pass's tokens only, as an expert sees them: nobody says here which.
        """
        lanes, _, width = wide.shape
        if x.ndim > 2 and x.shape[0] == lanes:
            if wide.shape[1] == 1:
                return wide.view(lanes, *[1] * (x.ndim - 2), width)
            if self._time in x.shape[1:3]:  # [lanes, time, ...], or with an axis of one before it
                before = 0 if x.shape[1] == self._time else 1
                if before == 0 or x.shape[1] == 1:
                    return wide.view(lanes, *[1] * before, self._time, *[1] * (x.ndim - 3 - before), width)
        if x.shape[0] != lanes * self._time:
            raise BankError(
                f"an adapted layer is given {list(x.shape)} in a pass of {lanes} lanes of {self._time} tokens: "
                "some of them only; train the adapter without it (target_modules)"
            )
        return wide.expand(lanes, self._time, width).reshape(-1, *[1] * (x.ndim - 2), width)


class LaneLinears(nn.Module):
    """Linear layers over one input, with low-rank deltas: ``y = [W | B] [x; mix * A x]``.

    The layers' W side by side with all adapters' B are one matrix, and so are their A: two products in
    place of two a layer and adapter, and the large output is written once. A device, which waits for each
    operation to be launched, has A below W instead, and adds ``B`` of the low ranks to what comes of W: it
    need not join anything. A model calls its layers one by one; the first call with an input computes all.

    Args:
        layers: name -> linear layer, all of the same input; their weights are taken over.
        loras: one an adapter; one that leaves a layer alone has zeros there.
        mix: the running pass's.
    """

    def __init__(self, layers: dict[str, Any], loras: Sequence[Lora], mix: Mix) -> None:
        super().__init__()
        self._mix = mix
        weights = [_weight(layer) for layer in layers.values()]
        self.sizes, self.dtype = [len(each) for each in weights], weights[0].dtype
        weight = torch.cat(weights)
        biases = [layer.bias for layer in layers.values()]
        bias = None
        if any(b is not None for b in biases):
            zeros = [weight.new_zeros(size) for size in self.sizes]
            bias = torch.cat([z if b is None else b.detach() for b, z in zip(biases, zeros, strict=True)])
        self._down: MatMul | None = None
        self._stacked: Tensor | None = None  # [out + low ranks, in]
        adapted = [name for name in layers if any(name in lora.factors for lora in loras)]
        self._n_adapted, self._n_low = len(adapted), 0
        self._scaled: _Scaled | None = None
        if adapted:
            down, up, gain, shift = self._stack(layers, adapted, loras, weight)
            self._down, self._n_low = MatMul(down), len(down)
            if gain.any() or shift.any():
                self._scaled, bias = _Scaled(MatMul(up), gain, shift, bias), None
            elif weight.device.type == "cpu":
                weight = torch.cat([weight, up], dim=1)
            else:
                more = -(len(weight) + self._n_low) % _ALIGNED
                self._up = F.pad(up, (0, more)).T
                self._n_out, self._n_low = len(weight), self._n_low + more
                self._stacked = torch.cat([weight, F.pad(down, (0, 0, 0, more))])
                self._down, weight = None, self._stacked[: self._n_out]
        self._main = MatMul(weight, bias)
        self._input: Tensor | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def _stack(
        self, layers: dict[str, Any], adapted: Sequence[str], loras: Sequence[Lora], like: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All A, ``[adapted layers * ranks, in]``, and all B as blocks of ``[out, adapted layers * ranks]``.

        And ``s - 1`` of DoRA's outputs and the adapters' biases, both ``[adapters, out]``, mostly zeros.
        """
        width = sum(lora.rank for lora in loras)
        down = like.new_zeros(len(adapted) * width, like.shape[1])
        up = like.new_zeros(len(like), len(adapted) * width)
        gain, shift = like.new_zeros(len(loras), len(like)), like.new_zeros(len(loras), len(like))
        first_out = dict(zip(layers, itertools.accumulate([0, *self.sizes]), strict=False))
        for i, name in enumerate(adapted):
            column = i * width
            for k, lora in enumerate(loras):
                if name in lora.factors:
                    a, b = (factor.to(like.device) for factor in lora.factors[name])
                    out = slice(first_out[name], first_out[name] + len(b))
                    if name in lora.magnitudes:
                        # Column norms in the paper's layout, those of outputs here; in float32, as the factors are.
                        norm = torch.linalg.vector_norm(like[out].float() + b @ a, dim=1)
                        scale = lora.magnitudes[name].to(like.device) / norm
                        if not bool(scale.isfinite().all()):
                            raise AdapterError(
                                f"adapter {lora.label}: DoRA's norm of layer {name!r} is 0 in places: an output of "
                                "this base is all zeros; train the adapter without that layer, or as plain LoRA"
                            )
                        gain[k, out], b = (scale - 1).to(gain), b * scale[:, None]
                    if name in lora.biases:
                        shift[k, out] = lora.biases[name].to(shift)
                    down[column : column + len(a)] = a.to(down)
                    up[out, column : column + len(a)] = b.to(up)
                column += lora.rank
        return down, up, gain, shift

    def forward(self, x: Tensor) -> Tensor:
        """All layers' outputs side by side, ``[..., sum of sizes]``, for an input ``[..., in]``."""
        if self._stacked is not None and not self._mix.is_bare:
            return self._added(self._stacked, x)
        if self._down is None:
            return self._main(x)
        if self._mix.is_bare:
            return self._main(F.pad(x, (0, self._n_low))) if self._scaled is None else self._scaled.bare(self._main(x))
        low = self._mix.apply(self._down(x), self._n_adapted, x)
        if self._scaled is not None:
            return self._scaled(self._main(x), low, self._mix.adapters(x))
        return self._main(torch.cat([x, low], dim=-1))

    def _added(self, stacked: Tensor, x: Tensor) -> Tensor:
        base, low = F.linear(x, stacked).tensor_split([self._n_out], dim=-1)
        low = self._mix.apply(low, self._n_adapted, x)
        base = base if self._main.bias is None else base + self._main.bias
        base.flatten(0, -2).addmm_(low.flatten(0, -2), self._up)
        return base

    def output(self, x: Tensor, place: int, *, last: bool) -> Tensor:
        """Of one layer; all are computed at the first call with an input, which is let go after the ``last``."""
        if self._input is not x:
            self._input, self._outputs = x, self(x).split(self.sizes, dim=-1)
        output = self._outputs[place]
        if last:
            self._input, self._outputs = None, ()
        return output


class LaneLinear(nn.Module):
    """One layer of a group, standing where the model's own stood."""

    def __init__(self, group: LaneLinears, place: int, *, last: bool) -> None:
        super().__init__()
        self.group, self._place, self._last = group, place, last

    @property
    def weight(self) -> Tensor:
        """Of its own it has none: some models ask what kind of numbers it is in."""
        return torch.empty(0, dtype=self.group.dtype, device="meta")

    def forward(self, x: Tensor) -> Tensor:
        return self.group.output(x, self._place, last=self._last)


@dataclass
class _Scaled:
    """What adapters that scale outputs or add to them make of ``W x``.

    Attributes:
        up: the low ranks' way up, B of all adapters.
        gain, shift: ``s - 1`` and the biases of each adapter, ``[adapters, out]``.
        bias: the layers' own, ``[out]``.
    """

    up: MatMul
    gain: Tensor
    shift: Tensor
    bias: Tensor | None

    def bare(self, base: Tensor) -> Tensor:
        return base if self.bias is None else base + self.bias

    def __call__(self, base: Tensor, low: Tensor, adapters: Tensor) -> Tensor:
        """``base [lanes, time, out]``, ``low [lanes, time, ranks]`` and ``adapters [lanes, time or 1, adapters]``."""
        return self.bare(base + base * (adapters @ self.gain) + self.up(low) + adapters @ self.shift)


class MatMul:
    """``x W^T + bias``; on a CPU with bfloat16 instructions with the weight laid out for them, once.

    Otherwise every call would lay it out again: half the time of a pass over a few rows.

    Args:
        pack: whether to lay it out; ``None``: where it is in bfloat16.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, pack: bool | None = None) -> None:
        self.bias = bias
        wanted = weight.dtype == torch.bfloat16 if pack is None else pack
        self._packed = weight.device.type == "cpu" and wanted and _can_pack()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _PACK_HINT) if self._packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        """``x [..., in]`` -> ``[..., out]``."""
        if not self._packed:
            return F.linear(x, self._weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")


def _can_pack() -> bool:
    ops = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(ops, "_linear_pointwise")
        and hasattr(ops, "_reorder_linear_weight")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _weight(layer: Any) -> Tensor:
    """``[out, in]``, whichever way it lies."""
    weight: Tensor = layer.weight.detach()
    return weight if isinstance(layer, nn.Linear) else weight.T


def wrap(model: nn.Module, loras: Sequence[Lora], mix: Mix) -> None:
    """Replace a model's linear layers, in place, by lane-aware ones; the vocabulary head is left alone.

    GPT-2's Conv1D is one of them: a linear layer whose weight lies transposed.
    """
    for lora in loras:
        check_fit(model, lora)
    head = model.get_output_embeddings()  # type: ignore[operator]
    linears = {name: m for name, m in model.named_modules() if linear_shape(m) and m is not head}
    while linears:
        parent, _, child = next(iter(linears)).rpartition(".")
        siblings = next((names for names in _SIBLINGS if child in names), (child,))
        names = [name for name in (f"{parent}.{s}" if parent else s for s in siblings) if name in linears]
        group = LaneLinears({name: linears.pop(name) for name in names}, loras, mix)
        owner = model.get_submodule(parent)
        for place, name in enumerate(names):
            setattr(owner, name.rpartition(".")[2], LaneLinear(group, place, last=name == names[-1]))
