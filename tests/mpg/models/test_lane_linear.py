"""Adapted layers, whatever shape a model gives them its tokens in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from mpg import BankError
from mpg.models.adapter_config import AdapterConfig
from mpg.models.adapter_files import Lora
from mpg.models.lane_linear import LaneLinears, Mix

LANES, TIME, IN, OUT = 3, 4, 6, 5


def _lora(seed: int, rank: int, *, dora: bool) -> Lora:
    draw = torch.Generator().manual_seed(seed)
    config = AdapterConfig(
        r=rank,
        lora_alpha=1.0,
        use_rslora=False,
        use_dora=dora,
        lora_bias=False,
        rank_pattern={},
        alpha_pattern={},
        target_modules=["it"],
        exclude_modules=(),
        layers_to_transform=(),
        layers_pattern=(),
        invocation=(),
        base=None,
    )
    factors = torch.randn(rank, IN, generator=draw), torch.randn(OUT, rank, generator=draw)
    magnitudes = {"it": torch.rand(OUT, generator=draw) + 0.5} if dora else {}
    return Lora("it", config, {"it": factors}, magnitudes, {})


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("shape", ["lanes", "flat", "heads", "flat heads"])
def test_every_token_has_its_own_lanes_mix(dora: bool, by_token: bool, shape: str) -> None:
    """Held against ``(W + mix delta) x`` token by token."""
    torch.manual_seed(1)
    layer, loras = nn.Linear(IN, OUT), [_lora(1, 2, dora=dora), _lora(2, 3, dora=False)]
    mix = Mix(loras, torch.device("cpu"), torch.float32)
    group = LaneLinears({"it": layer}, loras, mix)
    mixes = torch.rand(LANES, TIME, 2, dtype=torch.float64) if by_token else torch.rand(LANES, 2, dtype=torch.float64)
    mix.set(mixes, TIME)
    heads = 2 if "heads" in shape else 1
    x = torch.randn(LANES, TIME, heads, IN)
    deltas = []
    for lora in loras:
        a, b = lora.factors["it"]
        whole = layer.weight.detach() + b @ a
        if lora.magnitudes:
            whole = whole * (lora.magnitudes["it"] / whole.norm(dim=1))[:, None]
        deltas.append(whole - layer.weight.detach())
    each = mixes if by_token else mixes[:, None].expand(LANES, TIME, 2)
    weights = layer.weight.detach() + torch.einsum("lta,aoi->ltoi", each.float(), torch.stack(deltas))
    wanted = torch.einsum("ltoi,lthi->ltho", weights, x) + layer.bias.detach()
    given = x if heads > 1 else x[:, :, 0]
    given = given.flatten(0, 1) if "flat" in shape else given
    assert torch.allclose(group(given).view(wanted.shape), wanted, atol=1e-5)


def test_some_of_the_tokens_are_refused() -> None:
    loras = [_lora(1, 2, dora=False)]
    mix = Mix(loras, torch.device("cpu"), torch.float32)
    group = LaneLinears({"it": nn.Linear(IN, OUT)}, loras, mix)
    mix.set(torch.ones(LANES, 1), TIME)
    for shape in ((LANES * TIME - 1, IN), (LANES, IN), (TIME, IN)):
        with pytest.raises(BankError, match=r"some of them only; train the adapter without it \(target_modules\)"):
            group(torch.zeros(shape))


def test_one_of_several_within_a_layer_is_refused(llama: Path, adapters: dict[str, Path]) -> None:
    from mpg.models.adapter_files import check_fit, read_lora
    from mpg.models.hub import Place
    from mpg.models.pretrained import skeleton_of

    skeleton, lora = skeleton_of(Place(str(llama))), read_lora(adapters["x"])
    up = "model.layers.0.mlp.up_proj"
    skeleton.model.layers[0].mlp.experts = nn.ModuleList([nn.Linear(32, 48, device="meta")])
    lora.factors["model.layers.0.mlp.experts.0"] = lora.factors.pop(up)
    with pytest.raises(BankError, match=r"'model\.layers\.0\.mlp\.experts\.0' is one of several within a layer"):
        check_fit(skeleton, lora)
