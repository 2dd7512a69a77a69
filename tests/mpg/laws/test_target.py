"""`law` against the definitions, by code shared with nobody; and against other ways to the same law."""

from __future__ import annotations

import pytest
import torch

from mpg import BankError, DecoderSettings, ModelBank, law
from tests.fakes import tabular_bank
from tests.laws import direct_law, total_variation

WEIGHTS = {"a": 0.3, "b": 0.7}
PROMPT = [1, 2]
GREEDY = {"temperature": 0, "top_k": 2}


def settings(**changes: object) -> DecoderSettings:
    values: dict[str, object] = {"horizon": 2, "chunk_len": 3, "max_new_tokens": 4}
    return DecoderSettings(**(values | changes))  # type: ignore[arg-type]


def defined(
    bank: ModelBank,
    weights: dict[str, float],
    wanted: DecoderSettings,
    target: str,
    read: dict[int, list[int]] | None = None,
):
    """``read``: what a branch reads instead of PROMPT."""
    (backbone,) = bank.backbones

    def logits(branch: int, ids: tuple[int, ...]):
        seen = [*(read or {}).get(branch, PROMPT), *ids[len(PROMPT) :]]
        return backbone.models[branch].fn(torch.tensor([seen]))[0].numpy()

    return direct_law(
        [lambda ids, b=b: logits(b, ids) for b in range(len(backbone.models))],
        list(zip(bank.layout.policy, bank.layout.reference, strict=True)),
        tuple(PROMPT),
        [weights.get(a, 0.0) for a in bank.attributes],
        [wanted.strength_of(a) for a in bank.attributes],
        target=target,
        horizon=wanted.horizon,
        temperature=wanted.temperature,
        top_k=wanted.top_k,
        top_p=wanted.top_p,
        max_new_tokens=wanted.max_new_tokens,
        eos_id=0,
    )


TARGETS = [
    ({"name": "scr-exact", "aggregate": "sum"}, "sum"),
    ({"name": "scr-exact", "aggregate": "product"}, "product"),
    ({"name": "routing"}, "routed"),
    ({"name": "mod"}, "product"),
    ({"name": "drift"}, "product"),
    ({"name": "pad"}, "pad"),
    ({"name": "reference"}, "reference"),
    ({"name": "prompting"}, "reference"),
]


@pytest.mark.parametrize("own_reference", [False, True])
@pytest.mark.parametrize("weights", [WEIGHTS, {"a": 1.0, "b": 0.0}])
@pytest.mark.parametrize(("decoder", "target"), TARGETS, ids=[f"{d['name']}-{t}" for d, t in TARGETS])
def test_the_enumerated_law_is_the_definition(
    own_reference: bool, weights: dict[str, float], decoder: dict[str, str], target: str
) -> None:
    """`law` shares its formulas with the engine: here they are held against the definition itself."""
    bank = tabular_bank(own_reference=own_reference)
    for horizon in (1, 2, 3, None):
        for changes in ({}, {"temperature": 0.6}, {"temperature": 2.0, "top_k": 2}, {"top_p": 0.6}, GREEDY):
            for strength in (1.0, {"a": 0.5, "b": 3.0}):
                wanted = settings(horizon=horizon, strength=strength, **decoder, **changes)
                assert (
                    total_variation(law(bank, PROMPT, weights, wanted), defined(bank, weights, wanted, target)) < 1e-9
                )


OWN_PROMPTS = {"a": [2, 1, 0, 2], "b": [1]}


@pytest.mark.parametrize(("decoder", "target"), TARGETS[:6], ids=[f"{d['name']}-{t}" for d, t in TARGETS[:6]])
def test_an_attribute_may_read_a_prompt_of_its_own(decoder: dict[str, str], target: str) -> None:
    """So does its own reference; without one, the reference under the row's prompt is the denominator."""
    for own_reference, read in ((False, {1: [2, 1, 0, 2], 2: [1]}), (True, {1: [2, 1, 0, 2], 2: [1], 3: [1]})):
        bank = tabular_bank(own_reference=own_reference)
        for strength in (1.0, {"a": 0.5, "b": 3.0}):
            wanted = settings(strength=strength, top_k=2, **decoder)
            enumerated = law(bank, PROMPT, WEIGHTS, wanted, OWN_PROMPTS)
            assert total_variation(enumerated, defined(bank, WEIGHTS, wanted, target, read)) < 1e-9
            assert total_variation(enumerated, law(bank, PROMPT, WEIGHTS, wanted)) > 1e-3


