"""Adapters on a command line: shipped ones by name, others as ``NAME=FOLDER``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.job.load import shipped_adapters


def adapters_by_name(entries: Sequence[str], option: str) -> dict[str, str]:
    """Attribute -> folder of its adapter, in the order given.

    Raises:
        ValueError: one line that begins with ``option``: not shipped, no adapter folder, or given twice.
    """
    shipped, adapters = shipped_adapters(), {}
    for entry in entries:
        name, equals, place = entry.partition("=")
        if name in adapters:
            raise ValueError(f"{option} {entry}: {name!r} is given twice; remove one")
        if not equals and name not in shipped:
            known = ", ".join(shipped) or "none"
            raise ValueError(f"{option} {entry}: not shipped (shipped: {known}); give {name}=FOLDER of its adapter")
        if equals and not (Path(place) / "adapter_config.json").is_file():
            raise ValueError(f"{option} {entry}: {place!r} is no folder with adapter_config.json; give one")
        adapters[name] = place if equals else str(shipped[name])
    return adapters
