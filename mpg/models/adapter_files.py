"""LoRA adapters as PEFT saves them: read, and held against the model they are for."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpg.models.adapter_config import AdapterConfig, read_config
from mpg.models.errors import AdapterError
from mpg.models.hub import ADAPTER_WEIGHTS, Place
from mpg.models.own_pass import body_name

logger = logging.getLogger(__name__)

_PREFIX = "base_model.model."
# The tensors of an adapted layer: what their names end with -> what they are. DoRA's has lost its own end over time.
_KINDS = {
    ".lora_A.weight": "lora_A",
    ".lora_B.weight": "lora_B",
    ".lora_B.bias": "lora_bias",
    ".lora_magnitude_vector": "lora_magnitude_vector",
    ".lora_magnitude_vector.weight": "lora_magnitude_vector",
}
# What trainings of these kinds keep beside the factors, and applying an adapter has no use for.
_OF_TRAINING = (".lora_velora_embed", ".lora_monteclora_sampler.")
_ID = re.compile(r"\w[\w.-]{0,95}(/[\w.-]{1,96})?")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Lora:
    """One adapter, its tensors in float32 by the name of the layer.

    Attributes:
        label: what it is called in an error.
        factors: A ``[rank, in]`` and B ``[out, rank]``, B scaled by alpha / r.
        magnitudes: DoRA's m ``[out]``: the layer is ``m (W + BA) / ||W + BA||``, norms by outputs; else empty.
        biases: what is added to the outputs, scaled likewise, ``[out]``; mostly empty.
    """

    label: str
    config: AdapterConfig
    factors: dict[str, tuple[Tensor, Tensor]]
    magnitudes: dict[str, Tensor]
    biases: dict[str, Tensor]

    @property
    def rank(self) -> int:
        """The largest of its layers'."""
        return max(a.shape[0] for a, _ in self.factors.values())

    @property
    def invocation(self) -> tuple[int, ...]:
        """Tokens from whose last occurrence in a prompt on it counts (aLoRA); empty: it counts from the beginning."""
        return self.config.invocation


def read_lora(folder: Path) -> Lora:
    """Read a PEFT LoRA folder (safetensors only).

    Raises:
        AdapterError: a file that is missing or damaged, a config that is refused (:mod:`mpg.models.adapter_config`),
            tensors that are not what the config says, or not finite.
    """
    config = read_config(folder)
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in _tensors(folder).items():
        if not key.startswith(_PREFIX):
            raise AdapterError(
                f"adapter {folder}: weight {key!r} does not begin with {_PREFIX!r}, and PEFT passes over it; save the "
                "adapter again"
            )
        name = key.removeprefix(_PREFIX)
        if any(part in name for part in _OF_TRAINING):
            continue
        end = next((end for end in _KINDS if name.endswith(end)), None)
        if end is None:
            raise AdapterError(
                f"adapter {folder}: target_modules: weight {key!r} is not a LoRA factor of a linear layer; "
                "merge it into its base (PEFT's merge_and_unload) and give the whole model instead"
            )
        layers.setdefault(name.removesuffix(end), {})[_KINDS[end]] = value
    if not layers:
        raise AdapterError(f"adapter {folder}: no layer is adapted; save the adapter again")
    lora = Lora(str(folder), config, {}, {}, {})
    for name, found in layers.items():
        _check_layer(str(folder), name, found, config)
        scale = config.scale_of(name)
        lora.factors[name] = found["lora_A"], found["lora_B"] * scale
        if "lora_magnitude_vector" in found:
            lora.magnitudes[name] = found["lora_magnitude_vector"].flatten()
        if "lora_bias" in found:
            lora.biases[name] = found["lora_bias"] * scale
        if not all(bool(torch.isfinite(value).all()) for value in (*found.values(), lora.factors[name][1])):
            raise AdapterError(
                f"adapter {folder}: {ADAPTER_WEIGHTS}: layer {name!r} holds NaN or infinite values; "
                "train it again, or take an earlier checkpoint"
            )
    return lora


