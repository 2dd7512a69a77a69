"""A model whose logits are not numbers: named with its attribute, and paid for by the rows that use it alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mpg import DecoderSettings, FunctionModel, ModelBank, Request, decode
from mpg.decoding.resilient import BatchSize, Failure, decode_each
from mpg.settings import DECODERS
from tests.fakes import tabular_model, tiny_llama


def overflowing(adapter: Path, folder: Path) -> Path:
    """Factors that are numbers, whose products are none: infinities of both signs, in float32."""
    shutil.copytree(adapter, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    scaled = {name: (w * 3e38).clamp(-3e38, 3e38) if "lora_A" in name else w for name, w in weights.items()}
    save_file(scaled, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def bank(llama: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ModelBank:
    bad = overflowing(adapters["y"], tmp_path_factory.mktemp("overflowing") / "bad")
    return ModelBank.load(str(llama), {"x": adapters["x"], "bad": bad})


@pytest.fixture(scope="module")
def sound(llama: Path, adapters: dict[str, Path]) -> ModelBank:
    return ModelBank.load(str(llama), adapters)


USES = [{"x": 1.0}, {"bad": 1.0}, {"x": 0.5, "bad": 0.5}, {"x": 1.0}, {"x": 1.0, "bad": 0.0}, {"x": 1.0}, {"bad": 1.0}]


@pytest.mark.parametrize("name", [*(n for n in DECODERS if n not in ("reference", "prompting", "soup")), "block"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_broken_adapter_costs_the_rows_that_name_it(
    bank: ModelBank, sound: ModelBank, name: str, batch_size: int
) -> None:
    changes = {"verification": "block"} if name == "block" else {"name": name}
    settings = DecoderSettings(max_new_tokens=7, chunk_len=3, n_candidates=2, **changes)
    uses = [weights for weights in USES if name != "single" or set(weights.values()) == {1.0}]
    asked = [Request([3 + i, 4], weights, seed=i) for i, weights in enumerate(uses)]
    found = dict(decode_each(bank, asked, settings, BatchSize(batch_size)))
    for i, request in enumerate(asked):
        each = found[i]
        if "bad" in request.weights:
            assert isinstance(each, Failure) and each.reason == "not_finite"
            assert each.message.startswith("attribute 'bad': its logits are not numbers (NaN or infinite): ")
        else:  # the same text as beside a sound adapter
            assert each.token_ids == next(decode(sound, [request], settings)).token_ids
    (control,) = decode(bank, [Request([3, 4], {}, seed=0)], DecoderSettings(name="reference", max_new_tokens=7))
    assert (
        control.token_ids
        == next(
            decode(sound, [Request([3, 4], {}, seed=0)], DecoderSettings(name="reference", max_new_tokens=7))
        ).token_ids
    )


def test_a_soup_leaves_out_the_adapter_that_it_gives_no_weight(bank: ModelBank, sound: ModelBank) -> None:
    settings = DecoderSettings(name="soup", max_new_tokens=7, strength=0.7)
    asked = [Request([3, 4], {"x": 1.0}, seed=0), Request([3, 4], {"x": 0.5, "bad": 0.5}, seed=0)]
    found = dict(decode_each(bank, asked, settings, BatchSize(4)))
    assert found[0].token_ids == next(decode(sound, asked[:1], settings)).token_ids
    assert isinstance(found[1], Failure) and "the soup of the attributes' adapters" in found[1].message


@pytest.mark.parametrize("name", ["scr-exact", "scr", "mod", "routing", "best-of-n"])
@pytest.mark.parametrize(
    ("broken", "whose"),
    [("reference", "the reference model"), ("a", "attribute 'a'"), ("own", "attribute 'b' (its own reference)")],
)
def test_the_request_and_the_model_are_named(name: str, broken: str, whose: str) -> None:
    def model(label: str, seed: int) -> FunctionModel:
        inner = tabular_model(seed, vocab_size=4)

        def fn(tokens: torch.Tensor) -> torch.Tensor:
            bad = (label == broken) & (tokens[:, 0] == 3) & (tokens.shape[1] > 3)
            return inner.fn(tokens).masked_fill(bad[:, None], torch.nan)

        return FunctionModel(fn, 4, 0)

    bank = ModelBank.from_functions(
        reference=model("reference", 0),
        attributes={"a": model("a", 1), "b": model("b", 2)},
        references={"b": model("own", 3)},
    )
    bank.eos_ids = frozenset()
    weights = {"a": 0.5, "b": 0.5}
    asked = [Request([3 if i == 5 else 1, 2], weights, seed=i) for i in range(8)]
    settings = DecoderSettings(name=name, max_new_tokens=6, chunk_len=2, n_candidates=2)
    for batch_size in (1, 3, 8):
        with pytest.raises(FloatingPointError) as caught:
            list(decode(bank, asked, settings, batch_size=batch_size))
        assert str(caught.value).startswith(f"request 5: {whose}: its logits are not numbers (NaN or infinite): ")
        found = dict(decode_each(bank, asked, settings, BatchSize(batch_size)))
        assert [i for i, each in found.items() if isinstance(each, Failure)] == [5]
        assert found[5].message.startswith(f"{whose}: its logits are not numbers")


def test_a_whole_model_is_named_too(llama: Path, adapters: dict[str, Path], tmp_path: Path) -> None:
    broken = tiny_llama(tmp_path / "broken", seed=5)
    weights = load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"][4] = torch.inf  # of a token in the prompt: loading reads others
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    bank = ModelBank.load(str(llama), {"x": adapters["x"], "w": broken})
    asked = [Request([3, 4], use, seed=0) for use in ({"x": 1.0}, {"w": 1.0}, {"x": 1.0})]
    found = dict(decode_each(bank, asked, DecoderSettings(max_new_tokens=5), BatchSize(8)))
    assert isinstance(found[1], Failure) and found[1].message.startswith("attribute 'w': its logits are not numbers")
    assert found[0].token_ids == found[2].token_ids
