"""What a process decodes with: its model bank, and the batch that fits into its memory."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.decode.loading import LoadBank, loaded
from pipeline.plan.cells import Sources
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

    Raises:
        RunError: a model can't be loaded, see :func:`pipeline.decode.loading.loaded`.
    """

    def __init__(
        self,
        sources: Sources,
        *,
        threads: int,
        batch_size: int = 1,
        memory: Path | None = None,
        load: LoadBank | None = None,
    ) -> None:
        import torch
        from transformers.utils import logging as transformers_logging

        from mpg import ModelBank
        from mpg.decoding.resilient import BatchSize

        transformers_logging.disable_progress_bar()  # the run has a bar of its own
        self.lock, self.threads = threading.Lock(), threads
        dtype, device = getattr(torch, sources.dtype), device_here()
        self.bank = loaded(sources, load or ModelBank.load, dtype=dtype, device=device)
        self.device = torch.cuda.get_device_name() if self.bank.device.type == "cuda" else str(self.bank.device)
        self.batch_size = BatchSize(
            batch_size,
            now=0 if memory is None else remembered_sizes(memory).get(self.device, 0),
            on_change=None if memory is None else lambda size: remember_size(memory, self.device, size),
        )


def device_here() -> Any:
    """accelerate's device for this process; of a kind that is not served (``mps``): the processor, and a word on it."""
    import torch
    from accelerate import PartialState

    from mpg.models.served import DEVICES

    device = PartialState().device
    if device.type in DEVICES:
        return device
    logger.warning("device %s: no test has held it, so this run takes the processor", device.type)
    return torch.device("cpu")


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
