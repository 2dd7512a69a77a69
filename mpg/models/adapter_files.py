"""LoRA adapters as PEFT saves them: read, and held against the model they are for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mpg.models.errors import BankError


@dataclass(frozen=True)
class Lora:
    """One adapter: module name -> A ``[rank, in]`` and B ``[out, rank]``, B scaled by alpha / r."""

    factors: dict[str, tuple[Tensor, Tensor]]

    @property
    def rank(self) -> int:
        return max(a.shape[0] for a, _ in self.factors.values())


def read_lora(folder: Path) -> Lora:
    """Read a PEFT LoRA folder (safetensors only).

    Raises:
        BankError: a file that is missing, or an adapter that is not plain LoRA.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config_file, weights_file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise BankError(f"adapter {folder}: no {file.name} there; give a PEFT LoRA folder saved as safetensors")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        rank, alpha = config["r"], float(config["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"{config_file.name} can't be read ({type(error).__name__}: {' '.join(str(error).split())})"
        raise BankError(f"adapter {folder}: {what}; save the adapter again") from error
    unsupported = [key for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if config.get(key)]
    if config.get("peft_type") != "LORA" or unsupported or config.get("bias", "none") != "none":
        raise BankError(
            f"adapter {folder}: only plain LoRA is supported "
            f"(peft_type={config.get('peft_type')}, also set: {', '.join(unsupported) or 'nothing'})"
        )
    scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
    halves: dict[str, dict[str, Tensor]] = {}
    try:
        weights = load_file(weights_file)
    except (OSError, SafetensorError) as error:
        raise BankError(f"adapter {folder}: {weights_file.name} can't be read ({error}); fetch it again") from error
    for key, value in weights.items():
        name = key.removeprefix("base_model.model.")
        for half in ("lora_A", "lora_B"):
            if name.endswith(f".{half}.weight"):
                halves.setdefault(name.removesuffix(f".{half}.weight"), {})[half] = value
                break
        else:
            raise BankError(f"adapter {folder}: weight {key!r} is not a LoRA factor of a linear layer")
    halved = next((name for name, pair in halves.items() if len(pair) < 2), None)
    if halved is not None or not halves:
        what = f"layer {halved!r} has one factor of two" if halved else "no layer is adapted"
        raise BankError(f"adapter {folder}: {what}; save the adapter again")
    return Lora({name: (pair["lora_A"].float(), pair["lora_B"].float() * scale) for name, pair in halves.items()})


def check_adapters(model: nn.Module, adapters: Sequence[Path]) -> None:
    """Raise BankError where an adapter is not plain LoRA over this model; weights may be on ``meta``."""
    for folder in adapters:
        check_fit(model, read_lora(folder), str(folder))


def check_fit(model: nn.Module, lora: Lora, label: str) -> None:
    """Raise BankError, naming the adapter by its label, where a factor fits no linear layer of the model."""
    modules = dict(model.named_modules())
    head = model.get_output_embeddings()  # type: ignore[operator]
    for name, (a, b) in lora.factors.items():
        base = modules.get(name)
        if base is not None and base is head:
            raise BankError(f"adapter {label}: it changes the vocabulary head {name!r}, which all branches share")
        if not isinstance(base, nn.Linear) or (base.in_features, base.out_features) != (a.shape[1], b.shape[0]):
            raise BankError(
                f"adapter {label}: it was trained for another base model "
                f"(layer {name!r} of shape {b.shape[0]}x{a.shape[1]} is not in this one); use its own base"
            )
