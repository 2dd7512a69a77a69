"""`scr`, whole responses, and their books: the laws that they do follow, and what they say of their bias."""

from __future__ import annotations

from collections import defaultdict

import pytest

from mpg import DecoderSettings, Request, decode, law
from mpg.oracle.threshold import threshold_law
from tests.fakes import tabular_bank
from tests.laws import chi_square_p_value, total_variation

ALPHA = 1e-4
N_DRAWS = 4000
WEIGHTS = {"a": 0.3, "b": 0.7}
PROMPT = [1, 2]


def settings(**changes: object) -> DecoderSettings:
    values: dict[str, object] = {"horizon": 2, "chunk_len": 3, "max_new_tokens": 4}
    return DecoderSettings(**(values | changes))  # type: ignore[arg-type]


def draws(bank, wanted: DecoderSettings, n: int = N_DRAWS) -> list[tuple[int, ...]]:
    requests = [Request(PROMPT, WEIGHTS, seed=seed) for seed in range(n)]
    return [c.token_ids for c in decode(bank, requests, wanted, batch_size=1000)]


def bounded_law(bank, wanted: DecoderSettings, bound: float) -> dict[tuple[int, ...], float]:
    """``∝ pi_0 min(R, M)`` for one chunk that is the whole response."""
    reference = law(bank, PROMPT, {}, settings(name="reference", max_new_tokens=wanted.max_new_tokens))
    target = law(bank, PROMPT, WEIGHTS, wanted)
    mass = {key: p * min(target.get(key, 0.0) / p, bound) for key, p in reference.items()}
    total = sum(mass.values())
    return {key: value / total for key, value in mass.items()}


@pytest.mark.parametrize(("bound", "biased"), [(2.0, True), (1e6, False)])
def test_scr_without_salvage_follows_the_bounded_law(
    monkeypatch: pytest.MonkeyPatch, bound: float, biased: bool
) -> None:
    """At a fixed bound the law is ``pi_0 min(R, M)``; as M grows it becomes the target."""
    from mpg.laws.bound import Window

    monkeypatch.setattr(Window, "bound", property(lambda self: min(bound, 30.0) if not biased else bound))
    bank = tabular_bank(scale=0.8)
    wanted = settings(name="scr", chunk_len=3, max_new_tokens=3, salvage=False, max_tries=10_000)
    samples = draws(bank, wanted)
    assert chi_square_p_value(samples, bounded_law(bank, wanted, bound if biased else 30.0)) > ALPHA
    target = law(bank, PROMPT, WEIGHTS, wanted)
    if biased:
        assert total_variation(bounded_law(bank, wanted, bound), target) > 0.01
        assert chi_square_p_value(samples, target) < ALPHA
    else:
        assert chi_square_p_value(samples, target) > ALPHA


def test_scr_with_its_online_bound_salvage_and_fallbacks_follows_its_enumerated_law() -> None:
    """False alarm ALPHA; the target, and what `scr` would sample without salvage, must be told from it."""
    bank = tabular_bank(scale=1.5)
    wanted = settings(name="scr", max_new_tokens=3, max_tries=2)
    target = law(bank, PROMPT, WEIGHTS, wanted)
    reference = law(bank, PROMPT, {}, settings(name="reference", max_new_tokens=3))
    online, whole = (
        threshold_law(target, reference, chunk_len=3, salvage=salvage, max_tries=2) for salvage in (True, False)
    )
    assert sum(online.law.values()) == pytest.approx(1.0, abs=1e-12)
    samples = draws(bank, wanted, 2000)
    assert chi_square_p_value(samples, online.law) > ALPHA
    assert chi_square_p_value(samples, target) < ALPHA and chi_square_p_value(samples, whole.law) < ALPHA
    fixed = threshold_law(target, reference, chunk_len=3, bound=2.0, salvage=False, max_tries=None)
    assert total_variation(fixed.law, bounded_law(bank, wanted, 2.0)) < 1e-12
    assert fixed.acceptance == pytest.approx((1 - fixed.lost_mass) / 2.0)  # A = E[min(R, M)] / M
    with pytest.raises(ValueError, match="max_tries"):
        threshold_law(target, reference, chunk_len=3, max_tries=None)


def test_scr_keeps_its_books() -> None:
    bank = tabular_bank()
    wanted = settings(name="scr", chunk_len=2, max_new_tokens=6, salvage=False, max_tries=2)
    requests = [Request(PROMPT, WEIGHTS, seed=s) for s in range(300)]
    completions = list(decode(bank, requests, wanted, batch_size=64))
    assert not any(c.exact for c in completions)
    assert sum(c.n_fallbacks for c in completions) > 0
    assert sum(c.n_clipped for c in completions) > 0
    assert all(c.tv_bound is not None and 0 <= c.tv_bound <= 1 for c in completions)
    assert any(c.tv_bound > 0 for c in completions)
    assert all(0 <= c.acceptance_rate <= 1 for c in completions)
    salvaged = list(decode(bank, requests, settings(name="scr", chunk_len=4, max_new_tokens=6), batch_size=64))
    assert any(c.n_salvaged for c in salvaged)
    assert all((c.tv_bound is None) == (c.n_salvaged > 0) for c in salvaged)


