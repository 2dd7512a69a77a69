"""A model's files, damaged in ways that transformers takes without a word or answers with anything: one line each."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mpg import ModelBank
from mpg.models.ends import ends_of
from mpg.models.errors import BankError
from mpg.models.hub import Place
from mpg.models.load import ends_at
from mpg.models.pretrained import load_tokenizer, skeleton_of
from tests.fakes import feed_every_branch, tiny_tokenizer
from tools.tiny_models import config_of, model_of

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def with_weights(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS)
        change(weights)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})

    return damage


def with_json(name: str, **changes: Any) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changes))

    return damage


def cut(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:5000])


def as_folder(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def indexed(folder: Path, text: str) -> None:
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(text)


UP = "model.layers.1.mlp.up_proj.weight"
# What `check` sees, with the words that name it.
SEEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (cut, f"{WEIGHTS} can't be read"),
    "empty": (lambda folder: (folder / WEIGHTS).write_bytes(b"") and None, f"{WEIGHTS} can't be read"),
    "a folder": (as_folder, f"{WEIGHTS} can't be read"),
    "8 bits": (with_weights(lambda w: w.update({UP: w[UP].to(torch.float8_e4m3fn)})), f"{UP} is F8_E4M3"),
    "integers": (with_weights(lambda w: w.update({UP: w[UP].to(torch.int8)})), f"{UP} is I8"),
    "index without a map": (lambda f: indexed(f, "{}"), "index.json can't be read (KeyError"),
    "index cut": (lambda f: indexed(f, '{"weight_map": {'), "index.json can't be read (JSONDecodeError"),
    "index that is a list": (lambda f: indexed(f, "[]"), "index.json can't be read (TypeError"),
    "a shard missing": (
        lambda f: indexed(f, json.dumps({"weight_map": {UP: "model-00002-of-00002.safetensors"}})),
        "model-00002-of-00002.safetensors, which model.safetensors.index.json names, is not there",
    ),
    "sizes that do not divide": (with_json("config.json", hidden_size=33, head_dim=None), "config.json"),
    "a size in words": (with_json("config.json", hidden_size="32"), "config.json"),
    "no heads": (with_json("config.json", num_attention_heads=0, head_dim=None), "config.json"),
    "no function of that name": (with_json("config.json", hidden_act="nope"), "config.json"),
    "positions of no kind": (with_json("config.json", rope_parameters={"rope_type": "no"}), "config.json"),
    "a tokenizer that is null": (lambda f: (f / "tokenizer.json").write_text("null") and None, "its tokenizer"),
    "its settings a list": (lambda f: (f / "tokenizer_config.json").write_text("[1]") and None, "its tokenizer"),
    **{
        f"end {value!r}": (with_json("generation_config.json", eos_token_id=value), "eos_token_id")
        for value in (-1, 400, "</s>", 4.0, True, [3, "x"], [3, -5], [[1]], {"a": 1}, 10**30)
    },
}
# What loading sees.
LOADED: dict[str, tuple[Callable[[Path], None], str]] = {
    "lacking": (with_weights(lambda w: w.pop(UP) is None), f"lack 1 weight ({UP}): they would be drawn at random"),
    "of other names": (
        with_weights(lambda w: [w.update({f"module.{name}": w.pop(name)}) for name in list(w)] and None),
        "would be drawn at random",
    ),
    "too many": (with_weights(lambda w: w.update({"model.layers.1.mlp.up_proj.scale": torch.ones(48)})), "scale"),
    "of another shape": (
        with_weights(lambda w: w.update({UP: torch.ones(47, 32)})),
        f"1 weight ({UP}) of other shapes",
    ),
}


def looked_at(folder: Path) -> None:
    """As ``mpg check`` does, without weights."""
    place = Place(str(folder))
    ends_at(place, skeleton_of(place), load_tokenizer(place))


@pytest.mark.parametrize("name", SEEN)
def test_what_can_be_seen_without_weights_is_one_line(name: str, model: Path) -> None:
    damage, words = SEEN[name]
    looked_at(model)
    damage(model)
    with pytest.raises(BankError) as raised:
        looked_at(model)
    assert words in str(raised.value) and "\n" not in str(raised.value) and str(model) in str(raised.value)
    with pytest.raises(BankError):
        ModelBank.load(model, {})


@pytest.mark.parametrize("name", LOADED)
def test_weights_that_are_not_the_models_are_not_made_up(name: str, model: Path) -> None:
    damage, words = LOADED[name]
    damage(model)
    with pytest.raises(BankError) as raised:
        ModelBank.load(model, {})
    assert words in str(raised.value) and "\n" not in str(raised.value)


def test_weights_too_many_may_be_known(model: Path) -> None:
    LOADED["too many"][0](model)
    ModelBank.load(Place(str(model), untested=True), {})


def test_damage_at_random_is_one_line_or_nothing(model: Path) -> None:
    """Bytes of configuration and heads of weights, changed at random (seeded): nothing but BankError comes out."""
    rng, whole = random.Random(5), {path.name: path.read_bytes() for path in model.iterdir() if path.is_file()}
    for _ in range(60):
        name = rng.choice(["config.json", "generation_config.json", "tokenizer_config.json", WEIGHTS])
        content = bytearray(whole[name])
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(min(len(content), 2000))] = rng.randrange(256)
        (model / name).write_bytes(content)
        try:
            looked_at(model)
        except BankError as error:
            assert "\n" not in str(error)
        (model / name).write_bytes(whole[name])


def test_ends_of_a_config_without_any_are_none(llama: Path) -> None:
    tokenizer = load_tokenizer(Place(str(llama)))
    config = skeleton_of(Place(str(llama))).config
    config.eos_token_id = None
    assert ends_of(None, config, tokenizer, 64).ids == {tokenizer.eos_token_id}


@pytest.mark.parametrize("kind", ["gptj", "gpt2", "gpt_neox", "codegen", "llama"])
def test_what_older_files_hold_beside_the_weights_is_passed_over(kind: str, tmp_path: Path) -> None:
    """Masks, positions and frequencies that are computed now, and a value head of TRL's."""
    model_of(config_of(kind)).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    layer = {"gpt_neox": "gpt_neox.layers.0.attention", "llama": "model.layers.0.self_attn"}.get(
        kind, "transformer.h.0.attn"
    )
    mask = torch.ones(1, 1, 8, 8, dtype=torch.uint8)
    more = {f"{layer}.bias": mask, f"{layer}.masked_bias": torch.tensor(-1e9), f"{layer}.causal_mask": mask.clone()}
    more |= {f"{layer}.rotary_emb.inv_freq": torch.ones(4), "v_head.summary.weight": torch.ones(1, 32)}
    with_weights(lambda weights: weights.update(more))(tmp_path)
    ModelBank.load(tmp_path, {})


def test_a_file_without_the_head_is_whole_where_the_head_is_the_embedding(tmp_path: Path) -> None:
    """As GPT-2's own: saved without it, and without the first part of every name."""
    model = model_of(config_of("gpt2"))
    model.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    save_file(dict(model.transformer.state_dict()), tmp_path / WEIGHTS, metadata={"format": "pt"})
    bank = ModelBank.load(tmp_path, {})
    ids = torch.tensor([[5, 9, 7]])
    with torch.no_grad():
        own = model(ids).logits[0, -1].log_softmax(-1)
    got = feed_every_branch(bank, ids).logits(slice(None), 2)[0].log_softmax(-1)
    assert torch.allclose(got, own, atol=1e-4)
