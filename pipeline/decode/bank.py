"""What a process decodes with: its model bank, and the batch that fits into its memory."""

from __future__ import annotations

import json
import logging
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.decode.devices import WEIGHTS_SHARE, Device, devices_here, named
from pipeline.decode.leases import LeaseError, Unit
from pipeline.decode.loading import LoadBank, loaded, units_for
from pipeline.decode.per_device import whole
from pipeline.events import event
from pipeline.exit_status import ExitStatus
from pipeline.plan.cells import Sources
from pipeline.plan.errors import RunError
from pipeline.store.files import write_bytes

logger = logging.getLogger(__name__)

# File of a work folder: batch sizes that fitted, by device.
BATCH_SIZES = "batch-sizes.json"


class ProcessBank:
    """A process's model bank, the lock that keeps threads from sharing a forward pass, and the batch that fits.

    Args:
        sources: of the weights.
        threads: of a pass, see :mod:`pipeline.plan.computed_with`.
        batch_size: rows to decode together.
        memory: file in which smaller sizes are kept, by device; ``None``: none is.
        load: makes the bank, as :meth:`mpg.ModelBank.load`, which is the default.
        unit: what it lies on, which this process has leased; none: the processor. ``None``: it leases what it needs
            for as long as it lives, and waits for it.

    Attributes:
        device: what it lies on is called, as the record has it.
        on: the same, with what tells it apart: name, index and memory in bytes of each device, and dtype.

    Raises:
        RunError: a model can't be loaded, see :func:`pipeline.decode.loading.loaded`, or nothing can be leased.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        threads: int,
        batch_size: int = 1,
        memory: Path | None = None,
        load: LoadBank | None = None,
        unit: Sequence[Device] | None = None,
    ) -> None:
        import torch
        from transformers.utils import logging as transformers_logging

        from mpg import ModelBank
        from mpg.decoding.memory import free_bytes
        from mpg.decoding.resilient import BatchSize

        transformers_logging.disable_progress_bar()  # the run has a bar of its own
        self.lock, self.threads = threading.Lock(), threads
        self._leased = None if unit is not None else _own_unit(sources)
        unit = (self._leased.unit if self._leased is not None else ()) if unit is None else unit
        how: dict[str, Any] = {"dtype": getattr(torch, sources.dtype)}
        how |= {"device": unit[0].torch if unit else torch.device("cpu")}
        if len(unit) > 1:
            how |= {"max_memory": {each.torch: int(each.memory * WEIGHTS_SHARE) for each in unit}}
        began = time.monotonic()
        self.bank = loaded(sources, load or ModelBank.load, **how)
        cards = sorted({device.card for device in unit if device.kind != "cpu"})
        self.device = f"{len(unit)} x " * (len(unit) > 1) + ", ".join(cards) if cards else str(self.bank.device)
        self.on: dict[str, Any] = {"dtype": sources.dtype}
        if unit:
            self.on["devices"] = [{"name": each.card, "index": each.index, "memory": each.memory} for each in unit]
        seconds = round(time.monotonic() - began, 3)
        event(logger, "model_loaded", model=sources.model_label, device=self.device, dtype=sources.dtype,
              adapters=len(sources.adapters), seconds=seconds)  # fmt: skip
        bank, device = self.bank, self.device  # no way back to here: its lease ends when nobody has it any more
        self.batch_size = BatchSize(
            batch_size,
            now=0 if memory is None else remembered_sizes(memory).get(self.device, 0),
            on_change=None if memory is None else lambda size: remember_size(memory, device, size),
            free=lambda: free_bytes(bank),
        )


class _Own:
    """What this process has for itself as long as one of its banks lives."""

    def __init__(self, units: Mapping[Unit, Sequence[Device]]) -> None:
        found, *self._held = whole(list(units))
        self.unit = units[found]


_own: weakref.ref[_Own] | None = None


def _own_unit(sources: Sources) -> _Own | None:
    """Lease what a bank needs, or take what another of this process's has; ``None``: the processor."""
    global _own
    devices = devices_here()
    if not devices:
        return None
    units = {named(unit): unit for unit in units_for(sources, devices)}
    there = None if _own is None else _own()
    if there is not None and named(there.unit) in units:
        return there
    try:
        found = _Own(units)
    except LeaseError as error:
        raise RunError(str(error), ExitStatus.BAD_INPUT) from error
    _own = weakref.ref(found)
    return found


def remembered_sizes(memory: Path) -> dict[str, int]:
    """Device -> batch size that fitted, of earlier runs; empty where the file is missing or damaged."""
    try:
        return {str(device): int(size) for device, size in json.loads(memory.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def remember_size(memory: Path, device: str, size: int) -> None:
    """Keep a batch size for the next run; where that can't be written, it finds out again."""
    with suppress(OSError):
        write_bytes(json.dumps(remembered_sizes(memory) | {device: size}).encode(), memory)
