"""Monte-Carlo draws of every exact decoder through the batched engine, against the enumerated law.

Each check is one joint chi-square over all complete responses, at a fixed seed. Its false-alarm
probability is ALPHA; with fixed seeds an alarm is reproducible and means a change of the sampler. What no
enumeration of one row can see is here: real uniforms, and rows that end and are replaced by others.
"""

from __future__ import annotations

import pytest
import torch

import mpg.decoding.rounds.lossless
import mpg.laws.verify
from mpg import DecoderSettings, Request, decode, law
from tests.fakes import tabular_bank
from tests.laws import chi_square_p_value

ALPHA = 1e-4
N_DRAWS = 4000
WEIGHTS = {"a": 0.3, "b": 0.7}
PROMPT = [1, 2]

CASES = [
    {"name": "reference", "top_k": 2, "weights": {}},
    {"name": "prompting"},
    {"name": "single", "weights": {"b": 1.0}, "strength": 2.0},
    {"name": "scr-exact", "draft_len": 1},
    {"name": "scr-exact", "draft_len": 3, "horizon": 3},
    {"name": "scr-exact", "draft_len": 2, "top_p": 0.7, "temperature": 1.5, "own_reference": True},
    {"name": "scr-exact", "draft_len": 3, "aggregate": "product", "strength": 2.0},
    {"name": "scr-exact", "weights": {"a": 0.2, "b": 0.5, "c": 0.3}, "draft_len": 2},
    {"name": "scr-exact", "weights": {"a": 1.0, "b": 0.0}, "draft_len": 3, "horizon": None},
    {"name": "scr-exact", "verification": "block", "chunk_len": 3},
    {"name": "scr-exact", "verification": "block", "chunk_len": 2, "horizon": 1, "strength": {"a": 0.5, "b": 3.0}},
    {"name": "scr-exact", "verification": "block", "chunk_len": 4, "top_k": 2, "own_reference": True},
    {"name": "scr-exact", "drafter": "mixture", "horizon": 3},
    {"name": "scr-exact", "drafter": "mixture", "horizon": None, "top_p": 0.7, "own_reference": True},
    {"name": "routing", "top_p": 0.8},
    {"name": "routing", "horizon": None, "own_reference": True},
    {"name": "mod", "temperature": 0.6},
    {"name": "soup", "strength": 1.5},
    {"name": "pad", "top_k": 2},
    {"name": "drift", "weights": {"a": 1.2, "b": -0.5}},
]


def p_value(case: dict) -> float:
    """Of N_DRAWS rows, 400 at a time, so that slots are freed and taken again."""
    changes = {"drafter": "reference", "horizon": 2, "chunk_len": 3, "max_new_tokens": 4} | case
    weights, draft_len = changes.pop("weights", WEIGHTS), changes.pop("draft_len", None)
    bank = tabular_bank(tuple(weights) or ("a", "b"), own_reference=changes.pop("own_reference", False), scale=1.2)
    settings = DecoderSettings(**changes)
    requests = [Request(PROMPT, weights, seed=seed) for seed in range(N_DRAWS)]
    samples = [c.token_ids for c in decode(bank, requests, settings, batch_size=400, draft_len=draft_len)]
    target = law(bank, PROMPT, weights, settings)
    assert sum(target.values()) == pytest.approx(1.0, abs=1e-9)
    return chi_square_p_value(samples, target)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_exact_decoders_sample_their_law(case: dict) -> None:
    assert p_value(case) > ALPHA


# ------------------------------------------------------------------ mutants that must be caught


def test_accepting_every_draft_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpg.laws.verify, "passes", lambda p, u: torch.ones_like(p, dtype=torch.bool))
    assert p_value(CASES[4]) < ALPHA


def test_one_uniform_for_the_test_and_its_replacement_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The enumeration can't see which uniform is used where: a test shared with the draft, here."""
    right = mpg.decoding.rounds.lossless.settle
    monkeypatch.setattr(mpg.decoding.rounds.lossless, "REPLACEMENT", mpg.decoding.rounds.lossless.TEST)
    assert p_value(CASES[4]) < ALPHA
    assert right is mpg.decoding.rounds.lossless.settle


def test_block_tests_that_reuse_a_uniform_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = mpg.laws.verify.passes
    monkeypatch.setattr(mpg.laws.verify, "passes", lambda p, u: right(p, u[:, :1].expand_as(u)))
    assert p_value(CASES[9]) < ALPHA


def test_a_freed_slot_that_keeps_its_weights_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from mpg.decoding.rows import Rows

    right = Rows.add

    def stale(self, index, request):
        before = self.log_weights[len(self)].clone()
        right(self, index, request)
        if index >= 400:
            self.log_weights[len(self) - 1] = before

    monkeypatch.setattr(Rows, "add", stale)
    assert p_value(CASES[4] | {"horizon": None}) < ALPHA
