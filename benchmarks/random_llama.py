"""Llamas and LoRA adapters with random weights, drawn on the device they are used on: nothing is downloaded or copied.

What is timed over them is as it would be over trained ones only where their laws are alike, so two scales are
*calibrated*: the vocabulary head's, to laws of a given entropy (a random Llama's are almost flat, and a nucleus of
them holds half the vocabulary), and that of the adapters' B, to components that are a given total variation away from
the reference (drafts of the one are accepted by the other as often as 1 minus that).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mpg.laws.layout import Layout
from mpg.models.adapter_config import AdapterConfig
from mpg.models.adapter_files import Lora
from mpg.models.backbone import TransformersBackbone
from mpg.models.bank import ModelBank
from mpg.models.trunk import first_layer

# As their config.json on the Hub have them.
_LLAMA_3 = {
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
}
_ROPE = {"rope_type": "llama3", "rope_theta": 500000.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
_ROPE |= {"original_max_position_embeddings": 8192}
SHAPES: dict[str, dict[str, Any]] = {
    "8B": _LLAMA_3  # meta-llama/Llama-3.1-8B
    | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"rope_parameters": _ROPE | {"factor": 8.0}, "tie_word_embeddings": False},
    # meta-llama/Llama-3.2-1B, its head apart from its embeddings: one that is scaled must not scale the texts' states.
    "1B": _LLAMA_3
    | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    | {"rope_parameters": _ROPE | {"factor": 32.0}, "tie_word_embeddings": False, "head_dim": 64},
    # For runs that are but a test of the script.
    "small": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 512},
    # For laws that are enumerated, and held against slow references.
    "tiny": {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"num_key_value_heads": 2, "vocab_size": 64, "max_position_embeddings": 256, "initializer_range": 0.15},
}
# An entropy like that of an instruct model at temperature 1: a choice, not a measurement. The components of the shipped
# adapters E and J are a total variation of .19 and .17 away from SmolLM2-135M (docs/adapters.md: .81 and .83 accepted).
ENTROPY, APART = 1.6, 0.18
_PROBE_TOKENS = 64


def llama(shape: str, dtype: torch.dtype, device: str, *, seed: int = 0, **changes: Any) -> Any:
    """A random Llama of one of ``SHAPES``, in eval mode, made on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SHAPES[shape] | {"pad_token_id": 0} | changes)
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def adapter(model: Any, *, seed: int, rank: int = 16, scale: float = 1.0, first: int = 0) -> Lora:
    """Random factors over linear layers, from layer ``first`` up: A of variance 1 / in, B of ``scale**2 / rank / in``.

    ``B A x`` is then ``scale`` times as large as the output of a layer whose weights have variance ``1 / in``.
    """
    head = model.get_output_embeddings()
    generator = torch.Generator(model.device).manual_seed(1000 + seed)
    factors = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module is not head and first_layer([f"{name}."]) >= first:
            inputs = module.in_features
            draws = [
                torch.randn(shape, generator=generator, device=model.device)
                for shape in ((rank, inputs), (module.out_features, rank))
            ]
            factors[name] = draws[0] * inputs**-0.5, draws[1] * (scale * rank**-0.5)
    config = AdapterConfig(
        r=rank, lora_alpha=float(rank), use_rslora=False, use_dora=False, lora_bias=False, rank_pattern={},
        alpha_pattern={}, exclude_modules=(), layers_pattern=(), invocation=(), base=None,
        target_modules=sorted({name.rpartition(".")[2] for name in factors}) if first else "all-linear",
        layers_to_transform=tuple(range(first, model.config.num_hidden_layers)) if first else (),
    )  # fmt: skip
    return Lora(f"random {seed}", config, factors, {}, {})


def bank_of(model: Any, loras: Sequence[Lora], *, eos_ids: frozenset[int] = frozenset()) -> ModelBank:
    """A bank over a model, which is changed in place, and adapters ``a0``, ``a1``, ...; no text ends by itself."""
    names = tuple(f"a{i}" for i in range(len(loras)))
    size = model.config.vocab_size
    return ModelBank(
        backbones=[TransformersBackbone(model, loras)],
        layout=Layout(names, tuple(range(1, 1 + len(names))), (0,) * len(names)),
        vocab_size=size,
        eos_ids=eos_ids,
        max_positions=model.config.max_position_embeddings,
        n_embeddings=size,
    )


@torch.inference_mode()
def merged(model: Any, lora: Lora) -> Any:
    """A copy of a model (not yet in a bank) with an adapter added into its weights: transformers' own forward of it."""
    out = copy.deepcopy(model)
    for name, (down, up) in lora.factors.items():
        weight = out.get_submodule(name).weight
        weight.copy_((weight.float() + up @ down).to(weight.dtype))
    return out


@torch.inference_mode()
def sharpen(model: Any, entropy: float = ENTROPY) -> float:
    """Scale a random model's vocabulary head, in place, until its laws have an entropy (nats, mean over a probe).

    Returns:
        the entropy reached.
    """
    head = model.get_output_embeddings()
    hidden = model.model(input_ids=_probe(model), use_cache=False).last_hidden_state[0]
    logits = (hidden @ head.weight.T).float()

    def reached(factor: float) -> float:
        log_law = (factor * logits).log_softmax(-1)
        return float(-(log_law.exp() * log_law).sum(-1).mean())

    factor = _bisect(lambda f: -reached(f), -entropy)
    head.weight.mul_(factor)
    return reached(factor)


@torch.inference_mode()
def scale_for(bank: ModelBank, apart: float = APART) -> tuple[float, float]:
    """What the B of a bank's one adapter are to be multiplied by, so that its law is ``apart`` from the reference's.

    Returns:
        the factor; the total variation reached, mean over a probe.
    """
    (backbone,) = bank.backbones
    assert isinstance(backbone, TransformersBackbone)
    ids = _probe(backbone.model)

    def law(share: float) -> Tensor:
        session = backbone.session(1, ids.shape[1])
        mix = torch.tensor([[share]], dtype=torch.float64)
        hidden = session.append([0], mix, ids, torch.zeros(1, dtype=torch.long, device=ids.device))
        laws = session.logits(hidden[0]).softmax(-1)
        session.close()
        return laws

    reference = law(0.0)

    def reached(share: float) -> float:
        return float((law(share) - reference).abs().sum(-1).mean()) / 2

    share = _bisect(reached, apart)
    return share, reached(share)


def _probe(model: Any) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    size = model.config.vocab_size
    return torch.randint(0, size, (1, _PROBE_TOKENS), generator=generator).to(model.device)


def _bisect(rising: Any, wanted: float) -> float:
    """Where a rising function has a value, between 1e-4 and 1e4, to a hundredth."""
    low, high = 1e-4, 1e4
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if rising(middle) < wanted else (low, middle)
    return (low * high) ** 0.5
