"""A model larger than one device: its layers on several, by accelerate's device map.

Each decoder layer lies on one device, with its adapters and its share of the cache; hidden states go from device to
device where layers do, and come back to the first one, on which everything else of a bank is computed. Same weights,
same arithmetic: only where it is done differs.
"""

from __future__ import annotations

from typing import Any

import torch

from mpg.models.errors import BankError


def spread(model: Any, room: dict[torch.device, int], name: str) -> Any:
    """Put a model on several devices, in place; what it takes of ``room`` is gone from it.

    Args:
        model: a transformers model, on the host.
        room: bytes that weights may take of each device; the first one's model inputs and results lie on.
        name: of the model, for messages.

    Raises:
        BankError: it does not fit, or its type does not say where it may be divided.
    """
    from accelerate import dispatch_model, infer_auto_device_map
    from accelerate.hooks import remove_hook_from_module

    devices, layers = list(room), sorted(getattr(model, "_no_split_modules", None) or ())
    if not layers:
        raise BankError(
            f"model {name}: type {model.config.model_type!r} does not say which of its parts stay together "
            f"(_no_split_modules), so it can't span {len(devices)} devices; take one that fits on one device"
        )
    limits = {place: max(0, room[device]) for place, device in enumerate(devices)}
    found = infer_auto_device_map(model, limits, no_split_module_classes=layers)
    if not set(found.values()) <= set(limits):
        size = sum(each.numel() * each.element_size() for each in model.parameters())
        raise BankError(
            f"model {name}: its weights take {size:,} bytes, which do not fit into the {sum(limits.values()):,} that "
            f"are there for them on {len(devices)} devices; take a smaller model, a narrower dtype, or more devices"
        )
    parts = dict(model.named_modules())
    # Without weights of their own (rotary positions): where the inputs are.
    bare = {part for part in found if part in parts and next(parts[part].parameters(), None) is None}
    places = {part: devices[0 if part in bare else place] for part, place in found.items()}
    dispatch_model(model, places, main_device=devices[0], force_hooks=True, skip_keys=model._skip_keys_device_placement)
    # The model's own hook would bind its `forward` to the whole of it, which the vocabulary head must be had without.
    remove_hook_from_module(model)
    vars(model).pop("forward", None)  # the class's own again
    for each in model.parameters():
        room[each.device] -= each.numel() * each.element_size()
    return model