def test_the_identity_holds_under_prompts_of_ones_own() -> None:
    """E_{pi_0}[sum_i alpha_i r_i] = 1, and q_i at strength 1 is pi_i under its own prompt."""
    bank = tabular_bank()
    wanted = settings(name="scr-exact", horizon=None)
    reference = law(bank, PROMPT, {}, settings(name="reference"))
    mixed = law(bank, PROMPT, WEIGHTS, wanted, OWN_PROMPTS)
    ratios = {text: mixed[text] / reference[text] for text in mixed}
    assert sum(reference[text] * ratio for text, ratio in ratios.items()) == pytest.approx(1.0, abs=1e-9)
    (backbone,) = bank.backbones
    alone = ModelBank.from_functions(reference=backbone.models[1], attributes={})
    single = law(bank, PROMPT, {"a": 1.0}, wanted, OWN_PROMPTS)
    assert total_variation(single, law(alone, OWN_PROMPTS["a"], {}, settings(name="reference"))) < 1e-9


def test_drift_takes_weights_of_any_sign_and_sum() -> None:
    bank, weights = tabular_bank(), {"a": -0.4, "b": 1.3}
    wanted = settings(name="drift")
    assert total_variation(law(bank, PROMPT, weights, wanted), defined(bank, weights, wanted, "product")) < 1e-9
    with pytest.raises(ValueError, match=r"weights\.a: -0\.4 must be 0 or more"):
        law(bank, PROMPT, weights, settings(name="mod"))


def test_one_attribute_at_strength_one_is_its_own_model() -> None:
    """With rho = pi_0 and lambda = 1 the component is the preference model: law by another way."""
    bank = tabular_bank(("a", "b"))
    reference, model, _ = bank.backbones[0].models
    as_reference = ModelBank.from_functions(reference=model, attributes={"a": reference})
    wanted = law(as_reference, PROMPT, {}, settings(name="reference"))
    for name in ("single", "scr-exact", "routing", "mod", "soup"):
        assert total_variation(law(bank, PROMPT, {"a": 1.0}, settings(name=name)), wanted) < 1e-12, name
    with pytest.raises(ValueError, match="'single' takes one attribute, not a, b"):
        law(bank, PROMPT, WEIGHTS, settings(name="single"))


def test_the_soup_is_its_own_models_law() -> None:
    bank, strength = tabular_bank(), {"a": 2.0, "b": 0.5}
    mixed = bank.backbones[0].soup([0.6, 0.35])
    as_reference = ModelBank.from_functions(reference=mixed, attributes={"a": mixed})
    wanted = law(as_reference, PROMPT, {}, settings(name="reference", top_p=0.8))
    got = law(bank, PROMPT, WEIGHTS, settings(name="soup", strength=strength, top_p=0.8))
    assert total_variation(got, wanted) < 1e-12
    with pytest.raises(BankError, match="no deltas to add up"):
        law(tabular_bank(own_reference=True), PROMPT, WEIGHTS, settings(name="soup"))


def test_horizons_and_decoders_make_different_targets() -> None:
    """So that a decoder which sampled another's target could not pass by chance."""
    bank = tabular_bank()
    laws = [law(bank, PROMPT, WEIGHTS, settings(horizon=h)) for h in (1, 2, None)]
    laws += [law(bank, PROMPT, WEIGHTS, settings(name=name)) for name in ("mod", "soup")]
    laws += [
        law(bank, PROMPT, WEIGHTS, settings(name=name, top_k=2)) for name in ("scr-exact", "routing", "mod", "pad")
    ]
    distances = [total_variation(left, right) for i, left in enumerate(laws) for right in laws[:i]]
    assert min(distances) > 0.01
