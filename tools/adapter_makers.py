"""Every kind of adapter that PEFT can write, made tiny: what :mod:`tools.adapter_variants` makes its table of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

VOCABULARY = 64
INVOCATION = [11, 12]
_ATTENTION = ["q_proj", "v_proj"]


@dataclass(frozen=True)
class Variant:
    """One line of the table.

    Attributes:
        base: model type, ``gpt2`` with Conv1D, ``phi3`` with fused projections; ``llama+mha`` with torch's attention.
        config: of PEFT's ``LoraConfig``, beside r and alpha.
        make: another way to make it than PEFT's ``get_peft_model``; gets the base and the folder.
        edit: fields written into the saved config by hand, where PEFT needs a library or hardware for it.
        inside: folder that PEFT saves it to, in the one it is told.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    base: str = "llama"
    make: Callable[[Any, Path], None] | None = None
    edit: Mapping[str, Any] = field(default_factory=dict)
    adapter_name: str = "default"
    inside: str = ""


def base_model(kind: str) -> Any:
    """A random model of two layers, the same at every call."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    sizes |= {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    sizes |= {"initializer_range": 0.2}
    if kind != "gpt2":
        sizes |= {"intermediate_size": 48, "num_key_value_heads": 2, "attention_bias": kind.startswith("llama")}
    if kind == "qwen2_moe":
        sizes |= {"num_experts": 4, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 24}
    elif kind == "mixtral":
        sizes |= {"num_local_experts": 4, "sliding_window": None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind.partition("+")[0], **sizes))
    for name, parameter in model.named_parameters():  # biases begin at 0
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.2)
    if kind.endswith("+mha"):
        model.model.layers[0].fused = nn.MultiheadAttention(32, 4)
    return model.eval()


def make(variant: Variant, base: Path, folder: Path) -> Path:
    """Write an adapter, its weights drawn at random, into a folder; returns the adapter's own."""
    if variant.make is not None:
        variant.make(base_model(variant.base), folder)
        return folder / variant.inside
    save(_peft(base_model(variant.base), variant.config, variant.adapter_name), base, folder)
    own = folder / variant.inside
    if variant.edit:
        file = own / "adapter_config.json"
        file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | dict(variant.edit)), "utf-8")
    return own


def _peft(model: Any, config: Mapping[str, Any], name: str = "default") -> Any:
    from peft import LoraConfig, get_peft_model

    given = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | dict(config)
    return get_peft_model(model, LoraConfig(**given), adapter_name=name)


