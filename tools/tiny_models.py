"""Tiny models of any type of transformers, by their own configurations, and what changes a type's arithmetic."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch

_LARGEST = 25_000_000  # parameters of a model that is built here

# Sizes by the names that configurations give them; a type has some of these.
SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "initializer_range": 0.3,
    "sliding_window": 5, "attention_chunk_size": 8, "moe_intermediate_size": 16, "num_local_experts": 4,
    "num_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "first_k_dense_replace": 1, "n_group": 1,
    "topk_group": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4,
    "v_head_dim": 8, "rotary_dim": 4, "image_size": 16, "patch_size": 8, "vocab_size_per_layer_input": 64,
    "hidden_size_per_layer_input": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_VISION = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
}  # fmt: skip
# What some types need besides, to be built tiny.
OPTIONS: dict[str, dict[str, Any]] = {
    "gemma3": {"vision_config": _VISION, "mm_tokens_per_image": 4},
    "gemma3n_text": {
        "num_hidden_layers": 6, "num_kv_shared_layers": 2, "activation_sparsity_pattern": [0.0] * 6, "laurel_rank": 4,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"] * 2, "intermediate_size": [48] * 6,
    },
    # Layers without rotary positions scale their queries by how far they stand, from `floor_scale` (8192) on.
    "llama4_text": {"no_rope_layers": [1, 0], "floor_scale": 4, "attn_temperature_tuning": False},
    "llama4": {"no_rope_layers": [1, 0], "floor_scale": 4, "attn_temperature_tuning": False},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 5},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "longcat_flash": {"ffn_hidden_size": 32, "expert_ffn_hidden_size": 16, "moe_topk": 2, "zero_expert_num": 2},
}  # fmt: skip
# Fields that are no arithmetic of a decoder that reads: what is returned, trained, or of other heads.
_NOT_ARITHMETIC = (
    "use_cache", "output_", "return_dict", "is_encoder_decoder", "add_cross_attention", "summary_", "dropout", "pdrop",
    "jitter", "_eps", "eps", "epsilon", "_coef", "initializer", "init_", "is_decoder", "aux_loss", "layerdrop", "_std",
    "classifier", "mtp_",
)  # fmt: skip
_ROPE = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
ROPES: dict[str, dict[str, Any]] = {
    "linear": _ROPE,
    "dynamic": _ROPE,
    "yarn": _ROPE,
    "llama3": _ROPE | {"low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": _ROPE | {"short_factor": [1.0, 1.5, 2.0, 3.0], "long_factor": [2.0, 4.0, 6.0, 8.0]},
}
HEADS = {"every head its own keys": 4, "one head of keys": 1}


def config_of(model_type: str, options: Mapping[str, Any] | None = None) -> Any:
    """A tiny configuration of a type. Raises whatever the type's own checks raise."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind, given = CONFIG_MAPPING[model_type], dict(OPTIONS.get(model_type, {}))
    text = text_kind(kind)
    if text is None:
        return _small(kind, given | dict(options or {}))
    of_text = {name: given.pop(name) for name in list(given) if name not in {f.name for f in dataclasses.fields(kind)}}
    return _small(kind, given | {"text_config": _small(text, of_text | dict(options or {}))})


def text_kind(kind: Any) -> Any:
    """Of a model that sees or hears besides: the configuration of what reads; else ``None``."""
    text = getattr(kind, "sub_configs", {}).get("text_config")
    return text if text is not None and dataclasses.is_dataclass(text) else None


def _small(kind: Any, options: Mapping[str, Any]) -> Any:
    fields = {each.name for each in dataclasses.fields(kind)}
    given = {kind.attribute_map.get(name, name): value for name, value in SMALL.items()}
    given = {name: value for name, value in given.items() if name in fields}
    if "qk_rope_head_dim" in fields:  # the dimension of a head is the sum of two
        given.pop("head_dim", None)
        given["num_key_value_heads"] = 4
    kinds = None
    with suppress(Exception):
        kinds = getattr(kind(), "layer_types", None)
    if kinds and "layer_types" in fields:  # every kind of layer that the type has
        given["layer_types"] = list(dict.fromkeys(kinds)) * (1 if len(set(kinds)) > 1 else 2)
        given[kind.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(given["layer_types"])
    given |= options
    for name, part in getattr(kind, "sub_configs", {}).items():
        if part is not None and dataclasses.is_dataclass(part) and name not in given:
            given[name] = _small(part, {})
    return kind(**given)


def variants_of(model_type: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, options) of what changes a type's arithmetic: each switch turned, each factor set, heads, positions."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = CONFIG_MAPPING[model_type]
    kind = text_kind(kind) or kind
    fields = {each.name: str(each.type) for each in dataclasses.fields(kind)}
    heads = kind.attribute_map.get("num_key_value_heads", "num_key_value_heads")
    if heads in fields and "qk_rope_head_dim" not in fields:
        for name, count in HEADS.items():
            yield name, {heads: count}
    if "head_dim" in fields and "qk_rope_head_dim" not in fields:
        yield "wide heads", {"head_dim": 16}
    for name, text in fields.items():
        if any(part in name for part in _NOT_ARITHMETIC):
            continue
        if "bool" in text:
            default = next(each.default for each in dataclasses.fields(kind) if each.name == name)
            value = not OPTIONS.get(model_type, {}).get(name, default)
            kinds = name == "use_sliding_window" and "layer_types" in fields
            extra = {"layer_types": ["sliding_attention", "full_attention"]} if kinds else {}
            yield f"{name}={value}", {name: value} | extra
        elif "float" in text and "dict" not in text and "list" not in text:
            yield f"{name}=0.7", {name: 0.7}
    if "sliding_window" in fields:
        yield "no window", {"sliding_window": None}
    if "num_kv_shared_layers" in fields:
        yield "no shared keys", {"num_kv_shared_layers": 0}
    parameters = None
    with suppress(Exception):
        parameters = getattr(kind(), "rope_parameters", None)
    if isinstance(parameters, dict) and "rope_theta" in parameters:  # one for all kinds of layers
        for name, values in ROPES.items():
            yield f"{name} positions", {"rope_parameters": values | {"rope_type": name}}
        yield "partly rotary", {"rope_parameters": parameters | {"partial_rotary_factor": 0.5}}
    elif isinstance(parameters, dict) and all(isinstance(each, dict) for each in parameters.values()):
        for name, values in ROPES.items():
            each = {kind_of: dict(values) | {"rope_type": name} for kind_of in parameters}
            yield f"{name} positions", {"rope_parameters": each}


def model_of(config: Any, seed: int = 3) -> Any:
    """A model of random weights, norms and biases included, peaked enough for its laws to differ."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        size = sum(each.numel() for each in AutoModelForCausalLM.from_config(config).parameters())
    if size > _LARGEST:
        raise ValueError(f"{size / 1e6:.0f} million parameters where a tiny one was asked for")
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # which start as ones and zeros
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif parameter.numel() > 1 and parameter.std() < 0.05:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return model
