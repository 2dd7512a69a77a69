"""Steering vectors as adapters: the same law as a hook that adds them, in this engine and in PEFT's; and the tool."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.adapter_files import read_lora
from mpg.models.chat import answer_start, encode_chat
from mpg.score.texts import component_log_probs
from personas.preferences import MBTI_FILE, PreferencePair
from pipeline.job.model import SHIPPED_ADAPTERS
from tests.fakes import spelling_llama
from tests.own_pairs import write_own_pairs
from tools.steering import OUTPUT, POLES, Cell, best_layer, curve_of, main
from tools.steering_vectors import Differences, differences, save_vector, scaled

LAYER, HIDDEN = 0, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, and a vector and its negative, on from the answer."""
    root = tmp_path_factory.mktemp("steering")
    spelling_llama(root / "base")
    model, tokenizer = loaded(root)
    for name, sign in (("E", 1.0), ("I", -1.0)):
        save_vector(sign * vector(), LAYER, root / name, model=model, model_id="base", start=answer_start(tokenizer))
    save_vector(vector(), LAYER, root / "everywhere", model=model, model_id="base")
    return root


def vector() -> Tensor:
    return torch.randn(HIDDEN, generator=torch.Generator().manual_seed(7))


def loaded(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(folder / "base")


def prompt_of(tokenizer: Any) -> list[int]:
    return list(encode_chat(tokenizer, [{"role": "user", "content": "who are you?"}]))


@contextmanager
def added(model: Any, delta: Tensor, start: int) -> Iterator[None]:
    """Steering by the book: a forward hook on a decoder layer adds a vector from a position on."""

    def hook(_: Any, __: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, start:] += delta
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = model.model.layers[LAYER].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def log_probs(model: Any, prompt: Sequence[int], response: Sequence[int]) -> Tensor:
    logits = model(torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None])[:, 0].double()


def test_a_vector_as_an_adapter_is_what_a_hook_adds(folder: Path) -> None:
    """In this engine, by PEFT, and by a hook on transformers' model; on from the answer, and everywhere."""
    from peft import PeftModel

    model, tokenizer = loaded(folder)
    prompt, response = prompt_of(tokenizer), tokenizer("I am not told, and you?").input_ids
    names = ("E", "I", "everywhere")
    bank = ModelBank.load(str(folder / "base"), {name: folder / name for name in names})
    ((_, by_branch),) = component_log_probs(bank, [(prompt, response)])
    on_from = len(prompt) - len(answer_start(tokenizer))
    bare = log_probs(model, prompt, response)
    for name, sign, start in (("E", 1.0, on_from), ("I", -1.0, on_from), ("everywhere", 1.0, 0)):
        ours = by_branch[:, bank.layout.policy[names.index(name)]]
        with added(model, sign * vector(), start):
            torch.testing.assert_close(ours, log_probs(model, prompt, response), atol=1e-4, rtol=0)
        assert float((ours - bare).abs().max()) > 0.05
        with pytest.warns(UserWarning, match="lora_bias"):
            peft = PeftModel.from_pretrained(loaded(folder)[0], folder / name)
        torch.testing.assert_close(ours, log_probs(peft.eval(), prompt, response), atol=1e-4, rtol=0)


def test_soup_is_steering_by_the_weighted_sum_and_opposites_cancel(folder: Path) -> None:
    model, tokenizer = loaded(folder)
    prompt = prompt_of(tokenizer)
    bank = ModelBank.load(str(folder / "base"), {name: folder / name for name in "EI"})

    def greedy(weights: dict[str, float], name: str = "soup") -> list[int]:
        settings = DecoderSettings(name=name, strength=3.0, temperature=0.0, max_new_tokens=10)
        return list(next(decode(bank, [Request(prompt, weights, 0)], settings)).token_ids)

    def hooked(share: float) -> list[int]:
        tokens: list[int] = []
        with torch.inference_mode(), added(model, share * vector(), len(prompt) - len(answer_start(tokenizer))):
            while len(tokens) < 10 and not set(tokens) & set(bank.eos_ids):
                tokens.append(int(model(torch.tensor([[*prompt, *tokens]])).logits[0, -1].argmax()))
        return tokens

    assert greedy({"E": 0.75, "I": 0.25}) == hooked(1.5) != hooked(0.0)
    assert greedy({"I": 1.0}) == hooked(-3.0) != greedy({"E": 1.0})
    assert greedy({"E": 0.5, "I": 0.5}) == hooked(0.0) == greedy({}, "reference")


