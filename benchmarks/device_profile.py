"""What a run does to a device: where the host waits for it, how many kernels it is given, and which take its time."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]


def synchronisations(run: Callable[[int], Any], few: int, many: int) -> tuple[float, list[tuple[str, float]]]:
    """How often the host waits for a CUDA device in a token-step: of runs of ``many`` and ``few`` tokens, the slope.

    Returns:
        the number; and by place, the most first: a line of Python, as torch says it (C++ code below it waits).
    """
    counts = [_waits(run, n) for n in (few, many)]
    slope = {place: (counts[1][place] - counts[0][place]) / (many - few) for place in counts[1]}
    return sum(slope.values()), sorted(((p, round(c, 2)) for p, c in slope.items() if c > 0), key=lambda x: -x[1])


def _waits(run: Callable[[int], Any], n: int) -> Counter[str]:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run(n)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places: Counter[str] = Counter()
    for each in seen:
        if "synchroniz" in str(each.message):
            path = Path(each.filename)
            inside = path.is_relative_to(ROOT)
            places[f"{path.relative_to(ROOT) if inside else '/'.join(path.parts[-2:])}:{each.lineno}"] += 1
    return places


def kernels(run: Callable[[int], Any], few: int, many: int, *, cuda: bool) -> dict[str, Any]:
    """Kernels of a token-step (on a CPU: operators), how long they take together, and which take most of it.

    Returns:
        ``a_step``; ``busy_ms`` a step; ``most``: names with ms a step, the most first.
    """
    seen = [_kernels(run, n, cuda) for n in (few, many)]
    steps = many - few
    names = set(seen[0]) | set(seen[1])
    count = {name: (seen[1].get(name, (0, 0.0))[0] - seen[0].get(name, (0, 0.0))[0]) / steps for name in names}
    ms = {name: (seen[1].get(name, (0, 0.0))[1] - seen[0].get(name, (0, 0.0))[1]) / steps for name in names}
    most = sorted(ms.items(), key=lambda item: -item[1])[:10]
    return {
        "a_step": sum(count.values()),
        "busy_ms": sum(ms.values()),
        "most": [(name, round(value, 4)) for name, value in most],
    }


def _kernels(run: Callable[[int], Any], n: int, cuda: bool) -> dict[str, tuple[int, float]]:
    """Name -> (how many, ms together)."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        run(n)
        if cuda:
            torch.cuda.synchronize()
    wanted = DeviceType.CUDA if cuda else DeviceType.CPU
    found = {}
    for each in profiler.key_averages():
        if each.device_type == wanted:
            spent = each.self_device_time_total if cuda else each.self_cpu_time_total
            found[each.key] = each.count, spent / 1000
    return found
