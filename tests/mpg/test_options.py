"""Options' log-probabilities are the marginals of the enumerated law."""

from __future__ import annotations

import math

import pytest

from mpg import DecoderSettings, Request, law
from mpg.options import option_log_probs
from tests.fakes import tabular_bank

WEIGHTS = {"a": 0.3, "b": 0.7}
OPTIONS = [(1,), (2,), (1, 2), (2, 2, 1), (0,)]


@pytest.mark.parametrize("name", ["reference", "scr-exact", "scr", "routing", "mod", "soup", "drift", "pad"])
@pytest.mark.parametrize("horizon", [2, None])
def test_an_options_probability_is_the_laws_marginal(name: str, horizon: int | None) -> None:
    bank = tabular_bank(["a", "b"], own_reference=name != "soup")
    settings = DecoderSettings(name=name, horizon=horizon, strength={"a": 1.5, "b": 0.5}, max_new_tokens=3, chunk_len=2)
    weights = {} if name == "reference" else WEIGHTS
    enumerated = law(bank, [1, 2], weights, settings)
    found = option_log_probs(bank, Request([1, 2], weights, seed=0), OPTIONS, settings)
    for option, value in zip(OPTIONS, found, strict=True):
        marginal = math.fsum(p for response, p in enumerated.items() if response[: len(option)] == option)
        assert value == pytest.approx(math.log(marginal), abs=1e-9)


def test_truncation_cuts_no_option_off() -> None:
    bank = tabular_bank(["a", "b"])
    loose, tight = (DecoderSettings(top_k=k, max_new_tokens=3, chunk_len=2) for k in (0, 1))
    request = Request([1, 2], WEIGHTS, seed=0)
    assert option_log_probs(bank, request, OPTIONS, tight) == option_log_probs(bank, request, OPTIONS, loose)


def test_an_option_without_tokens_is_named() -> None:
    with pytest.raises(ValueError, match="option 1: has no tokens"):
        option_log_probs(tabular_bank(["a", "b"]), Request([1], WEIGHTS, seed=0), [(1,), ()], DecoderSettings())
