"""Choices' log-probabilities are the marginals of the enumerated law."""

from __future__ import annotations

import math

import pytest

from mpg import DecoderSettings, Request, law
from mpg.score.choices import choice_log_probs
from tests.fakes import tabular_bank

WEIGHTS = {"a": 0.3, "b": 0.7}
CHOICES = [(1,), (2,), (1, 2), (2, 2, 1), (0,)]


@pytest.mark.parametrize("name", ["reference", "scr-exact", "scr", "routing", "mod", "soup", "drift", "pad"])
@pytest.mark.parametrize("horizon", [2, None])
def test_a_choices_probability_is_the_laws_marginal(name: str, horizon: int | None) -> None:
    bank = tabular_bank(["a", "b"], own_reference=name != "soup")
    settings = DecoderSettings(name=name, horizon=horizon, strength={"a": 1.5, "b": 0.5}, max_new_tokens=3, chunk_len=2)
    weights = {} if name == "reference" else WEIGHTS
    enumerated = law(bank, [1, 2], weights, settings)
    other = law(bank, [2], weights, settings)
    asked = [(Request([1, 2], weights, seed=0), CHOICES), (Request([2], weights, seed=1), CHOICES[:2])]
    for batch_size in (1, 8):
        found = choice_log_probs(bank, asked, settings, batch_size=batch_size)
        for whole, choices, values in zip((enumerated, other), (CHOICES, CHOICES[:2]), found, strict=True):
            for choice, value in zip(choices, values, strict=True):
                marginal = math.fsum(p for response, p in whole.items() if response[: len(choice)] == choice)
                assert value == pytest.approx(math.log(marginal), abs=1e-9)


def test_attributes_read_prompts_of_their_own() -> None:
    bank = tabular_bank(["a", "b"])
    settings = DecoderSettings(max_new_tokens=3, chunk_len=2)
    prompts = {"a": [2, 1, 0, 2], "b": [1]}
    enumerated = law(bank, [1, 2], WEIGHTS, settings, prompts)
    (found,) = choice_log_probs(bank, [(Request([1, 2], WEIGHTS, 0, prompts), CHOICES)], settings)
    for choice, value in zip(CHOICES, found, strict=True):
        marginal = math.fsum(p for response, p in enumerated.items() if response[: len(choice)] == choice)
        assert value == pytest.approx(math.log(marginal), abs=1e-9)


def test_truncation_cuts_no_choice_off() -> None:
    bank = tabular_bank(["a", "b"])
    loose, tight = (DecoderSettings(top_k=k, max_new_tokens=3, chunk_len=2) for k in (0, 1))
    asked = [(Request([1, 2], WEIGHTS, seed=0), CHOICES)]
    assert choice_log_probs(bank, asked, tight) == choice_log_probs(bank, asked, loose)


def test_a_choice_without_tokens_is_named() -> None:
    bank, fine = tabular_bank(["a", "b"]), (Request([1], WEIGHTS, seed=0), [(1,)])
    with pytest.raises(ValueError, match="request 1: a choice has no tokens"):
        choice_log_probs(bank, [fine, (Request([1], WEIGHTS, seed=0), [(1,), ()])], DecoderSettings())
    with pytest.raises(ValueError, match=r"request 1: .*'z'"):
        choice_log_probs(bank, [fine, (Request([1], {"z": 1.0}, seed=0), [(1,)])], DecoderSettings())
