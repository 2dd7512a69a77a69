"""The machine that rows are decoded on: torch's threads, and what the record says of it."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.plan.computed_with import cores
from pipeline.store.files import listing, make_folder, read_text, write_bytes

logger = logging.getLogger(__name__)


_MACHINES = "machines"  # folder in it: a file for each kind of machine that has decoded rows


@contextmanager
def passes_of(threads: int) -> Iterator[None]:
    """Torch computes with so many threads inside, in this thread of the process (the number is a thread's own)."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        if torch.get_num_threads() != threads:
            logger.warning("%d threads a pass, and the system gives %d", threads, torch.get_num_threads())
        yield
    finally:
        torch.set_num_threads(before)


def processor() -> str:
    """This machine's processor: its name, family and model (on Linux), and the instruction set that torch uses."""
    import torch

    found: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            found.setdefault(name.strip(), value.strip())
    name = found.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in found:
        name += f" (family {found['cpu family']}, model {found.get('model', '?')})"
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def note_machine(work: Path, device: str, on: Mapping[str, Any] | None = None) -> None:
    """Note that this machine decodes rows of the data set. It is for the record alone: no error ends a run.

    Args:
        on: what else is known of where the model bank lies, see :class:`pipeline.decode.bank.ProcessBank`.
    """
    machine = {"processor": processor(), "device": device, "cores": cores(), **(on or {})}
    content = json.dumps(machine)
    path = work / _MACHINES / f"{hashlib.sha256(content.encode()).hexdigest()[:16]}.json"
    with suppress(OSError):
        make_folder(path.parent)
        write_bytes(content.encode(), path)


def machines(work: Path) -> list[dict[str, Any]]:
    """Those that have decoded rows of the data set."""
    return [json.loads(read_text(work / _MACHINES / name)) for name in listing(work / _MACHINES, ".json")]
