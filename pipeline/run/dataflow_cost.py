"""What a job costs on Dataflow: its workers' hours, of a plan's forecast, times what the user says that they cost.

Dataflow bills each worker by the hour for its vCPUs, its memory, its disk and its GPUs, whether they are busy or not.
No price is known here: they differ by region and change. The graph carries the names of work and no texts, so what is
billed for shuffled data, some kilobytes a shard, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.run.estimate import Estimate, Forecast

# What a price is for -> the field of :class:`Machine` that says how much of it a worker has.
PRICES = {"vcpu-hour": "vcpus", "gb-hour": "memory_gb", "accelerator-hour": "accelerators", "disk-gb-hour": "disk_gb"}


@dataclass(frozen=True)
class Machine:
    """Workers of one kind.

    Attributes:
        memory_gb, disk_gb: in gigabytes. accelerators: GPUs of one worker; 0: models run on its processor.
        workers: how many there are.
        startup_h: hours that each is paid for before it decodes (least and most): its start, the image, the model.
    """

    name: str
    vcpus: int
    memory_gb: float
    accelerators: int
    disk_gb: float
    workers: int
    startup_h: tuple[float, float] = (0.0, 0.0)

    @property
    def devices(self) -> int:
        """Model banks of all workers."""
        return self.workers * max(1, self.accelerators)

    def rate(self, prices: Mapping[str, float]) -> float:
        """Of one worker for an hour; what has no price costs nothing."""
        return sum(price * float(getattr(self, PRICES[name])) for name, price in prices.items())

    def unpriced(self, prices: Mapping[str, float]) -> list[str]:
        """What a worker has and has no price."""
        return [name for name, field in PRICES.items() if getattr(self, field) and name not in prices]


@dataclass(frozen=True)
class Bill:
    """What workers cost.

    Attributes:
        hours: of all workers together. rate: of one for an hour. cost: both multiplied, without what has no price.
    """

    hours: Estimate
    rate: float
    cost: Estimate


def bill(made: Forecast, machine: Machine, prices: Mapping[str, float]) -> Bill:
    """Of a forecast for as many devices as the machines have."""
    low, high = machine.startup_h
    each = made.seconds.times(1 / 3600).plus(Estimate((low + high) / 2, low, high))
    hours, rate = each.times(machine.workers), machine.rate(prices)
    return Bill(hours, rate, hours.times(rate))
