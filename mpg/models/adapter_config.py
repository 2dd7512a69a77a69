"""What an adapter's config says, judged field by field: what is read, what changes nothing, and what is refused.

Every field of PEFT's ``LoraConfig`` is in one of the three tables below (a test holds them against the installed PEFT),
and a field that is in none of them is refused where it is set.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpg.models.errors import AdapterError
from mpg.models.hub import ADAPTER_CONFIG

# Fields that the arithmetic is made from, or that are held against the model.
READ = (
    *("peft_type", "r", "lora_alpha", "use_rslora", "use_dora", "lora_bias", "rank_pattern", "alpha_pattern"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "alora_invocation_tokens"),
    *("init_lora_weights", "base_model_name_or_path"),
)
# Fields that change nothing when a finished adapter is applied, whatever they are set to.
HARMLESS = {
    "auto_mapping": "names a class of PEFT's",
    "peft_version": "a record",
    "revision": "a record of the base",
    "inference_mode": "says whether its weights are trained",
    "lora_dropout": "training only",
    "fan_in_fan_out": "PEFT itself goes by the kind of layer",
    "loftq_config": "of init_lora_weights: loftq",
    "eva_config": "of init_lora_weights: eva",
    "corda_config": "of init_lora_weights: corda",
    "lora_ga_config": "of init_lora_weights: lora_ga",
    "megatron_core": "of megatron_config",
    "qalora_group_size": "of use_qalora",
    "runtime_config": "where DoRA's norms are computed",
    "velora_config": "another backward pass: training only",
    "monteclora_config": "samples in training only",
}
_MERGE = "merge it into its base (PEFT's merge_and_unload) and give the whole model instead"
_TRAIN = "train it without"
# Fields that are harmless at some values: those, and what to do about any other.
_Value = Callable[[Any], bool]


def _unset(value: Any) -> bool:
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _none(value: Any) -> bool:
    return value is None or value is False  # an empty mapping is all defaults, not nothing


LIMITED: dict[str, tuple[_Value, str]] = {
    "task_type": (lambda v: v in (None, "CAUSAL_LM"), "give an adapter of a causal language model (CAUSAL_LM)"),
    "bias": (lambda v: v in (None, "none"), f"{_TRAIN} (bias: none), or {_MERGE}"),
    "modules_to_save": (_unset, f"whole modules are no LoRA: {_MERGE}"),
    "trainable_token_indices": (_unset, f"trained tokens are no LoRA: {_MERGE}"),
    "target_parameters": (_unset, f"only linear layers can be adapted: {_MERGE}"),
    "layer_replication": (_unset, f"it changes the base's layers: {_MERGE}"),
    "ensure_weight_tying": (_unset, f"it ties embeddings, which all branches share: {_TRAIN}"),
    "megatron_config": (_unset, f"it is for Megatron's layers: {_TRAIN}"),
    "use_qalora": (_unset, f"it is for GPTQ's layers: {_TRAIN}"),
    "use_bdlora": (_none, f"block-diagonal factors are not supported: {_MERGE}"),
    "arrow_config": (_none, "a router among adapters is not supported: give the adapters as attributes"),
    "kasa_config": (_none, "it changes the base's weights: train plain LoRA or DoRA"),
}
# Ways to begin a training that leave the base's weights alone: a finished adapter is plain LoRA.
PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica")
# Ways that change the base's weights, in training or on loading, and that PEFT can convert from.
_CONVERTIBLE = ("pissa", "olora", "corda", "lora_ga")
# What changes the law of an adapter beside r, lora_alpha and use_rslora: part of its fingerprint where it is set.
LAW = ("alora_invocation_tokens", "alpha_pattern", "fan_in_fan_out", "lora_bias", "rank_pattern", "use_dora")
# More would be no low rank; larger numbers of a damaged file are no numbers to reckon with.
_MOST_RANK, _MOST = 1 << 20, 1e30


@dataclass(frozen=True)
class AdapterConfig:
    """A LoRA's config, checked; see PEFT's ``LoraConfig`` for the fields of the same name."""

    r: int
    lora_alpha: float
    use_rslora: bool
    use_dora: bool
    lora_bias: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    target_modules: str | Sequence[str]
    exclude_modules: str | Sequence[str]
    layers_to_transform: Sequence[int]
    layers_pattern: Sequence[str]
    invocation: tuple[int, ...]
    base: str | None

    def rank_of(self, layer: str) -> int:
        return next((rank for key, rank in self.rank_pattern.items() if _matches(key, layer)), self.r)

    def scale_of(self, layer: str) -> float:
        """``alpha / r``, or ``alpha / sqrt(r)`` (rsLoRA, Kalajdzievski 2023), of a layer by its name in the model."""
        alpha = next((alpha for key, alpha in self.alpha_pattern.items() if _matches(key, layer)), self.lora_alpha)
        rank = self.rank_of(layer)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)

    def targets(self, layer: str) -> bool:
        """Whether PEFT adapts a module of this name, by its own rule; ``all-linear`` is left to the caller."""
        excluded = self.exclude_modules
        if re.fullmatch(excluded, layer) if isinstance(excluded, str) else _ends_with(layer, excluded):
            return False
        if isinstance(self.target_modules, str):
            return re.fullmatch(self.target_modules, layer) is not None
        if layer in self.target_modules:
            return True
        if not _ends_with(layer, self.target_modules):
            return False
        if not self.layers_to_transform:
            return True
        # As there: the first number after a dot, or the one behind the first pattern that fits.
        rules = [rf"(?:^|.*?\.){p}\.(?P<idx>\d+)\." for p in self.layers_pattern] or [r".*?\.[^.]*\.(?P<idx>\d+)\."]
        found = next((match for rule in rules if (match := re.match(rule, layer))), None)
        return found is not None and int(found["idx"]) in self.layers_to_transform


def _ends_with(layer: str, names: Sequence[str]) -> bool:
    return any(layer == name or layer.endswith(f".{name}") for name in names)


def _matches(key: str, layer: str) -> bool:
    return re.match(rf"(.*\.)?({key})$", layer) is not None


def read_json(folder: Path) -> dict[str, Any]:
    """An adapter's config as it stands there. Raises AdapterError: it can't be read, or is no mapping."""
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        raise AdapterError(f"adapter {folder}: no {ADAPTER_CONFIG} there; give a PEFT LoRA folder saved as safetensors")
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        what = f"{ADAPTER_CONFIG} can't be read ({type(error).__name__}: {' '.join(str(error).split())})"
        raise AdapterError(f"adapter {folder}: {what}; save the adapter again") from error
    if not isinstance(values, dict):
        raise AdapterError(
            f"adapter {folder}: {ADAPTER_CONFIG} holds a {type(values).__name__}, no mapping; save the adapter again"
        )
    return values


def read_config(folder: Path) -> AdapterConfig:
    """Read and judge an adapter's config.

    Raises:
        AdapterError: a config that can't be read, or a field that is no LoRA's of a kind that is taken, by its name.
    """
    return _Judge(folder, read_json(folder)).config()


class _Judge:
    """One config under judgement: each method takes a field, or refuses it by name."""

    def __init__(self, folder: Path, values: Mapping[str, Any]) -> None:
        self._folder, self._values = folder, values

    def config(self) -> AdapterConfig:
        self._refuse_what_is_not_known()
        self._start()
        patterns = {
            "rank_pattern": self._pattern("rank_pattern", _is_rank, "ranks, whole numbers from 1"),
            "alpha_pattern": self._pattern("alpha_pattern", _is_alpha, "numbers other than 0"),
        }
        config = AdapterConfig(
            r=self._take("r", _is_rank, "a whole number from 1"),
            lora_alpha=self._take("lora_alpha", _is_alpha, "a number other than 0"),
            use_rslora=self._flag("use_rslora"),
            use_dora=self._flag("use_dora"),
            lora_bias=self._flag("lora_bias"),
            target_modules=self._names("target_modules"),
            exclude_modules=self._names("exclude_modules") if not _unset(self._values.get("exclude_modules")) else (),
            layers_to_transform=self._layers(),
            layers_pattern=self._layer_patterns(),
            invocation=self._invocation(),
            base=self._base(),
            **patterns,
        )
        variants = ["use_dora", "alora_invocation_tokens", "velora_config", "monteclora_config"]
        both = [name for name in variants if not _unset(self._values.get(name))]
        both += ["init_lora_weights"] if both and self._values.get("init_lora_weights") == "mica" else []
        if len(both) > 1:
            self._refuse(both[1], f"PEFT has no adapter that is {both[0]}, too; save the adapter again")
        return config

    def _refuse(self, field: str, why: str) -> None:
        shown = repr(self._values.get(field))
        shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
        raise AdapterError(f"adapter {self._folder}: {ADAPTER_CONFIG}: {field}: {shown}: {why}")

    def _refuse_what_is_not_known(self) -> None:
        if self._values.get("peft_type") != "LORA":
            self._refuse("peft_type", "only LoRA is supported (LORA); give such an adapter, or a whole model")
        for field, value in self._values.items():
            harmless, remedy = LIMITED.get(field, (_unset, f"a field that is not known here; {_TRAIN}, or {_MERGE}"))
            if field not in READ and field not in HARMLESS and not harmless(value):
                self._refuse(field, remedy)

    def _start(self) -> None:
        start = self._values.get("init_lora_weights", True)
        if start is None or isinstance(start, bool) or start in PLAIN_STARTS:
            return
        why = "it is not known whether such an adapter leaves the base's weights alone"
        remedy = _MERGE
        if isinstance(start, str) and (start.lower().startswith("pissa") or start.lower() in _CONVERTIBLE):
            why = "it goes with a base whose weights it has changed"
            remedy = "save it again with PEFT's save_pretrained(path_initial_model_for_weight_conversion=...)"
        elif start == "loftq":
            why, remedy = "it goes with a base whose weights were quantized for it", "train plain LoRA or DoRA"
        self._refuse("init_lora_weights", f"{why}; {remedy}")

    def _take(self, field: str, good: _Value, wanted: str) -> Any:
        if field not in self._values:
            what = f"{ADAPTER_CONFIG} can't be read (KeyError: {field!r}): it must be {wanted}"
            raise AdapterError(f"adapter {self._folder}: {what}; save the adapter again")
        if not good(self._values[field]):
            self._refuse(field, f"it must be {wanted}; save the adapter again")
        return self._values[field]

    def _flag(self, field: str) -> bool:
        if self._values.get(field) is None:
            return False
        return bool(self._take(field, lambda v: isinstance(v, bool), "true or false"))

    def _pattern(self, field: str, good: _Value, wanted: str) -> Any:
        found = self._values.get(field)
        if found is None:
            return {}
        self._take(field, lambda v: isinstance(v, dict) and all(map(good, v.values())), f"a mapping to {wanted}")
        for key in found:
            self._rule(field, rf"(.*\.)?({key})$")
        return found

    def _rule(self, field: str, rule: str) -> None:
        try:
            re.compile(rule)
        except (re.error, OverflowError, RecursionError) as error:
            self._refuse(field, f"no regular expression ({error}); save the adapter again")

    def _names(self, field: str) -> Any:
        wanted = "the layers' names, a list or one regular expression"
        found = self._take(field, lambda v: bool(v) and (isinstance(v, str) or _are(str, v)), wanted)
        if isinstance(found, str):
            self._rule(field, found)
        return found

    def _layers(self) -> tuple[int, ...]:
        found = self._values.get("layers_to_transform")
        if found is None:
            return ()
        if isinstance(self._values.get("target_modules"), str):
            self._refuse("layers_to_transform", "PEFT takes it with a list of target_modules only; save it again")
        self._take("layers_to_transform", lambda v: _is_index(v) or _are(int, v), "numbers of layers")
        return (found,) if isinstance(found, int) else tuple(found)

    def _layer_patterns(self) -> tuple[str, ...]:
        found: Any = self._values.get("layers_pattern")
        if _unset(found):
            return ()
        self._take("layers_pattern", lambda v: isinstance(v, str) or _are(str, v), "names of lists of layers")
        patterns = (found,) if isinstance(found, str) else tuple(found)
        for pattern in patterns:
            self._rule("layers_pattern", rf"(?:^|.*?\.){pattern}\.(?P<idx>\d+)\.")
        return patterns

    def _invocation(self) -> tuple[int, ...]:
        if self._values.get("alora_invocation_tokens") is None:
            return ()
        return tuple(
            self._take("alora_invocation_tokens", lambda v: bool(v) and _are(int, v), "a list of one or more token ids")
        )

    def _base(self) -> str | None:
        if self._values.get("base_model_name_or_path") is None:
            return None
        return str(self._take("base_model_name_or_path", lambda v: isinstance(v, str), "a model's name"))


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_rank(value: Any) -> bool:
    return _is_index(value) and 1 <= value <= _MOST_RANK


def _is_alpha(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value != 0 and -_MOST < value < _MOST


def _are(kind: type, value: Any) -> bool:
    """Whether a value is a list of strings, or of numbers from 0."""
    return isinstance(value, list) and all(_is_index(v) if kind is int else isinstance(v, kind) for v in value)