def _tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of the weights, float32."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        raise AdapterError(f"adapter {folder}: no {file.name} there; give a PEFT LoRA folder saved as safetensors")
    try:
        weights = load_file(file)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise AdapterError(f"adapter {folder}: {file.name} can't be read ({what}); fetch it again") from error
    for key, value in weights.items():
        if value.dtype not in _DTYPES:
            raise AdapterError(
                f"adapter {folder}: {file.name}: {key!r} is {str(value.dtype).removeprefix('torch.')}; "
                "save the adapter in float32, float16 or bfloat16"
            )
    return {key: value.float() for key, value in weights.items()}


def _check_layer(label: str, name: str, found: dict[str, Tensor], config: AdapterConfig) -> None:
    """Raise AdapterError where a layer's tensors are not those that the config says, or no factors at all."""
    missing = [half for half in ("lora_A", "lora_B") if half not in found]
    if missing:
        raise AdapterError(
            f"adapter {label}: layer {name!r} has one factor of two, no {missing[0]}; save the adapter again"
        )
    for field, what in (("use_dora", "lora_magnitude_vector"), ("lora_bias", "lora_bias")):
        if getattr(config, field) != (what in found):
            has = "has no" if getattr(config, field) else "has a"
            raise AdapterError(
                f"adapter {label}: {field}: {str(getattr(config, field)).lower()}, and layer {name!r} {has} {what}; "
                "the config is another adapter's: save the adapter again"
            )
    factors = found["lora_A"], found["lora_B"]
    lines = [value for what, value in found.items() if what not in ("lora_A", "lora_B")]
    if any(each.ndim != 2 or not each.numel() for each in factors) or any(
        line.numel() != len(factors[1]) for line in lines
    ):
        shapes = ", ".join(f"{what} {list(value.shape)}" for what, value in sorted(found.items()))
        raise AdapterError(
            f"adapter {label}: layer {name!r}: {shapes} are no factors of a linear layer; save the adapter again"
        )


