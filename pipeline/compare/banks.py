"""One model bank for all arms of a comparison: what one has loaded the next one has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Device -> what was asked for, and the bank; one each, the last.
_kept: dict[str, tuple[str, Any]] = {}


def keep_loaded(model: Any, adapters: Mapping[str, Any], references: Mapping[str, Any], **how: Any) -> Any:
    """The bank of :meth:`mpg.ModelBank.load`, loaded once for as long as the next arm asks for the same.

    A function of a module, so that it travels to workers by its name; each process keeps its own.
    """
    from mpg import ModelBank
    from mpg.decoding.resilient import give_memory_back

    device = str(how.get("device"))
    asked = repr(
        (model, list(adapters.items()), list(references.items()), sorted(how.items(), key=lambda each: each[0]))
    )
    if _kept.get(device, ("", None))[0] != asked:
        if _kept.pop(device, None) is not None:  # or both would be there at once
            give_memory_back()
        _kept[device] = asked, ModelBank.load(model, adapters, references, **how)
    return _kept[device][1]


def forget() -> None:
    """Give the banks' memory back."""
    from mpg.decoding.resilient import give_memory_back

    _kept.clear()
    give_memory_back()
