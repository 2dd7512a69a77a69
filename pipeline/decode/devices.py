"""The devices of this machine, as accelerate finds them, and in which units a model bank takes them."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.decode.leases import Unit

logger = logging.getLogger(__name__)

# So many devices that are the processor: for trials of what is leased, on a machine that has no other.
SIMULATED_VARIABLE = "MPG_SIMULATED_DEVICES"
# Of a device's memory, what weights may take where a bank lies on several: the rest is for caches and logits. As many
# devices are taken as hold them in a little less, since a layer lies on one.
WEIGHTS_SHARE, _SHARE_IN_ALL = 0.8, 0.7


@dataclass(frozen=True)
class Device:
    """One that a bank can be loaded on.

    Attributes:
        name: what it is called on this machine, whichever of its devices a process is shown: its UUID.
        kind, index: torch's.
        card: the maker's name.
        memory: in bytes, all of it.
    """

    name: str
    kind: str
    index: int
    card: str
    memory: int

    @property
    def torch(self) -> Any:
        """The ``torch.device``."""
        import torch

        return torch.device("cpu") if self.kind == "cpu" else torch.device(self.kind, self.index)


def devices_here() -> tuple[Device, ...]:
    """The devices that processes of this machine share out; none where models run on the processor.

    Of a kind that is not served (``mps``) that is so, too, and said. Nothing is begun on any of them.
    """
    asked = os.environ.get(SIMULATED_VARIABLE, "")
    if asked.isdecimal():
        return tuple(Device(f"simulated-{i}", "cpu", i, f"simulated {i}", 0) for i in range(int(asked)))
    import torch
    from accelerate import PartialState

    from mpg.models.served import DEVICES

    kind = PartialState().device.type
    if kind not in DEVICES:
        logger.warning("device %s: no test has held it, so this run takes the processor", kind)
    if kind != "cuda":
        return ()
    found = []
    for index in range(torch.cuda.device_count()):
        properties: Any = torch.cuda.get_device_properties(index)
        name = str(getattr(properties, "uuid", "")) or f"{kind}-{index}"
        found.append(Device(name, kind, index, properties.name, properties.total_memory))
    return tuple(found)


def units_of(devices: Sequence[Device], weights: int) -> list[tuple[Device, ...]]:
    """Devices in groups that a bank fits on, each device in one group at most.

    They follow from the machine and the model alone, so that all processes take the same ones: as few devices a group
    as hold the weights in 0.7 of their memory, or all of them; one that holds them in 0.8 is enough. What is left over
    stays idle.

    Args:
        weights: of the bank, in bytes.

    Raises:
        ValueError: all devices together do not hold them.
    """
    if weights > sum(device.memory for device in devices):
        raise ValueError(
            f"model.id: the weights take {_gib(weights)}, and this machine's {len(devices)} device(s) have "
            f"{_gib(sum(device.memory for device in devices))}; take a smaller model, model.dtype: bfloat16, or a "
            f"machine with more"
        )
    least = min(device.memory for device in devices)
    size = 1 if weights <= least * WEIGHTS_SHARE else max(2, math.ceil(weights / (least * _SHARE_IN_ALL)))
    size = min(size, len(devices))
    ordered = sorted(devices, key=lambda device: device.name)
    return [tuple(ordered[i : i + size]) for i in range(0, len(ordered) - size + 1, size)]


def named(unit: Sequence[Device]) -> Unit:
    """A unit as the leases call it."""
    return tuple(device.name for device in unit)


def _gib(n: int) -> str:
    return f"{n / 2**30:.1f} GiB"
