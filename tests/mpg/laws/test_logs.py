"""Logarithms of laws where probabilities underflow: low temperatures, high strengths, against float64 by other code.

The reference is numpy in float64 from the same logits, in log space throughout, and shares no code with the package.
What a float32 log-policy is off by (6e-8 of its size) comes back times the strength; so tolerances are in units of the
largest number that goes into a law.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mpg import DecoderSettings, FunctionModel, ModelBank, Request, decode
from mpg.laws.bound import RatioAlarm
from mpg.laws.drawing import truncate, truncate_log
from mpg.laws.layout import Layout, parts_of_one_row
from mpg.laws.logspace import log_policy
from mpg.laws.row_settings import RowSettings
from mpg.laws.target import TargetState, follow, log_q_of, log_token_law, token_law
from mpg.score.choices import choice_log_probs
from mpg.score.texts import component_log_probs
from mpg.score.weights import draws_from_segments, log_likelihood

VOCAB = 40
LAYOUT = Layout(("a", "b", "c"), (1, 2, 3), (0, 4, 0))
ALPHAS = np.array([0.3, 0.7, 0.0])
TEMPERATURES = [0.01, 0.02, 0.1, 1.0, 5.0]
STRENGTHS = [0.5, 1.0, 20.0, 500.0]
KINDS = {"reference": "reference", "sum": "scr-exact", "product": "mod", "pad": "pad", "routed": "routing"}
CUTS = [{}, {"top_k": 7}, {"top_p": 0.6}, {"top_k": 30, "top_p": 0.9}]


def logits() -> torch.Tensor:
    return torch.randn(5, VOCAB, generator=torch.Generator().manual_seed(4)) * 6


def normalised(x: np.ndarray) -> np.ndarray:
    return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


def cut(log_law: np.ndarray, top_k: int = 0, top_p: float = 1.0) -> np.ndarray:
    order = np.argsort(-log_law, kind="stable")
    if top_k:
        log_law = normalised(np.where(np.isin(np.arange(VOCAB), order[:top_k]), log_law, -np.inf))
    if top_p < 1:
        before = np.concatenate([[0], np.cumsum(np.exp(log_law[order]))[:-1]])
        log_law = normalised(np.where(np.isin(np.arange(VOCAB), order[before < top_p]), log_law, -np.inf))
    return log_law


def defined(kind: str, temperature: float, strength: float, cuts: dict) -> tuple[np.ndarray, float]:
    """The log-law of one token, and the largest number that goes into it."""
    pi = normalised(logits().double().numpy() / temperature)
    ratios = [pi[policy] - pi[rho] for policy, rho in zip(LAYOUT.policy, LAYOUT.reference, strict=True)]
    size = np.abs(pi).max() * max(1.0, strength) * 3
    if kind == "reference":
        return cut(pi[0], **cuts), size
    if kind in ("product", "pad"):
        base = cut(pi[0], **cuts) if kind == "pad" else pi[0]
        law = normalised(base + sum(a * strength * r for a, r in zip(ALPHAS, ratios, strict=True)))
        return (law if kind == "pad" else cut(law, **cuts)), size
    components = [normalised(pi[0] + strength * r) for r in ratios]
    components = [cut(q, **cuts) for q in components] if kind == "routed" else components
    with np.errstate(divide="ignore"):
        law = np.logaddexp.reduce([np.log(a) + q for a, q in zip(ALPHAS, components, strict=True)])
    return (law if kind == "routed" else cut(law, **cuts)), size


def arguments(kind: str, temperature: float, strength: float, cuts: dict, dtype: torch.dtype) -> tuple:
    settings = DecoderSettings(name=KINDS[kind], temperature=temperature, strength=strength, **cuts)
    alphas = torch.from_numpy(ALPHAS)[None]
    log_policies = log_policy(logits().to(dtype), temperature)
    own = RowSettings.of([settings], LAYOUT.attributes)
    return kind, log_policies, parts_of_one_row(LAYOUT), TargetState(alphas, alphas.log()), own


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_finite_log_probability_stays_finite(kind: str, dtype: torch.dtype) -> None:
    least = 0.0
    for temperature in TEMPERATURES:
        for strength in STRENGTHS:
            for cuts in CUTS:
                wanted, size = defined(kind, temperature, strength, cuts)
                given = arguments(kind, temperature, strength, cuts, dtype)
                found = log_token_law(*given)[0].double().numpy()
                assert (np.isfinite(found) == np.isfinite(wanted)).all(), (temperature, strength, cuts)
                kept = np.isfinite(wanted)
                atol = size * (2e-7 if dtype == torch.float32 else 1e-14)
                assert np.abs(found[kept] - wanted[kept]).max() < max(atol, 1e-5 if dtype == torch.float32 else 1e-12)
                law, _ = token_law(*given)  # what is drawn from is the same law
                assert np.abs(law[0].double().numpy() - np.exp(found)).max() < 1e-5
                least = min(least, wanted[kept].min())
    assert least < -2000  # far below what either float holds as a probability


def test_the_weights_follow_tokens_that_no_probability_could_hold() -> None:
    """Under every target that is a sum, routed ones among them: never NaN, and Bayes' rule in float64."""
    for kind in ("sum", "routed"):
        given = arguments(kind, 0.02, 3.0, {}, torch.float32)
        _, log_policies, parts, state, own = given
        _, log_q = token_law(*given)
        pi = normalised(logits().double().numpy() / 0.02)
        models = zip(LAYOUT.policy, LAYOUT.reference, strict=True)
        components = [normalised(pi[0] + 3.0 * (pi[policy] - pi[rho])) for policy, rho in models]
        for token in range(VOCAB):
            of_token = log_q_of(torch.tensor([token]), log_policies, parts, own.strengths, log_q)
            found = follow(state, of_token, parts, torch.tensor([0]), None)[0].numpy()
            with np.errstate(divide="ignore"):
                wanted = normalised(np.log(ALPHAS) + [q[token] for q in components])
            assert np.isfinite(found[:2]).all() and found[2] == -np.inf
            assert np.abs(found[:2] - wanted[:2]).max() < 0.02  # of numbers up to 8,000


