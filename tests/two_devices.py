"""Two devices that are none: tensors that say which of them they lie on, and refuse to meet across.

Numbers are computed on the CPU. As CUDA does, an operator over tensors of two devices is an error, whatever it is, but
for a copy from one to the other and for a scalar of the host's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

KIND = "privateuseone"  # torch's name for a device that others bring
FIRST, SECOND = torch.device(KIND, 0), torch.device(KIND, 1)
_COPIES = {"_to_copy", "copy_"}
_aten = torch.ops.aten
# Composed of others, but for a device of torch's own one operator.
_ONE = {_aten.rms_norm.default, _aten.scaled_dot_product_attention.default}


class PlacedTensor(Tensor):
    """A tensor that says it lies on a device; ``host`` is what it holds."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor, device: torch.device) -> PlacedTensor:
        made: PlacedTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype,
            layout=host.layout, device=device,
        )  # fmt: skip
        made.host = host
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def data_ptr(self) -> int:  # accelerate tells tied weights by it
        return self.host.data_ptr()

    def tolist(self) -> Any:  # torch has none for tensors of another class
        return self.to("cpu").tolist()

    def __repr__(self, **_: Any) -> str:
        return f"PlacedTensor({self.host!r}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: outside two_devices()")


class _Placing(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.moves = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        flat, spec = tree_flatten((args, kwargs))
        mine = [each for each in flat if isinstance(each, PlacedTensor)]
        to = next((each for each in flat if isinstance(each, torch.device)), None)
        if not mine and (to is None or to.type != KIND):
            return func(*args, **kwargs)
        if func not in _ONE and _is_composed(func.name()):
            with self:
                return func.decompose(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        where = {each.device for each in mine}
        if name in _COPIES:
            target = args[0].device if name == "copy_" else to or mine[0].device
            self.moves += len({each.device for each in flat if isinstance(each, Tensor)} | {target}) > 1
        else:
            strangers = [each for each in flat if isinstance(each, Tensor) and each.device.type == "cpu" and each.dim()]
            if len(where) > 1 or (strangers and not name.startswith("index")):
                raise RuntimeError(f"{name}: its tensors lie on {sorted(map(str, where))} and {len(strangers)} on cpu")
            target = to or mine[0].device
        hosts = [each.host if isinstance(each, PlacedTensor) else each for each in flat]
        hosts = [torch.device("cpu") if isinstance(each, torch.device) else each for each in hosts]
        given, named = tree_unflatten(hosts, spec)
        out = _computed(func, given, named)
        if target.type == "cpu":
            return args[0] if name == "copy_" else out
        known = {id(each.host): each for each in mine}

        def placed(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return known[id(x)] if id(x) in known else PlacedTensor(x, target)

        return tree_map(placed, out)


@cache
def _is_composed(name: str) -> bool:
    """Whether an operator is but others in a row."""
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"))


def _computed(func: Any, args: Any, kwargs: Any) -> Any:
    if func is _aten.mm.dtype:
        return args[0].to(args[2]) @ args[1].to(args[2])
    return func(*args, **kwargs)


@contextmanager
def two_devices() -> Iterator[_Placing]:
    """Inside, :data:`FIRST` and :data:`SECOND` are devices; ``moves`` counts what went from one place to another."""
    _bring_device()
    mode, before = _Placing(), torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(.., device=)` makes it on the CPU and sends it
    try:
        with torch.inference_mode(), mode:  # a view of what was made outside one cannot be made inside
            yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@cache
def _bring_device() -> None:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend()