def save(model: Any, base: Path, folder: Path, **how: Any) -> None:
    """As PEFT saves it, after a training of random steps."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    for config in model.peft_config.values():
        config.base_model_name_or_path = str(base)
    model.save_pretrained(folder, **how)


def _converted(model: Any, folder: Path) -> None:
    """PiSSA as plain LoRA over the base that it began with."""
    adapted = _peft(model, {"init_lora_weights": "pissa"})
    adapted.peft_config["default"].init_lora_weights = True
    adapted.save_pretrained(folder / "first")
    adapted.peft_config["default"].init_lora_weights = "pissa"
    save(adapted, folder.parent / "base", folder, path_initial_model_for_weight_conversion=str(folder / "first"))


def _lora_ga(model: Any, folder: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.config import LoraGAConfig
    from peft.tuners.lora.loraga import preprocess_loraga

    config = LoraConfig(
        r=4,
        target_modules=_ATTENTION,
        init_lora_weights="lora_ga",
        lora_ga_config=LoraGAConfig(),
        task_type="CAUSAL_LM",
    )
    preprocess_loraga(model, config, lambda: model(_some_tokens(), labels=_some_tokens()).loss.backward())
    save(get_peft_model(model, config), folder.parent / "base", folder)


def _ia3(model: Any, folder: Path) -> None:
    from peft import IA3Config, get_peft_model

    targets = {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    save(get_peft_model(model, IA3Config(task_type="CAUSAL_LM", **targets)), folder.parent / "base", folder)


def _merged(model: Any, folder: Path) -> None:
    adapted = _peft(model, {})
    save(adapted, folder.parent / "base", folder / "adapter")
    adapted.merge_and_unload().save_pretrained(folder)


def _pickled(model: Any, folder: Path) -> None:
    save(_peft(model, {}), folder.parent / "base", folder, safe_serialization=False)


def _some_tokens() -> torch.Tensor:
    return torch.randint(VOCABULARY, (4, 40), generator=torch.Generator().manual_seed(2))


@cache
def variants() -> tuple[Variant, ...]:
    """All of them."""
    from peft.tuners.lora.config import BdLoraConfig, KasaConfig, MontecloraConfig, VeloraConfig

    some = {"target_modules": _ATTENTION}
    patterns = {
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.up_proj": 6},
        "alpha_pattern": {"v_proj": 3, "model.layers.0.self_attn.q_proj": 9},
    }
    return (
        Variant("plain"),
        Variant("rank-stabilised (rsLoRA)", {"use_rslora": True}),
        Variant("ranks and alphas by layer", patterns),
        Variant("ranks and alphas by layer, rsLoRA", {**patterns, "use_rslora": True}),
        Variant("some modules only", some),
        Variant("modules by a regular expression", {"target_modules": r".*\.0\..*(q|up)_proj"}),
        Variant("some layers only", {**some, "layers_to_transform": [1]}),
        Variant("some layers of a named list", {**some, "layers_to_transform": 0, "layers_pattern": "layers"}),
        Variant("without some modules", {"exclude_modules": ["up_proj"]}),
        Variant("another name than default", {}, adapter_name="mine", inside="mine"),
        Variant("dropout", {"lora_dropout": 0.2}),
        Variant("DoRA", {"use_dora": True}),
        Variant("DoRA, ranks and alphas by layer, rsLoRA", {**patterns, "use_dora": True, "use_rslora": True}),
        Variant("biases of the factors", {"lora_bias": True}),
        Variant("aLoRA", {"alora_invocation_tokens": INVOCATION}),
        Variant("begun gaussian", {"init_lora_weights": "gaussian"}),
        Variant("begun orthogonal", {"init_lora_weights": "orthogonal"}),
        Variant("begun by EVA", {"init_lora_weights": "eva", **patterns}),
        Variant("begun by MiCA", {"init_lora_weights": "mica"}),
        Variant("VeLoRA", {"velora_config": VeloraConfig(num_groups=4)}),
        Variant("MonteCLoRA", {"monteclora_config": MontecloraConfig()}),
        Variant("PiSSA, converted by PEFT", make=_converted),
        Variant("GPT-2's layers (Conv1D, fan_in_fan_out)", {"fan_in_fan_out": True}, base="gpt2"),
        Variant("GPT-2's layers, DoRA", {"fan_in_fan_out": True, "use_dora": True}, base="gpt2"),
        Variant("fused projections (Phi-3)", base="phi3"),
        Variant("fused projections, DoRA", {"use_dora": True}, base="phi3"),
        Variant(
            "an expert that every token passes (Qwen2-MoE)",
            {"target_modules": ["shared_expert.up_proj", "shared_expert.down_proj", "shared_expert_gate", "q_proj"]},
            base="qwen2_moe",
        ),
        Variant("merged weights: a whole model", make=_merged),
        Variant("PiSSA", {"init_lora_weights": "pissa"}),
        Variant("PiSSA by a fast SVD", {"init_lora_weights": "pissa_niter_4"}),
        Variant("OLoRA", {"init_lora_weights": "olora"}),
        Variant("CorDA", some, edit={"init_lora_weights": "corda", "corda_config": {"corda_method": "ipm"}}),
        Variant("LoRA-GA", make=_lora_ga),
        Variant("LoftQ", some, edit={"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}),
        Variant("KaSA", {**some, "kasa_config": KasaConfig()}),
        Variant("BD-LoRA", {**some, "use_bdlora": BdLoraConfig(target_modules_bd_a=_ATTENTION, nblocks=2)}),
        Variant("Arrow", some, edit={"arrow_config": {"top_k": 3, "router_temperature": 1.0}}),
        Variant("QALoRA", some, edit={"use_qalora": True}),
        Variant("Megatron's layers", some, edit={"megatron_config": {"tensor_model_parallel_size": 1}}),
        Variant("embeddings", {"target_modules": ["embed_tokens", "q_proj"]}),
        Variant("the vocabulary head", {"target_modules": ["lm_head", "q_proj"]}),
        Variant("saved modules", {**some, "modules_to_save": ["lm_head"]}),
        Variant("trained tokens", {**some, "trainable_token_indices": [1, 2]}),
        Variant("tied embeddings", some, edit={"ensure_weight_tying": True}),
        Variant("biases of the model", {**some, "bias": "all"}),
        Variant("biases of adapted layers", {**some, "bias": "lora_only"}),
        Variant("parameters by name", {**some, "target_parameters": ["self_attn.k_proj.weight"]}),
        Variant("experts of a mixture (Mixtral)", base="mixtral"),
        Variant("torch's fused attention (MHA)", {"target_modules": ["fused"]}, base="llama+mha"),
        Variant("replicated layers", {**some, "layer_replication": [[0, 2], [1, 2]]}),
        Variant("a task with a head of its own", {**some, "task_type": "SEQ_CLS"}),
        Variant("a field that nobody here knows", some, edit={"lora_sparsity": 0.5}),
        Variant("pickled weights (.bin)", make=_pickled),
        Variant("another method (IA3)", make=_ia3),
    )
