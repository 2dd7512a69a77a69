"""The laws of the decoders on toys: the batched engine's draws against the enumerated target.

Each check is one joint chi-square over all complete responses, at a fixed seed. Its false-alarm
probability is ALPHA; with fixed seeds an alarm is reproducible and means a change of the sampler.
"""

from __future__ import annotations

import pytest
import torch

import mpg.engine
from mpg import DecoderSettings, ModelBank, Request, decode, law
from mpg.verify import residual
from tests.fakes import tabular_bank
from tests.laws import chi_square_p_value, direct_law, total_variation

ALPHA = 1e-4
N_DRAWS = 4000
WEIGHTS = {"a": 0.3, "b": 0.7}
PROMPT = [1, 2]


def settings(**changes: object) -> DecoderSettings:
    values: dict[str, object] = {
        "name": "scr-exact",
        "aggregate": "sum",
        "horizon": 2,
        "chunk_len": 3,
        "max_new_tokens": 4,
    }
    return DecoderSettings(**(values | changes))  # type: ignore[arg-type]


def draws(bank, wanted: DecoderSettings, weights=WEIGHTS, n: int = N_DRAWS, batch_size: int = 1000):
    requests = [Request(PROMPT, weights, seed=seed) for seed in range(n)]
    return [c.token_ids for c in decode(bank, requests, wanted, batch_size=batch_size)]


CASES = [
    settings(),
    settings(horizon=1, chunk_len=1),
    settings(horizon=3, chunk_len=2, temperature=0.6),
    settings(horizon=None, chunk_len=4, strength=2.0),
    settings(top_k=2),
    settings(top_p=0.7, temperature=1.5),
    settings(strength={"a": 0.5, "b": 3.0}),
    settings(aggregate="product", horizon=None),
    settings(aggregate="product", strength=2.0, top_p=0.8, chunk_len=2),
    settings(name="reference", top_k=2, temperature=0.7),
]


@pytest.mark.parametrize("own_reference", [False, True])
@pytest.mark.parametrize("weights", [WEIGHTS, {"a": 1.0, "b": 0.0}])
@pytest.mark.parametrize("aggregate", ["sum", "product"])
def test_the_enumerated_law_is_the_definition(own_reference: bool, weights: dict[str, float], aggregate: str) -> None:
    """`law` shares its formulas with the engine: here they are held against the definition itself."""
    bank = tabular_bank(own_reference=own_reference)
    (backbone,) = bank.backbones
    models = [lambda ids, m=m: m.fn(torch.tensor([ids]))[0].numpy() for m in backbone.models]
    pairs = list(zip(bank.layout.policy, bank.layout.reference, strict=True))
    for horizon in (1, 2, 3, None):
        for changes in ({}, {"temperature": 0.6}, {"temperature": 2.0, "top_k": 2}, {"top_p": 0.6}):
            for strength in (1.0, {"a": 0.5, "b": 3.0}):
                wanted = settings(aggregate=aggregate, horizon=horizon, strength=strength, **changes)
                direct = direct_law(
                    models,
                    pairs,
                    tuple(PROMPT),
                    [weights[a] for a in bank.attributes],
                    [wanted.strength_of(a) for a in bank.attributes],
                    aggregate=aggregate,
                    horizon=horizon,
                    temperature=wanted.temperature,
                    top_k=wanted.top_k,
                    top_p=wanted.top_p,
                    max_new_tokens=wanted.max_new_tokens,
                    eos_id=0,
                )
                assert total_variation(law(bank, PROMPT, weights, wanted), direct) < 1e-9


@pytest.mark.parametrize("own_reference", [False, True])
@pytest.mark.parametrize("wanted", CASES, ids=range(len(CASES)))
def test_exact_decoders_sample_the_enumerated_law(wanted: DecoderSettings, own_reference: bool) -> None:
    bank = tabular_bank(own_reference=own_reference)
    target = law(bank, PROMPT, WEIGHTS, wanted)
    assert sum(target.values()) == pytest.approx(1.0, abs=1e-9)
    assert chi_square_p_value(draws(bank, wanted), target) > ALPHA


@pytest.mark.parametrize("weights", [{"a": 1.0}, {"a": 1.0, "b": 0.0}, {"a": 0.2, "b": 0.5, "c": 0.3}])
def test_weights_of_zero_and_other_numbers_of_attributes(weights: dict[str, float]) -> None:
    bank = tabular_bank(tuple(weights), own_reference=False)
    assert chi_square_p_value(draws(bank, settings(), weights), law(bank, PROMPT, weights, settings())) > ALPHA