def test_the_mean_of_r_is_one_and_a_wrong_denominator_raises_the_alarm() -> None:
    from mpg.decoding.engine import Engine

    bank = tabular_bank()
    wanted = settings(name="scr", chunk_len=2, max_new_tokens=6)
    requests = [Request(PROMPT, WEIGHTS, seed=s) for s in range(1500)]
    engine = Engine(bank, wanted, batch_size=500)
    list(engine.run(requests))
    assert engine.alarm.n > 3000
    assert engine.alarm.mean == pytest.approx(1.0, abs=0.05)
    assert not engine.alarm.check()

    crooked = Engine(bank, wanted, batch_size=500)
    right = crooked.round.draft

    def flattered(session, rows, uniforms):
        chunk = right(session, rows, uniforms)
        chunk.log_pi0 -= 0.05
        return chunk

    crooked.round.draft = flattered  # type: ignore[method-assign]
    list(crooked.run(requests))
    assert crooked.alarm.check()


# ------------------------------------------------------------------ whole responses


@pytest.mark.parametrize(("bound", "biased"), [(1.2, True), (20.0, False)])
def test_sequence_rejection_follows_the_bounded_law(
    monkeypatch: pytest.MonkeyPatch, bound: float, biased: bool
) -> None:
    from mpg.laws.bound import Window

    monkeypatch.setattr(Window, "bound", property(lambda self: bound))
    bank = tabular_bank(scale=0.8)
    wanted = settings(name="sequence-rejection", max_new_tokens=3, max_tries=10_000)
    samples = draws(bank, wanted)
    assert chi_square_p_value(samples, bounded_law(bank, wanted, bound)) > ALPHA
    assert (chi_square_p_value(samples, law(bank, PROMPT, WEIGHTS, wanted)) < ALPHA) == biased


def test_a_response_picked_among_rejected_ones_is_nearer_to_the_target_than_the_reference() -> None:
    """One try and no acceptance is the reference; picked in proportion to R, 32 are nearly the target."""
    bank = tabular_bank(scale=0.6)
    laws = []
    for tries in (1, 32):
        wanted = settings(name="sequence-rejection", max_new_tokens=3, max_tries=tries)
        counts: dict[tuple[int, ...], float] = defaultdict(float)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mpg.laws.bound.Window.bound", property(lambda self: 1e12))
            for sample in draws(bank, wanted, 2000):
                counts[sample] += 1 / 2000
        laws.append(total_variation(counts, law(bank, PROMPT, WEIGHTS, wanted)))
    assert laws[1] < 0.06 < 0.1 < laws[0]  # sampling noise alone is about 0.03


@pytest.mark.parametrize("n", [1, 3])
def test_best_of_n_follows_the_law_of_the_best_of_n_draws(n: int) -> None:
    bank = tabular_bank()
    wanted = settings(name="best-of-n", max_new_tokens=3, n_candidates=n, strength={"a": 2.0, "b": 0.5})
    reference = law(bank, PROMPT, {}, settings(name="reference", max_new_tokens=3))
    score = {r: score_of(bank, r, {"a": 0.6, "b": 0.35}) for r in reference}
    expected = {}
    for response, p in reference.items():  # the best of n: all n at most this good, not all n worse
        at_most = sum(q for r, q in reference.items() if score[r] <= score[response])
        expected[response] = at_most**n - (at_most - p) ** n
    assert sum(expected.values()) == pytest.approx(1.0, abs=1e-9)  # no ties
    assert chi_square_p_value(draws(bank, wanted), expected) > ALPHA


def score_of(bank, response: tuple[int, ...], exponents: dict[str, float]) -> float:
    import torch

    total = 0.0
    reference, *models = bank.backbones[0].models
    for t, token in enumerate(response):
        ids = torch.tensor([[*PROMPT, *response[:t]]])
        base = reference.fn(ids).log_softmax(-1)[0, token]
        for model, exponent in zip(models, exponents.values(), strict=True):
            total += exponent * float(model.fn(ids).log_softmax(-1)[0, token] - base)
    return total


def test_whole_responses_keep_their_books() -> None:
    bank = tabular_bank()
    requests = [Request(PROMPT, WEIGHTS, seed=s) for s in range(200)]
    tried = list(decode(bank, requests, settings(name="sequence-rejection", max_tries=2), batch_size=64))
    assert not any(c.exact for c in tried)
    assert {c.n_fallbacks for c in tried} == {0, 1}
    assert all((c.tv_bound is None) == (c.n_fallbacks == 1) and c.n_chunks <= 2 for c in tried)
    best = list(decode(bank, requests, settings(name="best-of-n", n_candidates=3), batch_size=64))
    assert {(c.n_chunks, c.tv_bound, c.acceptance_rate, c.exact) for c in best} == {(3, None, None, False)}
