"""Linear layers over shared weights: every lane of a pass has its own mix of adapters.

The big base matmul runs once over all lanes, and with it the low ranks of all adapters side by side; a
lane's *mix* (one coefficient per adapter) decides which of them count. All zeros is the bare model,
one-hot an adapter, anything else a weighted sum of deltas (a "soup").
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mpg.models.adapter_files import Lora, check_fit

# Batch size that packed weights are laid out for: a hint, any other gives the same numbers.
_PACK_HINT = 32
# Layers that models of the Llama family call on one input, in the order of the calls.
_SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


@dataclass
class Mix:
    """The running pass's coefficients, shared by all layers of a model; ``None``: the bare model."""

    coefficients: Tensor | None = None  # [lanes, 1, sum of ranks]

    def set(self, coefficients: Tensor | None, *, zero_one: bool = False) -> None:
        """``zero_one``: whether every coefficient is 0 or 1, as outside soups."""
        self.coefficients, self._zero_one = coefficients, zero_one
        self._repeated: dict[int, Tensor] = {}
        self._off: dict[int, Tensor] = {}

    def apply(self, low: Tensor, times: int) -> Tensor:
        """``mix * low`` in place, of as many layers side by side.

        An adapter that a lane has no share in is left out of it, not multiplied by 0, which would make NaN of what
        overflows there: a broken adapter costs the rows that use it.
        """
        mix = self.repeated(times)
        if times not in self._off:
            self._off[times] = mix == 0
        low = low.masked_fill_(self._off[times], 0.0)
        return low if self._zero_one else low.mul_(mix)

    def repeated(self, times: int) -> Tensor:
        """For as many layers side by side, ``[lanes, 1, times * sum of ranks]``."""
        assert self.coefficients is not None
        if times not in self._repeated:
            self._repeated[times] = self.coefficients.repeat(1, 1, times)
        return self._repeated[times]


class LaneLinears(nn.Module):
    """Linear layers over one input, with low-rank deltas: ``y = [W | B] [x; mix * A x]``.

    The layers' W side by side with all adapters' B are one matrix, and so are their A: two products in
    place of two a layer and adapter, and the large output is written once. A model calls its layers one
    by one; the first call with an input computes all.

    Args:
        layers: name -> layer, all of the same input; their weights are taken over.
        loras: one an adapter; one that leaves a layer alone has zeros there.
        mix: the running pass's.
    """

    def __init__(self, layers: dict[str, nn.Linear], loras: Sequence[Lora], mix: Mix) -> None:
        super().__init__()
        self._mix = mix
        self.sizes = [layer.out_features for layer in layers.values()]
        weight = torch.cat([layer.weight.detach() for layer in layers.values()])
        biases = [layer.bias for layer in layers.values()]
        bias = None
        if any(b is not None for b in biases):
            zeros = [weight.new_zeros(size) for size in self.sizes]
            bias = torch.cat([z if b is None else b.detach() for b, z in zip(biases, zeros, strict=True)])
        self._down: MatMul | None = None
        adapted = [name for name in layers if any(name in lora.factors for lora in loras)]
        self._n_adapted, self._n_low = len(adapted), 0
        if adapted:
            down, up = self._stack(layers, adapted, loras, weight)
            weight = torch.cat([weight, up], dim=1)
            self._down, self._n_low = MatMul(down), len(down)
        self._main = MatMul(weight, bias)
        self._input: Tensor | None = None
        self._outputs: tuple[Tensor, ...] = ()

    def _stack(
        self, layers: dict[str, nn.Linear], adapted: Sequence[str], loras: Sequence[Lora], like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All A, ``[adapted layers * ranks, in]``, and all B as blocks of ``[out, adapted layers * ranks]``."""
        width = sum(lora.rank for lora in loras)
        down = like.new_zeros(len(adapted) * width, like.shape[1])
        up = like.new_zeros(len(like), len(adapted) * width)
        first_out = dict(zip(layers, itertools.accumulate([0, *self.sizes]), strict=False))
        for i, name in enumerate(adapted):
            column = i * width
            for lora in loras:
                if name in lora.factors:
                    a, b = lora.factors[name]
                    down[column : column + len(a)] = a.to(down)
                    up[first_out[name] : first_out[name] + len(b), column : column + len(a)] = b.to(up)
                column += lora.rank
        return down, up

    def forward(self, x: Tensor) -> Tensor:
        """All layers' outputs side by side, ``[..., sum of sizes]``, for an input ``[..., in]``."""
        if self._down is None:
            return self._main(x)
        if self._mix.coefficients is None:
            return self._main(F.pad(x, (0, self._n_low)))
        low = self._mix.apply(self._down(x), self._n_adapted)
        return self._main(torch.cat([x, low], dim=-1))

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

    def forward(self, x: Tensor) -> Tensor:
        return self.group.output(x, self._place, last=self._last)


class MatMul:
    """``x W^T + bias``; on a CPU with bfloat16 instructions with the weight laid out for them, once.

    Otherwise every call would lay it out again: half the time of a pass over a few rows.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self._bias = bias
        self._packed = weight.device.type == "cpu" and weight.dtype == torch.bfloat16 and _can_pack()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, _PACK_HINT) if self._packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        """``x [..., in]`` -> ``[..., out]``."""
        if not self._packed:
            return F.linear(x, self._weight, self._bias)
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")


def _can_pack() -> bool:
    ops = torch.ops.mkldnn
    return (
        torch.backends.mkldnn.is_available()
        and hasattr(ops, "_linear_pointwise")
        and hasattr(ops, "_reorder_linear_weight")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def wrap(model: nn.Module, loras: Sequence[Lora], labels: Sequence[str], mix: Mix) -> None:
    """Replace a model's linear layers, in place, by lane-aware ones; the vocabulary head is left alone."""
    for lora, label in zip(loras, labels, strict=True):
        check_fit(model, lora, label)
    head = model.get_output_embeddings()  # type: ignore[operator]
    linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    while linears:
        parent, _, child = next(iter(linears)).rpartition(".")
        siblings = next((names for names in _SIBLINGS if child in names), (child,))
        names = [name for name in (f"{parent}.{s}" if parent else s for s in siblings) if name in linears]
        group = LaneLinears({name: linears.pop(name) for name in names}, loras, mix)
        owner = model.get_submodule(parent)
        for place, name in enumerate(names):
            setattr(owner, name.rpartition(".")[2], LaneLinear(group, place, last=name == names[-1]))