@pytest.mark.parametrize("cuts", CUTS[1:], ids=str)
def test_truncation_in_log_space_keeps_what_truncation_keeps(cuts: dict) -> None:
    given = {"top_k": 0, "top_p": 1.0} | cuts
    laws = (torch.randn(200, VOCAB, generator=torch.Generator().manual_seed(0)) * 2).log_softmax(-1)
    assert torch.allclose(truncate_log(laws, **given).exp(), truncate(laws.exp(), **given), atol=1e-6)
    cold = (laws * 200).log_softmax(-1)  # most are 0 as probabilities: still told apart
    kept = truncate_log(cold, top_k=5, top_p=1.0).isfinite().sum(-1)
    assert (kept == 5).all() and int((cold.exp() > 0).sum(-1).min()) < 5


# ------------------------------------------------------------------ through what uses them


def bank(scale: float = 6.0) -> ModelBank:
    """Models of a table in float32's range whatever the temperature; logits depend on the last token."""

    def model(seed: int) -> FunctionModel:
        table = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed)) * scale
        return FunctionModel(lambda tokens: table[tokens[:, -1]], VOCAB, 0)

    return ModelBank.from_functions(
        reference=model(0), attributes={"a": model(1), "b": model(2)}, references={"b": model(3)}
    )


@pytest.mark.parametrize("name", ["reference", "scr-exact", "scr", "best-of-n", "mod", "drift", "pad", "routing"])
def test_every_choice_of_finite_logits_is_finite(name: str) -> None:
    for temperature in (0.01, 0.02, 5.0):
        for strength in (1.0, 500.0):
            settings = DecoderSettings(name=name, temperature=temperature, strength=strength)
            asked = [(Request([3], {"a": 0.5, "b": 0.5}, seed=0), [(i, 5, 6) for i in range(1, 30)])]
            (found,) = choice_log_probs(bank(), asked, settings)
            assert all(math.isfinite(value) for value in found) and min(found) < -1000 * (temperature < 1)
            shares = [(Request([3], {"a": 0.5, "b": 0.5}, seed=0), [(i,) for i in range(VOCAB)])]
            (found,) = choice_log_probs(bank(), shares, settings)
            assert math.fsum(math.exp(value) for value in found) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("name", ["scr", "sequence-rejection", "best-of-n", "scr-exact", "routing", "mod", "pad"])