def test_one_attribute_at_strength_one_is_its_own_model() -> None:
    """With rho = pi_0 and lambda = 1 the component is the preference model: law by another way."""
    bank = tabular_bank(("a",))
    alone = law(bank, PROMPT, {"a": 1.0}, settings())
    reference, model = bank.backbones[0].models
    as_reference = ModelBank.from_functions(reference=model, attributes={"a": reference})
    assert total_variation(alone, law(as_reference, PROMPT, {}, settings(name="reference"))) < 1e-12


def test_horizons_make_different_targets() -> None:
    """So that a decoder which ignored the horizon could not pass the cases above by chance."""
    bank = tabular_bank()
    laws = [law(bank, PROMPT, WEIGHTS, settings(horizon=h)) for h in (1, 2, None)]
    assert min(total_variation(laws[i], laws[j]) for i, j in ((0, 1), (0, 2), (1, 2))) > 0.01


# ------------------------------------------------------------------ mutants that must be caught


def caught(monkeypatch: pytest.MonkeyPatch, name: str, broken, **changes: object) -> bool:
    monkeypatch.setattr(mpg.engine, name, broken)
    bank = tabular_bank(scale=1.5)
    wanted = settings(**changes)
    return chi_square_p_value(draws(bank, wanted), law(bank, PROMPT, WEIGHTS, wanted)) < ALPHA


def test_a_missing_residual_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert caught(monkeypatch, "residual", lambda target, draft: target)


def test_a_residual_the_wrong_way_round_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert caught(monkeypatch, "residual", lambda target, draft: residual(draft, target))


def test_accepting_every_draft_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert caught(
        monkeypatch, "accept_token", lambda target, draft, uniforms: torch.ones_like(target, dtype=torch.bool)
    )


def test_weights_that_never_follow_the_tokens_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert caught(monkeypatch, "follow", lambda weights, alphas, *rest: alphas, horizon=None)


def test_boundaries_counted_from_the_round_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Horizon boundaries fixed by the rounds of drafting instead of by position."""
    right = mpg.engine.follow

    def by_round(weights, alphas, log_q_token, position, horizon):
        return right(weights, alphas, log_q_token, position - position.min(), horizon)

    assert caught(monkeypatch, "follow", by_round, horizon=2)


def test_weights_reset_at_every_rejection_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = mpg.engine.Engine._score

    def forgetful(self, session, rows, drafts):
        rows.log_weights = rows.log_alphas.clone()
        return right(self, session, rows, drafts)

    monkeypatch.setattr(mpg.engine.Engine, "_score", forgetful)
    bank, wanted = tabular_bank(scale=1.5), settings(horizon=None)
    assert chi_square_p_value(draws(bank, wanted), law(bank, PROMPT, WEIGHTS, wanted)) < ALPHA


def test_a_draft_law_that_is_not_the_drafted_one_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """q taken before the warpers (here: temperature) while the drafts come from behind them."""
    right = mpg.engine.accept_token
    assert caught(monkeypatch, "accept_token", lambda target, draft, u: right(target, draft**0.5, u))


def test_a_cache_rolled_back_one_token_short_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from mpg.rows import Rows

    right = Rows.starts
    monkeypatch.setattr(Rows, "starts", lambda self: right(self) + (self.offsets() > 1).long())
    bank = tabular_bank(scale=1.5)
    assert chi_square_p_value(draws(bank, settings()), law(bank, PROMPT, WEIGHTS, settings())) < ALPHA


# ------------------------------------------------------------------ scr


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
    from mpg.threshold import Window

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
    from mpg.engine import Engine

    bank = tabular_bank()
    wanted = settings(name="scr", chunk_len=2, max_new_tokens=6)
    requests = [Request(PROMPT, WEIGHTS, seed=s) for s in range(1500)]
    engine = Engine(bank, wanted, batch_size=500)
    list(engine.run(requests))
    assert engine.alarm.n > 3000
    assert engine.alarm.mean == pytest.approx(1.0, abs=0.05)
    assert not engine.alarm.check()

    crooked = Engine(bank, wanted, batch_size=500)
    right = crooked._draft

    def flattered(session, rows, uniforms, *, truncated):
        drafts, laws, log_probs = right(session, rows, uniforms, truncated=truncated)
        return drafts, laws, [lp - 0.05 for lp in log_probs]

    crooked._draft = flattered  # type: ignore[method-assign]
    list(crooked.run(requests))
    assert crooked.alarm.check()
