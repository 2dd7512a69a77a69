"""Log-ratios token by token: those of the finished text under each branch, whatever decoder wrote it; on request."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mpg import Completion, DecoderSettings, FunctionModel, ModelBank, Request, decode
from mpg.models.uncached import branch_logits
from mpg.score.texts import component_log_probs
from mpg.settings import DECODERS, EXACT_DECODERS
from tests.fakes import tabular_bank

# Every decoder, and every round that one of them may have.
WAYS: dict[str, dict[str, Any]] = {name: {"name": name} for name in DECODERS} | {
    "drafts of the reference": {"drafter": "reference", "top_k": 2},
    "drafts of the mixture": {"drafter": "mixture", "top_p": 0.7, "strength": 1.5},
    "blocks": {"verification": "block", "top_k": 2},
    "blocks of the product": {"verification": "block", "aggregate": "product"},
    "prefixes thrown away": {"name": "scr", "salvage": False, "window": 1, "max_tries": 2, "strength": 3.0},
    "responses of the product": {"name": "sequence-rejection", "aggregate": "product", "max_tries": 2, "strength": 3.0},
}
GREEDY = [way for way, changes in WAYS.items() if changes.get("name", "scr-exact") in EXACT_DECODERS]


def settings_of(way: str, **changes: Any) -> DecoderSettings:
    shared = {"chunk_len": 4, "max_new_tokens": 11, "horizon": 5, "temperature": 0.8, "n_candidates": 3}
    return DecoderSettings(**shared | WAYS[way] | changes)


def requests(settings: DecoderSettings, names: str, n: int = 9) -> list[Request]:
    """Weights of one attribute, of all, of zero, and (where they may be) of any sign."""
    first, last = names[0], names[-1]
    several = [{first: 0.3, last: 0.7}, {first: 1.0}, {last: 1.0, first: 0.0}]
    if settings.facts.one_attribute:
        several = [{first: 1.0}, {last: 1.0}]
    elif settings.facts.signed:
        several += [{first: 1.5, last: -0.75}]
    elif not settings.facts.weighted:
        several = [{}]
    return [Request([1 + j % 2 for j in range(1 + i % 4)], several[i % len(several)], seed=i) for i in range(n)]


def asked_slowly(bank: ModelBank, request: Request, tokens: tuple[int, ...], settings: DecoderSettings) -> Any:
    """Every branch over the whole text anew for each token, in float64."""
    found: dict[str, list[float]] = {name: [] for name in request.weights}
    for t, token in enumerate(tokens):
        logits = branch_logits(bank, request, tokens[:t], None, settings.max_new_tokens).double()
        log_probs = (logits / settings.law_temperature).log_softmax(-1)[:, token].tolist()
        for i, name in enumerate(bank.attributes):
            if name in found:
                found[name].append(log_probs[bank.layout.policy[i]] - log_probs[bank.layout.reference[i]])
    return found


def check(bank: ModelBank, asked: list[Request], settings: DecoderSettings, **how: Any) -> list[Completion]:
    """Completions with their terms are those without, and the terms are what the finished text says."""
    tell = replace(settings, token_log_ratios=True)
    told = list(decode(bank, asked, tell, **how))
    assert [replace(c, token_log_ratios=None) for c in told] == list(decode(bank, asked, settings, **how))
    for request, done in zip(asked, told, strict=True):
        terms = done.token_log_ratios
        assert terms is not None and list(terms) == list(done.log_ratios)
        for name, sum_of in done.log_ratios.items():
            assert len(terms[name]) == len(done.token_ids)
            assert math.fsum(terms[name]) == pytest.approx(sum_of, abs=1e-9)
        if settings.facts.weighted:
            wanted = asked_slowly(bank, request, done.token_ids, settings)
            assert terms.keys() == wanted.keys()
            for name, values in wanted.items():
                assert terms[name] == pytest.approx(values, abs=2e-4)
    return told


@pytest.fixture(scope="module")
def bank(llama: Path, adapters: dict[str, Path]) -> ModelBank:
    return ModelBank.load(str(llama), adapters)


@pytest.mark.parametrize("way", WAYS)
def test_the_terms_are_those_of_the_finished_text(bank: ModelBank, way: str) -> None:
    settings = settings_of(way)
    told = check(bank, requests(settings, "xy"), settings, batch_size=4)
    assert max(len(done.token_ids) for done in told) > settings.chunk_len
    if settings.facts.weighted:
        values = [value for done in told for terms in (done.token_log_ratios or {}).values() for value in terms]
        assert len(set(values)) > 30  # no constant, which any order would fit


@pytest.mark.parametrize("way", WAYS)
def test_many_rows_of_a_batch_that_come_and_go(way: str) -> None:
    """More lanes than are fed all at once, a slot taken over by one row after the other, drafts cut off."""
    settings = settings_of(way)
    check(tabular_bank(scale=1.5), requests(settings, "ab", 60), settings, batch_size=40)


@pytest.mark.parametrize("draft_len", [1, 3])
@pytest.mark.parametrize("way", ["scr-exact", "drafts of the reference", "drafts of the mixture", "blocks"])
def test_whatever_is_drafted_a_round(way: str, draft_len: int) -> None:
    settings = settings_of(way)
    check(tabular_bank(), requests(settings, "ab", 20), settings, batch_size=8, draft_len=draft_len)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "soup"])
def test_of_an_attribute_with_a_reference_of_its_own(way: str) -> None:
    settings = settings_of(way)
    check(tabular_bank("abc", own_reference=True), requests(settings, "abc"), settings, batch_size=4)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("soup", "reference")])
def test_under_the_attributes_own_prompts(bank: ModelBank, way: str) -> None:
    settings = settings_of(way)
    own = [{"x": [5] * (1 + i % 3), "y": [7, 8]} if i % 3 else {"y": list(range(4, 12))} for i in range(9)]
    asked = [replace(r, prompts=own[i]) for i, r in enumerate(requests(settings, "xy"))]
    check(bank, asked, settings, batch_size=4)


@pytest.mark.parametrize("way", GREEDY)
def test_of_a_greedy_text_they_are_kept_at_temperature_1(bank: ModelBank, way: str) -> None:
    settings = settings_of(way, temperature=0)
    check(bank, requests(settings, "xy"), settings, batch_size=4)


def test_there_is_one_definition_of_them(bank: ModelBank) -> None:
    """What scores given texts says the same of each token."""
    settings = settings_of("scr-exact", token_log_ratios=True)
    asked = requests(settings, "xy")
    done = list(decode(bank, asked, settings))
    scored = component_log_probs(
        bank, [(r.prompt_ids, c.token_ids) for r, c in zip(asked, done, strict=True)], temperature=0.8
    )
    for completion, (_, log_probs) in zip(done, scored, strict=True):
        ratios = bank.layout.log_ratios(log_probs)  # [tokens, attributes]
        for name, values in (completion.token_log_ratios or {}).items():
            assert values == pytest.approx(ratios[:, bank.attributes.index(name)].tolist(), abs=2e-4)


@pytest.mark.parametrize("name", ["scr-exact", "scr", "sequence-rejection", "routing"])
def test_in_16_bits_they_are_what_the_sums_are_made_of(llama: Path, adapters: dict[str, Path], name: str) -> None:
    bank = ModelBank.load(str(llama), adapters, dtype=torch.bfloat16)
    settings = settings_of(name, token_log_ratios=True)
    for done in decode(bank, requests(settings, "xy"), settings, batch_size=4):
        assert done.token_log_ratios is not None
        sums = {attribute: math.fsum(terms) for attribute, terms in done.token_log_ratios.items()}
        assert sums == pytest.approx(done.log_ratios, abs=1e-9)


@pytest.mark.parametrize("way", ["scr", "blocks", "sequence-rejection"])
def test_one_impossible_token_spoils_no_other(way: str) -> None:
    """A preference model that gives a token no mass: minus infinity there, and what the text says elsewhere."""
    flat = torch.zeros(4, dtype=torch.float64)
    never = torch.tensor([0.0, 0.0, -torch.inf, 1.0], dtype=torch.float64)
    reference = FunctionModel(lambda tokens: flat.repeat(len(tokens), 1), 4, 0)
    picky = FunctionModel(lambda tokens: never.repeat(len(tokens), 1), 4, 0)
    bank = ModelBank.from_functions(reference=reference, attributes={"a": picky, "b": reference})
    bank.eos_ids = frozenset()
    settings = settings_of(way, max_new_tokens=9, token_log_ratios=True, top_k=0)
    asked = [Request([1], {"a": 0.5, "b": 0.5}, seed=seed) for seed in range(8)]
    expected = (never / 0.8).log_softmax(-1) - (flat / 0.8).log_softmax(-1)
    seen = set()
    for done in decode(bank, asked, settings):
        assert done.token_log_ratios is not None
        assert done.token_log_ratios["a"] == pytest.approx(expected[list(done.token_ids)].tolist(), abs=1e-6)
        seen |= set(done.token_ids)
    assert 2 in seen