def test_differences_are_those_of_answers_alone(folder: Path) -> None:
    """Against each text run alone, whatever the batch; the end that closes an answer is left out."""
    model, tokenizer = loaded(folder)
    pairs = [PreferencePair("who?", "me", "nobody at all"), PreferencePair("when, then?", "now and ever", "no")]
    found = differences(model, tokenizer, pairs, batch_size=3)
    total = torch.zeros(2, HIDDEN)
    for pair in pairs:
        prompt = list(encode_chat(tokenizer, pair.as_chat()))
        for text, sign in ((pair.chosen, 1.0), (pair.rejected, -1.0)):
            with torch.inference_mode():
                out = model(torch.tensor([[*prompt, *tokenizer(text).input_ids]]), output_hidden_states=True)
            total[0] += sign * out.hidden_states[1][0, len(prompt) :].mean(0)
    torch.testing.assert_close(found.mean[0], total[0] / 2, atol=1e-5, rtol=0)
    assert found.n_pairs == 2 and found.mean.shape == (2, HIDDEN) and bool((found.lengths > 0).all())
    assert float(scaled(found, 1).norm()) == pytest.approx(0.1 * float(found.lengths[1]))
    with pytest.raises(ValueError, match="pairs: none of 1 has at most 160 tokens"):
        differences(model, tokenizer, [PreferencePair("q", "long" * 50, "no")])
    with pytest.raises(ValueError, match="layer 5: the model has no module"):
        save_vector(vector(), 5, folder / "none", model=model, model_id="base")


def test_the_layer_is_the_best_at_no_more_than_the_perplexity_allowed() -> None:
    def cells(layer: int, points: Sequence[tuple[float, float]]) -> list[Cell]:
        return [Cell(layer, 1.0 + i, "E", 4, score, -10 * math.log(p), 10) for i, (score, p) in enumerate(points)]

    bare = {"strength": 0.0, "adherence": 0.5, "perplexity": 4.0}
    both = [*cells(3, [(0.6, 4.2), (0.9, 9.0)]), *cells(8, [(0.7, 4.3), (0.8, 20.0)])]
    layer, at = best_layer(both, bare)  # 4.4 is allowed: layer 3 is better only where it costs more
    assert layer == 8 and 0.6 < at[3] < at[8] < 0.72
    assert [point["perplexity"] for point in curve_of(both, 3)] == pytest.approx([4.2, 9.0])


