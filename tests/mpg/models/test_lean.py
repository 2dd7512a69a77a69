"""The lean forward pass and the lane cache against transformers' own, for each model type it serves."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mpg.models import attention
from mpg.models import backbone as branches
from mpg.models.backbone import TransformersBackbone
from mpg.models.served import LEAN

COMMON = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases, wide heads and scaled positions": (
        "llama",
        {"attention_bias": True, "mlp_bias": True, "head_dim": 16, "rope_parameters": LLAMA3_ROPE},
    ),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {"hidden_act": "gelu"}),
    "a type that runs through transformers' own modules": ("qwen3", {"head_dim": 8}),
}


def models(kind: str) -> tuple[Any, Any]:
    """The same random model twice: one to be wrapped, one left alone."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model_type, extra = KINDS[kind]
    torch.manual_seed(3)
    model, plain = (
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model(model_type, **COMMON, **extra), dtype=torch.float32
        ).eval()
        for _ in range(2)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # which start as ones and zeros
                parameter.add_(torch.randn_like(parameter) * 0.3)
    plain.load_state_dict(model.state_dict())
    return model, plain


@pytest.mark.parametrize("across", [True, False], ids=["products", "fused"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_equals_transformers(kind: str, across: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of a text, fed to lanes in changing sets, after another text that was rolled back."""
    for module in (attention, branches):  # what a GPU uses runs here as well
        monkeypatch.setattr(module, "keys_across", lambda device: across)
    model, plain = models(kind)
    backbone = TransformersBackbone(model)
    assert (backbone.way == "lean") == (KINDS[kind][0] in LEAN)
    texts = torch.randint(1, 50, (6, 12), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = plain(texts).logits
    session, mixes = backbone.session(6, 16), torch.zeros(6, 0)

    def feed(lanes: list[int], tokens: torch.Tensor, first: int) -> torch.Tensor:
        starts = torch.full((len(lanes),), first)
        return session.logits(session.append(lanes, mixes[: len(lanes)], tokens, starts))

    feed([0, 1, 2, 3, 4, 5], texts.flip(0), 0)  # rolled back
    every, scattered = [0, 1, 2, 3, 4, 5], [5, 0, 3]  # a run; and lanes that are gathered
    got = feed(every, texts[:, :5], 0)
    assert torch.allclose(got, wanted[:, :5], atol=1e-4)
    for position in (5, 6, 7):
        got = feed(scattered, texts[scattered, position, None], position)
        assert torch.allclose(got[:, 0], wanted[scattered, position], atol=1e-4)
    got = feed([1, 2, 4], texts[[1, 2, 4], 5:8], 5)
    assert torch.allclose(got, wanted[[1, 2, 4], 5:8], atol=1e-4)
    assert torch.allclose(feed(every, texts[:, 8:], 8), wanted[:, 8:], atol=1e-4)


def test_a_cache_is_used_again() -> None:
    model, plain = models("llama")
    backbone = TransformersBackbone(model)
    text = torch.tensor([[4, 9, 2, 7]])
    for length in (4, 3):
        session = backbone.session(1, 4)
        got = session.logits(session.append([0], torch.zeros(1, 0), text[:, :length], torch.zeros(1, dtype=torch.long)))
        with torch.no_grad():
            assert torch.allclose(got, plain(text[:, :length]).logits, atol=1e-4)
        session.close()
    cache = backbone.session(1, 3).cache
    assert cache is not backbone.session(1, 3).cache  # the first is still in use