def linear_shape(module: object) -> tuple[int, int] | None:
    """Inputs and outputs of a linear layer, GPT-2's transposed kind included; ``None``: it is none."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    # Not what derives from it: a router of experts, a quantized layer compute something else.
    return (module.in_features, module.out_features) if type(module) is nn.Linear else None


def adaptable(model: nn.Module) -> list[str]:
    """The layers of a model that an adapter may change, by name."""
    body, head = f"{body_name(model)}.", model.get_output_embeddings()  # type: ignore[operator]
    return [
        name
        for name, module in model.named_modules()
        if linear_shape(module) and module is not head and name.startswith(body) and not _in_parts(name)
    ]


def _in_parts(name: str) -> bool:
    """Whether a layer is one of several within a layer: one number is the layer's, a second mostly an expert's."""
    return sum(part.isdecimal() for part in name.split(".")) > 1


def check_fit(model: nn.Module, lora: Lora) -> None:
    """Hold an adapter against a model, whose weights may be on ``meta``.

    Raises:
        AdapterError: a factor that fits no linear layer of the model, layers that are not
            those that ``target_modules`` names there, invocation tokens that the model does not have.
    """
    modules, label, body = dict(model.named_modules()), lora.label, f"{body_name(model)}."
    head = model.get_output_embeddings()  # type: ignore[operator]
    for name, (a, b) in lora.factors.items():
        # Of torch's fused attention PEFT keeps two pairs of factors, one of them inside.
        base, whole = modules.get(name), name.partition(".base_layer.")[0]
        if base is not None and base is head:
            raise AdapterError(f"adapter {label}: it changes the vocabulary head {name!r}, which all branches share")
        if base is not None and not name.startswith(body):
            raise AdapterError(
                f"adapter {label}: target_modules: {name!r} lies behind the model's layers, which all branches share; "
                "train it without, or merge it into its base and give the whole model"
            )
        if whole in modules and linear_shape(modules[whole]) is None:
            kind = type(modules[whole]).__name__
            raise AdapterError(
                f"adapter {label}: target_modules: {whole!r} is a {kind} here, no linear layer; "
                "train it on linear layers only, or merge it into its base and give the whole model"
            )
        if base is not None and _in_parts(name):  # which sees some tokens only
            raise AdapterError(
                f"adapter {label}: target_modules: {name!r} is one of several within a layer (an expert), which can't "
                "be adapted; train it without, or merge it into its base and give the whole model"
            )
        if linear_shape(base) != (a.shape[1], b.shape[0]):
            raise AdapterError(
                f"adapter {label}: it was trained for another base model "
                f"(layer {name!r} of shape {b.shape[0]}x{a.shape[1]} is not in this one); use its own base"
            )
        rank, field = lora.config.rank_of(name), "r" if lora.config.rank_of(name) == lora.config.r else "rank_pattern"
        if (a.shape[0], b.shape[1]) != (rank, rank):
            raise AdapterError(
                f"adapter {label}: {field}: {rank}, and layer {name!r} has factors of rank {a.shape[0]} and "
                f"{b.shape[1]}; the config is another adapter's: save the adapter again"
            )
    _check_targets(modules, head, lora)
    vocabulary = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    for token in lora.invocation:
        if token >= vocabulary:
            raise AdapterError(
                f"adapter {label}: alora_invocation_tokens: {token} is no token of this model (0..{vocabulary - 1}); "
                "use its own base"
            )


def _check_targets(modules: dict[str, Any], head: object, lora: Lora) -> None:
    """Raise AdapterError where the layers in the file are not those that the config names."""
    config, label = lora.config, lora.label
    every = config.target_modules == "all-linear"
    for name, module in modules.items():
        linear = linear_shape(module) is not None
        named = linear and module is not head if every else config.targets(name)
        if named and name not in lora.factors:
            what = "" if linear else f", a {type(module).__name__} here"
            raise AdapterError(
                f"adapter {label}: target_modules: layer {name!r}{what} is named and {ADAPTER_WEIGHTS} has no factors "
                "of it; the file is cut short or the config another adapter's: save the adapter again"
            )
        if name in lora.factors and not named:
            raise AdapterError(
                f"adapter {label}: {ADAPTER_WEIGHTS} adapts layer {name!r}, which target_modules (with "
                "exclude_modules and layers_to_transform) does not name; save the adapter again"
            )


def check_base(place: Place, config: AdapterConfig, model: Place) -> None:
    """Hold the base that an adapter names against the model it is used over: a warning, or an error.

    Two ids of the Hub whose last parts differ are two models. A folder may be called anything: a difference is a line
    of the log. Nothing is said of ``place.any_base``, nor where the adapter names none.

    Raises:
        AdapterError: two ids of the Hub that differ.
    """
    theirs = "" if config.base is None else config.base
    ours = str(model.folder.resolve()) if model.folder is not None else model.source
    if place.any_base or not theirs.strip("/\\ ") or _name(theirs) == _name(ours):
        return
    what = f"adapter {place}: base_model_name_or_path: {theirs!r} is not {model.source!r}, the model it is used over"
    if _is_id(theirs) and model.folder is None and not model.is_embedded:
        raise AdapterError(f"{what}; use its own base, or say that it fits (any_base: true, or --any-base)")
    _warn(f"{what}; say that it fits (any_base: true) or use its own base")


@cache
def _warn(text: str) -> None:
    """Once a process: a plan and its pilot both look."""
    logger.warning(text)


def _name(base: str) -> str:
    """The last part of an id or path, whatever its case; of a Hub cache's folder the repository's name."""
    parts = [part for part in base.replace("\\", "/").split("/") if part]
    cached = next((part for part in reversed(parts) if part.startswith("models--")), None)
    return (cached.split("--")[-1] if cached else parts[-1] if parts else "").lower()


def _is_id(base: str) -> bool:
    return _ID.fullmatch(base) is not None and not Place(base).is_embedded and Place(base).folder is None