def test_books_and_texts_hold_at_the_extremes(name: str) -> None:
    """Finite books, no NaN on the way, and no error at a run's end (ratios beyond what a float can square)."""
    for temperature in (0.02, 1.0):
        settings = DecoderSettings(name=name, temperature=temperature, strength=500.0, max_new_tokens=24, max_tries=2)
        asked = [Request([1 + i % 9], {"a": 0.5, "b": 0.5}, seed=i) for i in range(150)]
        for request, done in zip(asked, decode(bank(), asked, settings), strict=True):
            ((_, log_probs),) = component_log_probs(
                bank(), [(request.prompt_ids, done.token_ids)], temperature=temperature
            )
            sums = log_probs.sum(0)
            assert math.isfinite(done.log_prob_reference) and all(map(math.isfinite, done.log_ratios.values()))
            assert done.log_prob_reference == pytest.approx(float(sums[0]), rel=1e-6)
            assert done.log_ratios["a"] == pytest.approx(float(sums[1] - sums[0]), rel=1e-6, abs=1e-6)


def test_of_rejected_responses_the_likeliest_is_picked_however_unlikely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every response is a thousand nats below the target: one is still e^500 times another, and no tie."""
    table = torch.full((4, 4), 0.0)
    target = torch.tensor([0.0, -1000.0, -1500.0, -2000.0]).repeat(4, 1)
    reference = FunctionModel(lambda tokens: table[tokens[:, -1]] + torch.tensor([-1e4, 0.0, 0.0, 0.0]), 4, 0)
    wanted = FunctionModel(lambda tokens: target[tokens[:, -1]], 4, 0)
    bank = ModelBank.from_functions(reference=reference, attributes={"a": wanted})
    settings = DecoderSettings(name="sequence-rejection", max_new_tokens=1, max_tries=40)
    done = list(decode(bank, [Request([1], {"a": 1.0}, seed=i) for i in range(30)], settings))
    assert {c.token_ids for c in done} == {(1,)}


@pytest.mark.parametrize("largest", [1e200, math.inf])
def test_the_alarm_holds_its_tongue_where_ratios_are_beyond_floats(largest: float) -> None:
    alarm = RatioAlarm()
    for ratio in [largest, 0.5] * 100:
        alarm.record(ratio)
    assert not alarm.check()


@pytest.mark.parametrize("sigma", [0.5, 2.5, 4.0])
def test_the_alarm_does_not_take_a_tail_that_was_not_drawn_for_a_fault(sigma: float) -> None:
    """Ratios whose expectation is 1, log-normal: of the wider ones many samples have a mean far below."""
    generator, alarms, low = np.random.default_rng(0), 0, 0
    for _ in range(200):
        alarm = RatioAlarm()
        for ratio in np.exp(generator.normal(-(sigma**2) / 2, sigma, 300)):
            alarm.record(float(ratio))
        alarms, low = alarms + alarm.check(), low + (alarm.mean < 0.7)
    assert alarms <= 1 and (low > 60) == (sigma > 1)


def test_the_alarm_hears_a_denominator_that_is_off_by_a_tenth() -> None:
    generator, alarm = np.random.default_rng(1), RatioAlarm()
    for ratio in np.exp(generator.normal(-(0.5**2) / 2, 0.5, 1000)):
        alarm.record(0.9 * float(ratio))
    assert alarm.check()


def test_segments_of_a_mixture_far_apart_are_weighed_in_log_space() -> None:
    segments = np.array([[-5000.0, -1.0], [-3.0, -4000.0], [-900.0, -2.0]])
    assert log_likelihood(segments, np.array([1.0, 0.0])) == pytest.approx(-5903.0)
    assert log_likelihood(segments, np.array([0.5, 0.5])) == pytest.approx(-6.0 + 3 * math.log(0.5))
    draws = draws_from_segments(segments, seed=1)
    assert np.isfinite(draws).all() and draws.mean(axis=0) == pytest.approx([0.4, 0.6], abs=0.03)  # Dirichlet(2, 3)
