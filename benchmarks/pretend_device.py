"""A device that is none: tensors that say they lie on it, and a record of what a host would have it do.

Numbers are computed on the CPU, so every branch of the engine that looks at a device's kind or at values is the one
that a GPU would take; no GPU and no CUDA build of torch is needed. Recorded are operators, as torch dispatches them to
a device: one is a kernel, or a few.

A process that has begun to pretend goes on to have such a device: torch knows no way back.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[1]
_INSIDE, _NOT_ASKING = f"{ROOT}/", (f"{ROOT}/benchmarks", f"{ROOT}/.venv")
DEVICE = "privateuseone"  # torch's name for a device that others bring
_aten = torch.ops.aten
# Their results are values for the host, or of a size that only values tell.
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim"}
_WAITS |= {"unique_consecutive", "_unique", "bincount"}
# One kernel on CUDA, composed of several operators elsewhere.
_ONE = {_aten.rms_norm.default, _aten.scaled_dot_product_attention.default}
_NO_WORK = {"_unsafe_view", "lift_fresh", "_reshape_alias"}  # views that their schemas do not call so


@dataclass
class Work:
    """What a device was given.

    Attributes:
        operators: those that are no views, by (name, place).
        waits: places at which the host waited for a value, or for a size that values decide.
        uploads: places at which the host sent data and waited until it was there.
        widths: key positions that a pass attended to.
    """

    operators: Counter[tuple[str, str]] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)
    widths: Counter[int] = field(default_factory=Counter)


class DeviceTensor(Tensor):
    """A tensor that says it lies on a device, the pretended one unless another is named; ``host`` is what it holds."""

    host: Tensor

    @staticmethod
    def __new__(cls, host: Tensor, device: torch.device | None = None) -> DeviceTensor:
        made: DeviceTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, host.size(), strides=host.stride(), storage_offset=host.storage_offset(), dtype=host.dtype,
            layout=host.layout, device=device or torch.device(DEVICE, 0),
        )  # fmt: skip
        made.host = host
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    def data_ptr(self) -> int:  # accelerate tells tied weights by it
        return self.host.data_ptr()

    def tolist(self) -> Any:  # torch has none for tensors of another class
        return self.to("cpu").tolist()

    def __repr__(self, **_: Any) -> str:
        return f"DeviceTensor({self.host!r}, {self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: outside of what pretends its device")


def mapped(put: Callable[[Any], Any], tree: Any) -> Any:
    """What an operator takes or gives, each leaf put through a function; torch's pytree is several times as slow."""
    if isinstance(tree, (tuple, list)):
        return type(tree)([mapped(put, each) for each in tree])
    if isinstance(tree, dict):
        return {key: mapped(put, each) for key, each in tree.items()}
    return put(tree)


class _Pretending(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.work = Work()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        flat: list[Any] = []
        mapped(flat.append, (args, kwargs))
        tensors = [each for each in flat if isinstance(each, Tensor)]
        mine = [each for each in tensors if isinstance(each, DeviceTensor)]
        to = next((each.type for each in flat if isinstance(each, torch.device)), None)
        if not mine and to != DEVICE:
            return func(*args, **kwargs)
        if is_composed(func):
            with self:
                return func.decompose(*args, **kwargs)
        self._record(func, args, kwargs, tensors, mine, to)

        def onto_host(x: Any) -> Any:
            if isinstance(x, DeviceTensor):
                return x.host
            return torch.device("cpu") if to == DEVICE and isinstance(x, torch.device) else x

        given, named = mapped(onto_host, (args, kwargs))
        out = computed(func, given, named)
        if to == "cpu" or (to is None and func is _aten.copy_.default and not isinstance(args[0], DeviceTensor)):
            return args[0] if func is _aten.copy_.default else out
        known = {id(each.host): each for each in mine}

        def onto_device(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return known[id(x)] if id(x) in known else DeviceTensor(x)

        return mapped(onto_device, out)

    def _record(
        self, func: Any, args: Any, kwargs: Any, tensors: list[Tensor], mine: list[DeviceTensor], to: str | None
    ) -> None:
        name, place = func._schema.name.removeprefix("aten::"), ""
        if func.is_view or name in _NO_WORK:
            return
        place = _place()
        self.work.operators[name, place] += 1
        if name in ("_to_copy", "copy_"):
            source, target = (args[0], to or DEVICE) if name == "_to_copy" else (args[1], args[0].device.type)
            if to is None and name == "_to_copy":
                target = source.device.type
            if source.device.type != target:
                if target == "cpu":
                    self.work.waits[place] += 1
                elif not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])):
                    self.work.uploads[place] += 1
        elif name in _WAITS or (name == "repeat_interleave" and kwargs.get("output_size") is None):
            self.work.waits[place] += 1
        elif name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            indices = [each for each in args[1] if each is not None]
            fills = name != "index" and args[2].numel() == 1
            if any(each.dtype in (torch.bool, torch.uint8) for each in indices) and not fills:
                self.work.waits[place] += 1
            self.work.uploads[place] += sum(not isinstance(each, DeviceTensor) for each in indices)
        elif func is _aten.scaled_dot_product_attention.default:
            self.work.widths[args[1].shape[2]] += 1


def is_composed(func: Any) -> bool:
    """Whether an operator is but others in a row, on a device, too."""
    return func not in _ONE and _has_parts(func.name())


@cache
def _has_parts(name: str) -> bool:
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(name, "CompositeImplicitAutograd"))


def computed(func: Any, args: Any, kwargs: Any) -> Any:
    """An operator's result, where a CPU has none, or one that lies otherwise in memory, made to be as CUDA's."""
    if func is _aten.mm.dtype:
        return args[0].to(args[2]) @ args[1].to(args[2])
    out = func(*args, **kwargs)
    if func is _aten.scaled_dot_product_attention.default:  # [lanes, tokens, heads, dim] in memory
        return out.transpose(1, 2).contiguous().transpose(1, 2)
    return out


def _place() -> str:
    """The line of the package that asked for the operator."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(_INSIDE) and not file.startswith(_NOT_ASKING):
            return f"{file.removeprefix(_INSIDE)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


@contextmanager
def pretending() -> Iterator[Work]:
    """Inside, ``device=DEVICE`` is the pretended device; what it is given is recorded."""
    with entered(mode := _Pretending()):
        yield mode.work


@contextmanager
def entered(mode: TorchDispatchMode) -> Iterator[None]:
    """Inside, a mode stands for a device that is none."""
    _bring_device()
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(.., device=)` makes it on the CPU and sends it
    try:
        with torch.inference_mode(), mode:  # a view of what was made outside one cannot be made inside
            yield
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@cache
def _bring_device() -> None:
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    _setup_privateuseone_for_python_backend()


def onto(model: nn.Module) -> nn.Module:
    """Make a model's parameters and buffers lie on the pretended device, in place."""
    for module in model.modules():
        for table in (module._parameters, module._buffers):
            for name, value in table.items():
                if value is not None:
                    table[name] = DeviceTensor(value.detach())  # type: ignore[assignment]
    return model
