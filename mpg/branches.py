"""Backbones: models that score the same tokens under several branches in one forward pass.

A transformers model and the LoRA adapters over it form one backbone. Its branches are the bare model
(branch 0) and each adapter; the big base matmul runs once over all branches, the low-rank deltas run
as one grouped matmul beside it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mpg.cache import SlotCache

logger = logging.getLogger(__name__)


class BankError(ValueError):
    """A model or adapter that can't take part; the message names it and the remedy."""


class BackboneSession(Protocol):
    """KV state of a number of slots in one backbone."""

    def append(self, branches: slice, slots: slice, tokens: Tensor, starts: Tensor) -> Tensor:
        """Feed ``tokens [rows, time]`` at ``starts [rows]``; hidden states ``[branches, rows, time, hidden]``."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits ``[..., vocab]`` of hidden states ``[..., hidden]``."""
        ...

    def copy(self, source: int, target: int) -> None:
        """Copy slot ``source`` over slot ``target``."""
        ...


class Backbone(Protocol):
    """Scores branches; ``n_branches`` of them."""

    n_branches: int
    device: torch.device

    def session(self, slots: int, capacity: int) -> BackboneSession: ...


# --------------------------------------------------------------------------- function models


@dataclass(frozen=True)
class FunctionModel:
    """A model given as a function: ``LongTensor [batch, time] -> next-token logits [batch, vocab]``."""

    fn: Callable[[Tensor], Tensor]
    vocab_size: int
    eos_id: int


class FunctionBackbone:
    """Function models as branches, without any cache: the slow, obvious backbone of the law tests."""

    device = torch.device("cpu")

    def __init__(self, models: Sequence[FunctionModel]) -> None:
        self.models = tuple(models)
        self.n_branches = len(self.models)

    def session(self, slots: int, capacity: int) -> FunctionSession:
        return FunctionSession(self.models, slots, capacity)


class FunctionSession:
    """The slots' tokens; their logits are computed from the whole prefix each time."""

    def __init__(self, models: tuple[FunctionModel, ...], slots: int, capacity: int) -> None:
        self._models = models
        self._tokens = torch.zeros(len(models), slots, capacity, dtype=torch.long)

    def append(self, branches: slice, slots: slice, tokens: Tensor, starts: Tensor) -> Tensor:
        models = self._models[branches]
        n_rows, n_tokens = tokens.shape
        positions = starts[:, None] + torch.arange(n_tokens)  # [rows, time]
        held = self._tokens[branches, slots]  # [branches, rows, capacity]
        held[:, torch.arange(n_rows)[:, None], positions] = tokens
        hidden = [torch.empty(0)] * (len(models) * n_tokens)
        for b, model in enumerate(models):
            for t in range(n_tokens):
                logits = torch.empty(n_rows, model.vocab_size, dtype=torch.float64)
                for length in (positions[:, t] + 1).unique().tolist():
                    rows = (positions[:, t] + 1 == length).nonzero()[:, 0]
                    logits[rows] = model.fn(held[b, rows, :length]).to(logits)
                hidden[b * n_tokens + t] = logits
        return torch.stack(hidden).unflatten(0, (len(models), n_tokens)).transpose(1, 2)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden

    def copy(self, source: int, target: int) -> None:
        self._tokens[:, target] = self._tokens[:, source]


# --------------------------------------------------------------------------- transformers models


@dataclass
class _Active:
    """Which branches the running forward pass holds; shared by all BranchLinear of a backbone."""

    branches: slice = field(default_factory=lambda: slice(0, 1))


class BranchLinear(nn.Module):
    """A linear layer with one low-rank delta per branch: ``y_b = W x_b + B_b A_b x_b``.

    The input's leading dimension is branches times rows. Branch 0 is the bare layer. Adapters of
    smaller rank are padded with zeros; one that leaves this layer alone has zeros throughout.
    """

    def __init__(self, base: nn.Linear, deltas: Sequence[tuple[Tensor, Tensor] | None], active: _Active) -> None:
        super().__init__()
        self.down: Tensor
        self.up: Tensor
        self.base, self._active = base, active
        rank = max(a.shape[0] for a, _ in filter(None, deltas))
        down = base.weight.new_zeros(len(deltas), base.in_features, rank)
        up = base.weight.new_zeros(len(deltas), rank, base.out_features)
        for i, delta in enumerate(deltas):
            if delta is not None:
                a, b = delta  # [rank, in], [out, rank]
                down[i, :, : a.shape[0]] = a.T.to(down)
                up[i, : a.shape[0]] = b.T.to(up)
        self.register_buffer("down", down, persistent=False)  # [adapters, in, rank]
        self.register_buffer("up", up, persistent=False)  # [adapters, rank, out]

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        first, stop = self._active.branches.start, self._active.branches.stop
        if stop <= 1:
            return y
        branches = stop - first
        low = max(first, 1)
        adapters = slice(low - 1, stop - 1)
        inputs = x.reshape(branches, -1, x.shape[-1])[low - first :]  # [adapters, rows * time, in]
        outputs = y.view(branches, -1, y.shape[-1])[low - first :]
        outputs.baddbmm_(torch.bmm(inputs, self.down[adapters]), self.up[adapters])
        return y


