"""Whole models beside the reference whose tokenizer is its own and whose vocabulary is padded to another size."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import mpg.models.load
from mpg import BankError, DecoderSettings, ModelBank, Request, decode
from mpg.models.hub import Place
from mpg.models.load import check_source
from mpg.models.pretrained import load_tokenizer, skeleton_of
from mpg.oracle.decoder import decode_slowly
from mpg.score.choices import choice_log_probs
from mpg.score.texts import component_log_probs
from mpg.settings import DECODERS
from tests.fakes import feed_every_branch, tiny_adapter, tiny_llama

N_TOKENS, WIDE = 64, 77
WEIGHTS = {"w": 0.4, "x": 0.6}


def padded(folder: Path, tokenizer_of: Path, *, seed: int, size: int = WIDE) -> Path:
    """A model of more rows than its tokenizer has tokens, likely ones among them."""
    tiny_llama(folder, seed=seed, vocab_size=size)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_of / name, folder / name)
    return folder


def cut(model: Path, folder: Path, size: int = N_TOKENS) -> Path:
    """The same with its rows cut by hand."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        weights[name] = weights[name][:size].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": size}))
    return folder


@pytest.fixture(scope="module")
def folders(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("padded")
    wide = padded(home / "wide", llama, seed=5)
    wider = padded(home / "wider", llama, seed=6, size=WIDE + 9)
    found = {
        "narrow": llama,
        "wide": wide,
        "wider": wider,
        "cut": cut(wide, home / "cut"),
        "cut2": cut(wider, home / "c2"),
    }
    for base in ("narrow", "wide", "cut"):
        found[f"{base}-x"] = tiny_adapter(found[base], home / f"{base}-x", seed=1)
    return found


# reference, whole model, own reference of the whole model; the same with every model's rows cut by hand
BANKS = [
    (("narrow", "wide", None), ("narrow", "cut", None)),
    (("wide", "narrow", None), ("cut", "narrow", None)),
    (("narrow", "wide", "wider"), ("narrow", "cut", "cut2")),
    (("wide", "narrow", "wider"), ("cut", "narrow", "cut2")),
]


def banks(folders: dict[str, Path], which: tuple) -> list[ModelBank]:
    made = []
    for reference, whole, own in which:
        references = {} if own is None else {"w": folders[own]}
        adapter = folders[f"{reference}-x"]
        made.append(ModelBank.load(folders[reference], {"w": folders[whole], "x": adapter}, references))
    return made


@pytest.mark.parametrize("which", BANKS, ids=str)
def test_a_law_is_that_of_the_models_with_their_rows_cut(folders: dict[str, Path], which: tuple) -> None:
    mixed, by_hand = banks(folders, which)
    assert mixed.vocab_size == by_hand.vocab_size == N_TOKENS
    ids = torch.tensor([[3, 9, 4, 7]])
    got, wanted = (feed_every_branch(bank, ids).logits(slice(None), 3) for bank in (mixed, by_hand))
    assert got.shape == wanted.shape and torch.allclose(got, wanted, atol=1e-5)  # a wider product rounds otherwise
    asked = [Request([3 + i, 4], [WEIGHTS, {"w": 1.0}, {"x": 1.0}][i % 3], seed=i) for i in range(9)]
    names = [name for name in DECODERS if name not in ("soup", "single")]
    for changes in [{"name": name} for name in names] + [{"verification": "block"}, {"temperature": 0}]:
        settings = DecoderSettings(max_new_tokens=9, chunk_len=3, horizon=4, n_candidates=2, strength=1.5, **changes)
        got, wanted = (list(decode(bank, asked, settings, batch_size=4)) for bank in (mixed, by_hand))
        assert [c.token_ids for c in got] == [c.token_ids for c in wanted]
        assert all(token < N_TOKENS for c in got for token in c.token_ids)
        for one, other in zip(got, wanted, strict=True):
            assert one.log_prob_reference == pytest.approx(other.log_prob_reference, abs=1e-4)
            assert one.log_ratios == pytest.approx(other.log_ratios, abs=1e-4)
    settings = DecoderSettings(max_new_tokens=9, chunk_len=3, top_k=9)
    assert [c.token_ids for c in decode(mixed, asked, settings)] == [decode_slowly(mixed, r, settings) for r in asked]
    one, other = (component_log_probs(bank, [([3, 4], [5, 6, 7])])[0] for bank in (mixed, by_hand))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(one, other, strict=True))
    one, other = (choice_log_probs(bank, [(asked[0], [(5,), (6, 7)])], settings) for bank in (mixed, by_hand))
    assert one == [pytest.approx(values, abs=1e-5) for values in other]


def test_padding_would_have_mass_of_its_own(folders: dict[str, Path]) -> None:
    """Cut after the log-softmax instead of before it, the law would be another: the padding here is likely."""
    alone = ModelBank.load(folders["wide"], {})
    assert alone.vocab_size == WIDE  # a bank of one size keeps it
    law = feed_every_branch(alone, torch.tensor([[3, 9, 4]])).logits(slice(None), 2).softmax(-1)
    assert float(law[0, N_TOKENS:].sum()) > 0.05


@pytest.mark.parametrize(("reference", "whole"), [("short", "long"), ("long", "short")])
def test_a_vocabulary_below_the_tokenizers_is_refused_before_weights_are_loaded(
    reference: str, whole: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tiny_llama(tmp_path / "other", vocab_size=70)  # tokens 0..69
    made = {
        "long": padded(tmp_path / "long", other, seed=1),
        "short": padded(tmp_path / "short", other, seed=2, size=64),
    }

    def nothing(*args: object) -> None:
        raise AssertionError("weights were loaded")

    monkeypatch.setattr(mpg.models.load, "load_weights", nothing)
    sizes = {"long": WIDE, "short": 64}
    says = (
        rf"{whole}: its vocabulary has {sizes[whole]} entries and the reference's {sizes[reference]}, fewer than the 70"
    )
    for references in ({}, {"w": made[whole]}):
        with pytest.raises(BankError, match=says):
            ModelBank.load(made[reference], {"w": made[whole]}, references)
    place = Place.of(made[reference])
    with pytest.raises(BankError, match=says):
        check_source(skeleton_of(place), load_tokenizer(place), Place.of(made[whole]), place)
    check_source(skeleton_of(place), load_tokenizer(place), place, place)  # of one size: nothing to cut