def test_the_tool_writes_a_vector_for_every_pole(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the project's own pairs and a tiny model; a second call makes nothing anew."""
    write_own_pairs(tmp_path)
    output, work = tmp_path / "vectors", tmp_path / "work"
    command = ["--data", str(tmp_path), "--output", str(output), "--work", str(work), "--model", str(folder / "base"),
               "--layers", "1", "--strengths", "1", "--tokens", "2000"]  # fmt: skip
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "40 texts a cell" in first
    assert sorted(path.name for path in output.iterdir()) == sorted(name for pair in POLES for name in pair)
    cards = {name: json.loads((output / name / "card.json").read_text("utf-8")) for name in "EI"}
    assert cards["E"]["recipe"]["train_pairs"] > 4 and cards["E"]["recipe"]["opposite"] == "I: its negative"
    assert [point["strength"] for point in cards["I"]["chosen_by"]["curve"]] == [0.0, 1.0]
    bank = ModelBank.load(str(folder / "base"), {name: output / name for name in "EI"})
    assert bank.attributes == ("E", "I")
    made = kept(work)
    assert main(command) == 0 and capsys.readouterr().out == first and kept(work) == made
    with pytest.raises(SystemExit, match="2"):
        main(["--data", str(output)])
    assert "no mbti_preferences.parquet there" in capsys.readouterr().err


def kept(work: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in work.iterdir() if path.is_file()}


def test_what_is_kept_is_not_taken_for_what_other_options_make(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each option in its turn: what depends on it is made anew, and nothing else."""
    calls = {"pairs": 0, "texts": 0}

    def read(*_: Any, most_tokens: int, **__: Any) -> Differences:
        calls["pairs"] += 1
        mean = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(most_tokens))
        return Differences(mean, torch.ones(2), 80)

    def write(_: Any, folders: dict[str, Path], __: Any, layer: int, strengths: Sequence[float]) -> list[Cell]:
        calls["texts"] += 1
        return [Cell(layer, strength, pole, 4, 0.6, -10.0, 10) for pole in folders for strength in strengths]

    monkeypatch.setattr("tools.steering.differences", read)
    monkeypatch.setattr("tools.steering.write_and_judge", write)
    write_own_pairs(tmp_path)
    shutil.copytree(folder / "base", tmp_path / "base")
    options = {"data": tmp_path, "output": tmp_path / "out", "work": tmp_path / "work", "model": tmp_path / "base",
               "layers": 1, "strengths": 1, "tokens": 2000}  # fmt: skip

    def made() -> tuple[int, int]:
        calls.update(pairs=0, texts=0)
        assert main([word for name, value in options.items() for word in (f"--{name}", f"{value}")]) == 0
        card = json.loads((tmp_path / "out" / "E" / "card.json").read_text("utf-8"))
        assert [point["strength"] for point in card["chosen_by"]["curve"]] == [0.0, options["strengths"]]
        return calls["pairs"], calls["texts"]

    assert made() == (4, 2) and made() == (0, 0)  # the layer's texts and the bare model's
    options["strengths"] = 2
    assert made() == (0, 1)
    options["tokens"] = 1000
    assert made() == (4, 2)
    spelling_llama(tmp_path / "base", seed=5)
    assert made() == (4, 2)
    options["strengths"] = 1
    assert made() == (0, 1)
    pq.write_table(pq.read_table(tmp_path / MBTI_FILE), tmp_path / MBTI_FILE, compression="none")
    assert made() == (4, 0)  # other data, from which the stand-in reads the same vectors
    assert "texts a cell" in capsys.readouterr().out


@pytest.mark.parametrize(("pole", "opposite"), POLES)
def test_what_ships_are_opposite_vectors_of_one_length(pole: str, opposite: str) -> None:
    cards = [json.loads((OUTPUT / name / "card.json").read_text("utf-8")) for name in (pole, opposite)]
    one, other = (read_lora(OUTPUT / name).biases for name in (pole, opposite))
    (name,) = one
    assert name == f"model.layers.{cards[0]['recipe']['layer']}.mlp.down_proj"
    assert torch.equal(one[name], -other[name])
    assert float(one[name].norm()) == pytest.approx(cards[0]["recipe"]["norm"], rel=1e-5)
    assert cards[0]["license"] == "apache-2.0" and cards[0]["recipe"]["norm"] == cards[1]["recipe"]["norm"]
    config, shipped = (json.loads((folder / "adapter_config.json").read_text("utf-8"))
                       for folder in (OUTPUT / pole, SHIPPED_ADAPTERS / pole))  # fmt: skip
    for field in ("base_model_name_or_path", "alora_invocation_tokens"):
        assert config[field] == shipped[field]
    weights = load_file(OUTPUT / pole / "adapter_model.safetensors")
    assert not any(value.any() for key, value in weights.items() if key.endswith(".weight"))
