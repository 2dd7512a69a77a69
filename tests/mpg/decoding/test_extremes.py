"""Settings at their ends: the engine still writes the slow decoder's texts, and ends them where they end."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.oracle.decoder import decode_slowly
from mpg.settings import DECODERS, EXACT_DECODERS

CASES = [
    {"horizon": 1, "top_k": 1},
    {"horizon": None, "strength": 500.0, "drafter": "mixture"},
    {"horizon": 1, "strength": 500.0, "temperature": 0.05},
    {"horizon": None, "temperature": 5.0, "top_p": 0.999999},
    {"aggregate": "product", "strength": {"x": 500.0, "y": 0.01}, "top_p": 1e-6},
    {"temperature": 0, "strength": 500.0},
]
ENDS = {"none": frozenset(), "several": frozenset({0, 7, 20, 33}), "all": frozenset(range(64))}


@pytest.fixture(scope="module")
def bank(llama: Path, adapters: dict[str, Path]) -> ModelBank:
    return ModelBank.load(str(llama), adapters)


def requests(name: str) -> list[Request]:
    if name in ("single", "reference"):
        return [Request([5 + i], {"x": 1.0, "y": 0.0} if i % 2 else {"y": 1.0}, seed=i) for i in range(5)]
    weights = [{"x": 0.0, "y": 1.0}, {"x": 1.0}, {"x": 0.3, "y": 0.7}, {"x": 1e-300, "y": 1.0}, {"y": 1.0}]
    return [Request([5 + i], each, seed=i) for i, each in enumerate(weights)]


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_decoders_at_the_ends_of_their_settings(
    bank: ModelBank, case: dict, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank, "eos_ids", ENDS[ends])
    for name in EXACT_DECODERS:
        settings = DecoderSettings(name=name, max_new_tokens=6, chunk_len=3, **case)
        wanted = [decode_slowly(bank, request, settings) for request in requests(name)]
        for batch_size, draft_len in ((2, None), (8, 3)):
            got = list(decode(bank, requests(name), settings, batch_size=batch_size, draft_len=draft_len))
            assert [c.token_ids for c in got] == wanted, name
            check_ends(got, ends)


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("case", CASES[:5], ids=str)
def test_the_others_at_the_ends_of_their_settings(
    bank: ModelBank, case: dict, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bank, "eos_ids", ENDS[ends])
    ways = [{"name": name} for name in DECODERS if name not in EXACT_DECODERS] + [{"verification": "block"}]
    for way in ways:
        settings = DecoderSettings(max_new_tokens=6, chunk_len=3, max_tries=2, n_candidates=2, **case | way)
        got = list(decode(bank, requests("scr"), settings, batch_size=8))
        assert [c.token_ids for c in decode(bank, requests("scr"), settings, batch_size=1)] == [
            c.token_ids for c in got
        ]
        check_ends(got, ends)


def check_ends(completions: list, ends: str) -> None:
    for c in completions:
        assert len(c.token_ids) == {"none": 6, "all": 1}.get(ends, len(c.token_ids)) <= 6
        assert not set(c.token_ids[:-1]) & ENDS[ends]
        assert (c.finish_reason == "stop") == (c.token_ids[-1] in ENDS[ends])
        assert math.isfinite(c.log_prob_reference) and all(map(math.isfinite, c.log_ratios.values()))
