"""Two devices that are none: tensors that say which of them they lie on, and refuse to meet across.

Numbers are computed on the CPU. As CUDA does, an operator over tensors of two devices is an error, whatever it is, but
for a copy from one to the other and for a scalar of the host's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.pretend_device import DEVICE, DeviceTensor, computed, entered, is_composed, mapped

KIND = DEVICE
FIRST, SECOND = torch.device(KIND, 0), torch.device(KIND, 1)
_COPIES = {"_to_copy", "copy_"}


class _Placing(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.moves = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        flat: list[Any] = []
        mapped(flat.append, (args, kwargs))
        mine = [each for each in flat if isinstance(each, DeviceTensor)]
        to = next((each for each in flat if isinstance(each, torch.device)), None)
        if not mine and (to is None or to.type != KIND):
            return func(*args, **kwargs)
        if is_composed(func):
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

        def onto_host(x: Any) -> Any:
            if isinstance(x, DeviceTensor):
                return x.host
            return torch.device("cpu") if isinstance(x, torch.device) else x

        given, named = mapped(onto_host, (args, kwargs))
        out = computed(func, given, named)
        if target.type == "cpu":
            return args[0] if name == "copy_" else out
        known = {id(each.host): each for each in mine}

        def placed(x: Any) -> Any:
            if not isinstance(x, Tensor):
                return x
            return known[id(x)] if id(x) in known else DeviceTensor(x, target)

        return mapped(placed, out)


@contextmanager
def two_devices() -> Iterator[_Placing]:
    """Inside, :data:`FIRST` and :data:`SECOND` are devices; ``moves`` counts what went from one place to another."""
    with entered(mode := _Placing()):
        yield mode
