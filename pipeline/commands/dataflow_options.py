"""``mpg plan --runner dataflow``: which workers, at whose prices, and what they come to, in lines."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pipeline.commands.shared import InputError

if TYPE_CHECKING:
    from pipeline.run.dataflow_cost import Machine
    from pipeline.run.estimate import Estimate, Forecast

_ONLY_WITH = ("machine", "vcpus", "memory_gb", "accelerators", "disk_gb", "workers", "tokens_per_s", "startup_min")


@dataclass(frozen=True)
class OnDataflow:
    """What a plan was told of Dataflow's workers.

    Attributes:
        prices: of what a worker has, an hour, in any currency. tokens_per_s: of one device there; ``None``: as here.
    """

    machine: Machine
    prices: Mapping[str, float]
    tokens_per_s: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options; without ``--runner`` none of them may be given."""
    group = parser.add_argument_group("what it costs on Dataflow, at prices that you give")
    group.add_argument("--runner", choices=("dataflow",), help="count workers' hours there, and what they cost")
    group.add_argument("--machine", metavar="TYPE", help="of a worker, e.g. g2-standard-8")
    group.add_argument("--vcpus", type=int, metavar="N", help="of a worker; left out: what TYPE says")
    group.add_argument("--memory-gb", type=float, metavar="GB", help="of a worker")
    group.add_argument("--accelerators", type=int, metavar="N", help="GPUs of a worker (0)")
    group.add_argument("--disk-gb", type=float, metavar="GB", help="of a worker (0)")
    group.add_argument("--workers", type=int, metavar="N", help="how many (1)")
    group.add_argument("--tokens-per-s", type=float, metavar="N",
                       help="of one of their devices, as you have measured it; left out: this machine's")  # fmt: skip
    group.add_argument("--startup-min", type=float, nargs=2, metavar=("LEAST", "MOST"),
                       help="minutes that each is paid for before it decodes (0 0)")  # fmt: skip
    group.add_argument("--price", action="append", default=[], metavar="WHAT=PRICE",
                       help="of a vcpu-hour, gb-hour, accelerator-hour, disk-gb-hour (again for each)")  # fmt: skip


def on_dataflow(options: argparse.Namespace) -> OnDataflow | None:
    """What the options say; ``None``: nothing of Dataflow.

    Raises:
        InputError: a line for each problem: option, value, remedy.
    """
    given = [name for name in _ONLY_WITH if getattr(options, name) is not None] + (["price"] if options.price else [])
    if options.runner is None:
        if given:
            raise InputError(f"{_flag(given[0])}: has an effect with --runner dataflow alone; add it, or remove this")
        return None
    from pipeline.run.dataflow_cost import Machine

    problems = [] if options.pilot else ["--no-pilot: what it costs is told of a pilot; leave --no-pilot out"]
    prices = _prices(options, problems)
    vcpus = options.vcpus if options.vcpus is not None else _vcpus_of(options.machine or "")
    if options.machine is None:
        problems.append("--machine: is missing; give the workers' machine type, e.g. --machine g2-standard-8")
    elif vcpus is None:
        problems.append(f"--vcpus: {options.machine} does not say how many; add --vcpus N")
    if options.memory_gb is None:
        problems.append("--memory-gb: is missing; give the memory of a worker, as its machine type has it")
    least = {"vcpus": 1, "accelerators": 0, "disk_gb": 0, "workers": 1, "memory_gb": 0, "tokens_per_s": 0}
    for name, bound in least.items():
        value = getattr(options, name)
        above = name in ("memory_gb", "tokens_per_s")
        if value is not None and not (math.isfinite(value) and (value > bound if above else value >= bound)):
            problems.append(f"{_flag(name)}: {value:g} is out of range; give {'more than ' if above else ''}{bound}"
                            f"{'' if above else ' or more'}")  # fmt: skip
    low, high = options.startup_min or (0.0, 0.0)
    if not 0 <= low <= high < math.inf:
        problems.append(f"--startup-min: {low:g} {high:g} is no range; give the least minutes and the most, from 0")
    if problems:
        raise InputError("\n".join(problems))
    assert vcpus is not None
    machine = Machine(options.machine, vcpus, options.memory_gb, options.accelerators or 0, options.disk_gb or 0.0,
                      options.workers or 1, (low / 60, high / 60))  # fmt: skip
    missing = [each for each in machine.unpriced(prices) if each != "disk-gb-hour"]
    if missing:
        raise InputError("\n".join(f"--price: none is given for {each}; add --price {each}=PRICE" for each in missing))
    return OnDataflow(machine, prices, options.tokens_per_s)


def cost_lines(made: Forecast, found: OnDataflow) -> list[str]:
    """Workers, their hours, and what they cost, each with its interval."""
    from pipeline.run.dataflow_cost import bill

    machine = found.machine
    billed = bill(made, machine, found.prices)
    has = [f"{machine.vcpus} vCPUs", f"{machine.memory_gb:g} GB"]
    has += [f"{machine.accelerators} GPU{'s' * (machine.accelerators > 1)}"] if machine.accelerators else []
    has += [f"{machine.disk_gb:g} GB of disk"] if machine.disk_gb else []
    speed = "as measured here" if found.tokens_per_s is None else "as given"
    left_out = machine.unpriced(found.prices) + (["the workers' start"] if machine.startup_h == (0.0, 0.0) else [])
    return [
        f"on Dataflow   {machine.workers} x {machine.name} ({', '.join(has)}), {billed.rate:.4g} each an hour, "
        f"{made.tokens_per_s:.0f} tokens/s a device, {speed}",
        f"worker-hours  {_shown(billed.hours, '.3g')}",
        f"their cost    {_shown(billed.cost, '.4g')}, in the currency of the prices given"
        + (f", without {' and '.join(left_out)}" if left_out else ""),
    ]


def cost_facts(made: Forecast, found: OnDataflow) -> dict[str, Any]:
    """The same for programs."""
    from pipeline.run.dataflow_cost import bill

    return {"on_dataflow": {"machine": asdict(found.machine), **asdict(bill(made, found.machine, found.prices))}}


def _vcpus_of(machine: str) -> int | None:
    """What the name of a machine type says: ``n2-standard-8``, ``c3-standard-4-lssd``, ``n1-custom-VCPUS-MB-ext``.

    Returns:
        ``None`` where it says none, or 0.
    """
    custom = re.fullmatch(r"(?:[a-z0-9]+-)?custom-(\d+)-\d+(?:-ext)?", machine)
    usual = None if "custom" in machine else re.search(r"-(\d+)(?:-lssd|-metal)?$", machine)
    found = custom or usual
    return int(found[1]) or None if found else None


def _prices(options: argparse.Namespace, problems: list[str]) -> dict[str, float]:
    from pipeline.run.dataflow_cost import PRICES

    found: dict[str, float] = {}
    for entry in options.price:
        name, equals, text = entry.partition("=")
        if not equals or name not in PRICES:
            problems.append(f"--price {entry}: write WHAT=PRICE, with one of {', '.join(PRICES)}")
            continue
        try:
            price = float(text)
        except ValueError:
            price = -1.0
        if name in found:
            problems.append(f"--price {entry}: {name} is given twice; remove one")
        elif not 0 <= price < math.inf:
            problems.append(f"--price {entry}: {text!r} is no price; give a number, 0 or more")
        found[name] = price
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _shown(estimate: Estimate, form: str) -> str:
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"
