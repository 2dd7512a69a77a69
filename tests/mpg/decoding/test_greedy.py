"""Temperature 0: the target's largest token each time, whatever the seed, the drafter, the verdict and the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mpg import DecoderSettings, FunctionModel, ModelBank, Request, decode, law
from mpg.laws.drawing import one_hot_of_largest
from mpg.oracle.decoder import decode_slowly
from mpg.score.choices import choice_log_probs
from mpg.score.texts import component_log_probs
from mpg.settings import DECODERS, DRAFTERS, EXACT_DECODERS, VERIFICATIONS
from tests.fakes import tabular_bank

WEIGHTS = {"x": 0.35, "y": 0.65}
CASES = [
    {},
    {"horizon": None, "strength": {"x": 3.0, "y": 0.5}},
    {"horizon": 1, "top_k": 5},
    {"horizon": 4, "top_p": 0.6, "strength": 40.0},
    {"aggregate": "product", "strength": 2.0, "top_k": 1},
]


@pytest.fixture(scope="module")
def bank(llama: Path, adapters: dict[str, Path]) -> ModelBank:
    return ModelBank.load(str(llama), adapters)


def requests(name: str, seed: int = 0) -> list[Request]:
    several = [WEIGHTS, {"x": 1.0}, {"y": 0.5, "x": 0.5}]
    weights = {"reference": [{}], "single": [{"x": 1.0}, {"y": 1.0}]}.get(name, several)
    return [Request(list(range(3, 4 + i % 4)), weights[i % len(weights)], seed=seed + i) for i in range(6)]


def ways(name: str) -> list[dict]:
    """Settings that change no greedy text."""
    if name != "scr-exact":
        return [{}]
    drafted = [{"drafter": drafter, "verification": v} for drafter in DRAFTERS for v in VERIFICATIONS]
    return [*drafted, {"chunk_len": 2}, {"chunk_len": 13}]


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("name", EXACT_DECODERS)
def test_a_greedy_text_is_the_slow_decoders_whatever_the_way_there(bank: ModelBank, name: str, case: dict) -> None:
    settings = {"name": name, "chunk_len": 4, "max_new_tokens": 14, "horizon": 5, "temperature": 0} | case
    wanted = [decode_slowly(bank, request, DecoderSettings(**settings)) for request in requests(name)]
    again = [decode_slowly(bank, request, DecoderSettings(**settings)) for request in requests(name, seed=99)]
    assert again == wanted and len(set(wanted)) > 1 and max(map(len, wanted)) > 5
    for way in ways(name):
        for seed, batch_size, draft_len in ((7, 1, None), (8, 4, 2)):
            got = decode(
                bank,
                requests(name, seed),
                DecoderSettings(**settings | way),
                batch_size=batch_size,
                draft_len=draft_len,
            )
            assert [c.token_ids for c in got] == wanted, (way, batch_size, draft_len)


def with_settings(name: str, **changes: object) -> DecoderSettings:
    return DecoderSettings(name=name, temperature=0, max_new_tokens=8, chunk_len=3, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EXACT_DECODERS)
def test_many_lanes_draft_ahead_of_the_target_and_lose_nothing(bank: ModelBank, name: str) -> None:
    """More than are fed together: the component drafts alone, and the others score it."""
    asked = [request for seed in range(4) for request in requests(name, 10 * seed)]
    one_by_one = [next(decode(bank, [request], with_settings(name))).token_ids for request in asked]
    assert [c.token_ids for c in decode(bank, asked, with_settings(name))] == one_by_one
    same = decode(bank, [requests(name, seed)[0] for seed in range(40)], with_settings(name))
    assert len({(c.token_ids, c.acceptance_rate, c.n_chunks) for c in same}) == 1


@pytest.mark.parametrize("name", EXACT_DECODERS)
def test_the_enumerated_law_is_one_text_the_argmax_at_temperature_1(name: str) -> None:
    bank = tabular_bank(scale=2.0)
    weights = {"reference": {}, "single": {"a": 1.0}}.get(name, {"a": 0.3, "b": 0.7})
    ((text, p),) = law(bank, [1, 2], weights, with_settings(name)).items()
    assert p == 1.0
    (done,) = decode(bank, [Request([1, 2], weights, seed=5)], with_settings(name))
    assert done.token_ids == text and done.exact
    warm = DecoderSettings(name=name, max_new_tokens=1)
    first = law(bank, [1, 2], weights, warm)
    assert text[0] == max(first, key=first.__getitem__)[0]


@pytest.mark.parametrize("name", EXACT_DECODERS)
def test_books_of_a_greedy_text_are_kept_at_temperature_1(bank: ModelBank, name: str) -> None:
    for request, done in zip(requests(name), decode(bank, requests(name), with_settings(name)), strict=True):
        ((_, log_probs),) = component_log_probs(bank, [(request.prompt_ids, done.token_ids)])
        reference, *others = log_probs.sum(0).tolist()
        assert done.log_prob_reference == pytest.approx(reference, abs=1e-4)
        wanted = {a: o - reference for a, o in zip("xy", others, strict=True) if a in request.weights}
        assert done.log_ratios == pytest.approx(wanted, abs=1e-4)


def test_of_equal_tokens_the_lowest_id_is_taken() -> None:
    flat = FunctionModel(lambda tokens: torch.tensor([[0.0, 1.0, 1.0, 0.5]]).repeat(len(tokens), 1), 4, 0)
    bank = ModelBank.from_functions(reference=flat, attributes={"a": flat, "b": flat}, soup=lambda mix: flat)
    for name in EXACT_DECODERS:
        weights = {"reference": {}, "single": {"a": 1.0}}.get(name, {"a": 0.5, "b": 0.5})
        for way in ways(name):
            settings = DecoderSettings(name=name, temperature=0, max_new_tokens=3, **{"chunk_len": 2} | way)
            for seed in range(5):
                assert next(decode(bank, [Request([1], weights, seed)], settings)).token_ids == (1, 1, 1), (name, way)
    assert one_hot_of_largest(torch.tensor([[2.0, 5.0, 5.0], [7.0, 7.0, 1.0]])).argmax(-1).tolist() == [1, 0]


@pytest.mark.parametrize("name", sorted(set(DECODERS) - set(EXACT_DECODERS)))
@pytest.mark.parametrize("temperature", [0, 0.0, -0.0])
def test_decoders_that_accept_by_chance_refuse_to_be_greedy(name: str, temperature: float) -> None:
    with pytest.raises(
        ValueError, match=rf"decoder\.temperature: -?0(\.0)? is greedy, which '{name}' can't be: .*; give"
    ):
        DecoderSettings(name=name, temperature=temperature)


def test_choices_of_a_greedy_decoder_are_likely_at_temperature_1() -> None:
    bank, asked = tabular_bank(), [(Request([1, 2], {"a": 0.3, "b": 0.7}, seed=0), [(1,), (2, 2), (0,)])]
    warm = DecoderSettings(name="mod", max_new_tokens=3)
    assert choice_log_probs(bank, asked, with_settings("mod")) == choice_log_probs(bank, asked, warm)