class TransformersBackbone:
    """A causal language model and the LoRA adapters over it.

    Args:
        model: a transformers causal LM in eval mode; its linear layers are wrapped in place.
        adapters: PEFT adapter folders, one branch each, in order.

    Raises:
        BankError: attention that is not full causal, an adapter that is not plain LoRA over this
            model's linear layers.
    """

    def __init__(self, model: Any, adapters: Sequence[Path] = ()) -> None:
        _check_attention(model.config)
        self.model = model
        self.device = model.device
        self.n_branches = 1 + len(adapters)
        self._active = _Active()
        if adapters:
            _wrap(model, [_read_lora(Path(path)) for path in adapters], [str(p) for p in adapters], self._active)

    def session(self, slots: int, capacity: int) -> TransformersSession:
        return TransformersSession(self, slots, capacity)

    @torch.inference_mode()
    def forward(self, cache: SlotCache, branches: slice, slots: slice, tokens: Tensor, starts: Tensor) -> Tensor:
        n_branches = branches.stop - branches.start
        mask = cache.aim(branches, slots, starts, tokens.shape[1])
        positions = starts[:, None] + torch.arange(tokens.shape[1], device=starts.device)
        self._active.branches = branches
        output = self.model.base_model(
            input_ids=tokens.repeat(n_branches, 1),
            attention_mask=mask.repeat(n_branches, 1, 1, 1),
            position_ids=positions.repeat(n_branches, 1),
            past_key_values=cache,
            use_cache=True,
        )
        hidden: Tensor = output.last_hidden_state
        return hidden.unflatten(0, (n_branches, -1))


class TransformersSession:
    """One preallocated cache over a backbone's branches and slots."""

    def __init__(self, backbone: TransformersBackbone, slots: int, capacity: int) -> None:
        self._backbone = backbone
        self._cache = SlotCache(branches=backbone.n_branches, slots=slots, capacity=capacity)

    def append(self, branches: slice, slots: slice, tokens: Tensor, starts: Tensor) -> Tensor:
        return self._backbone.forward(self._cache, branches, slots, tokens, starts)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._backbone.model.get_output_embeddings()(hidden)
        return logits

    def copy(self, source: int, target: int) -> None:
        self._cache.copy(source, target)


def _check_attention(config: Any) -> None:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    if kinds != {"full_attention"} or (window and not getattr(config, "layer_types", None)):
        raise BankError(
            f"model type {config.model_type!r} mixes other layers with full causal attention "
            f"({', '.join(sorted(kinds))}, sliding_window={window}); use a full-attention model"
        )


@dataclass(frozen=True)
class _Lora:
    scale: float
    factors: dict[str, tuple[Tensor, Tensor]]  # module name -> A [rank, in], B [out, rank]


def _read_lora(folder: Path) -> _Lora:
    """Read a PEFT LoRA folder (safetensors only)."""
    from safetensors.torch import load_file

    config_file, weights_file = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            raise BankError(f"adapter {folder}: no {file.name} there; give a PEFT LoRA folder saved as safetensors")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    unsupported = [key for key in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if config.get(key)]
    if config.get("peft_type") != "LORA" or unsupported or config.get("bias", "none") != "none":
        raise BankError(
            f"adapter {folder}: only plain LoRA is supported "
            f"(peft_type={config.get('peft_type')}, also set: {', '.join(unsupported) or 'nothing'})"
        )
    rank = config["r"]
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, value in load_file(weights_file).items():
        name = key.removeprefix("base_model.model.")
        for half in ("lora_A", "lora_B"):
            if name.endswith(f".{half}.weight"):
                halves.setdefault(name.removesuffix(f".{half}.weight"), {})[half] = value
                break
        else:
            raise BankError(f"adapter {folder}: weight {key!r} is not a LoRA factor of a linear layer")
    return _Lora(scale, {name: (pair["lora_A"], pair["lora_B"]) for name, pair in halves.items()})


def check_adapters(model: nn.Module, adapters: Sequence[Path]) -> None:
    """Raise BankError where an adapter is not plain LoRA over this model; weights may be on ``meta``."""
    for folder in adapters:
        _check_fit(model, _read_lora(folder), str(folder))


def _check_fit(model: nn.Module, lora: _Lora, label: str) -> None:
    modules = dict(model.named_modules())
    for name, (a, b) in lora.factors.items():
        base = modules.get(name)
        if not isinstance(base, nn.Linear) or (base.in_features, base.out_features) != (a.shape[1], b.shape[0]):
            raise BankError(
                f"adapter {label}: it was trained for another base model "
                f"(layer {name!r} of shape {b.shape[0]}x{a.shape[1]} is not in this one); use its own base"
            )


def _wrap(model: nn.Module, loras: Sequence[_Lora], labels: Sequence[str], active: _Active) -> None:
    for lora, label in zip(loras, labels, strict=True):
        _check_fit(model, lora, label)
    modules = dict(model.named_modules())
    for name in sorted({name for lora in loras for name in lora.factors}):
        base = modules[name]
        assert isinstance(base, nn.Linear)
        deltas: list[tuple[Tensor, Tensor] | None] = []
        for lora in loras:
            factors = lora.factors.get(name)
            deltas.append(None if factors is None else (factors[0].float(), factors[1].float() * lora.scale))
        parent_name, _, child = name.rpartition(".")
        setattr(modules[parent_name] if parent_name else model, child, BranchLinear(base, deltas, active))
