"""A reference that is told what the attributes are like: the law composed over it, texts and books of the engine."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from mpg import UNTOLD, DecoderSettings, ModelBank, Request, decode, law
from mpg.laws.layout import Layout
from mpg.oracle.decoder import decode_slowly
from mpg.score.choices import choice_log_probs
from mpg.score.texts import component_log_probs
from mpg.settings import DECODERS, EXACT_DECODERS, TABLE, TELLS
from tests.decision_trees import tree_law
from tests.fakes import tabular_bank, tiny_adapter, tiny_llama
from tests.laws import direct_law, total_variation

WEIGHTS = {"a": 0.3, "b": 0.7}
TOLD, BARE = (2, 1, 1, 2), (1, 2)
# What everybody reads besides the told reference, by who else is told.
PROMPTS = {"all": {UNTOLD: BARE}, "reference": {UNTOLD: BARE, "a": BARE, "b": BARE}}
# Of one law each, by how it is drawn.
TARGETS = [
    ({"name": "scr-exact", "horizon": 1, "max_new_tokens": 2}, "sum"),
    ({"name": "scr-exact", "horizon": None, "drafter": "reference"}, "sum"),
    ({"name": "scr-exact", "aggregate": "product", "top_p": 0.8}, "product"),
    ({"name": "routing", "horizon": 2, "top_k": 2}, "routed"),
    ({"name": "mod"}, "product"),
    ({"name": "pad", "top_k": 2}, "pad"),
]
CASES = [(changes, target, tell) for changes, target in TARGETS for tell in ("reference", "all")]


def told(**changes: object) -> DecoderSettings:
    return DecoderSettings(**{"chunk_len": 2, "max_new_tokens": 3, "strength": {"a": 0.5, "b": 2.0}, **changes})


def defined(bank: ModelBank, settings: DecoderSettings, target: str, *, told_ratios: bool) -> dict:
    """The law from its definition: pi_0 is told; ratios are between told models, or between untold ones."""

    def model(number: int, read: tuple[int, ...]):
        fn = bank.backbones[0].models[number].fn
        return lambda tokens: fn(torch.tensor([[*read, *tokens]])).numpy()[0]

    ratio = TOLD if told_ratios else BARE
    own = len(bank.backbones[0].models) > 3  # b's
    models = [model(0, TOLD), model(1, ratio), model(2, ratio), model(3 if own else 0, ratio), model(0, ratio)]
    return direct_law(
        models, [(1, 4), (2, 3)], (), list(WEIGHTS.values()), [settings.strength_of(name) for name in WEIGHTS],
        target=target, horizon=settings.horizon, temperature=settings.temperature, top_k=settings.top_k,
        top_p=settings.top_p, max_new_tokens=settings.max_new_tokens, eos_id=0,
    )  # fmt: skip


@pytest.mark.parametrize("own_reference", [False, True])
@pytest.mark.parametrize(("changes", "target", "tell"), CASES, ids=str)
def test_the_law_is_composed_over_the_told_reference(
    changes: dict, target: str, tell: str, own_reference: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its definition; and the engine's decision tree is that law."""
    bank, settings = tabular_bank(own_reference=own_reference), told(tell=tell, **changes)
    enumerated = law(bank, TOLD, WEIGHTS, settings, PROMPTS[tell])
    assert total_variation(enumerated, defined(bank, settings, target, told_ratios=tell == "all")) < 1e-9
    tree = tree_law(bank, TOLD, WEIGHTS, settings, monkeypatch, prompts=PROMPTS[tell])
    assert total_variation(tree, enumerated) < 1e-9
    untold = law(bank, BARE, WEIGHTS, replace(settings, tell="none"))
    assert total_variation(enumerated, untold) > 1e-2


@pytest.mark.parametrize("changes", [{"name": "soup", "tell": "all"}, {"name": "prompting"}], ids=str)
def test_one_model_that_is_told_is_that_model_under_the_words(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, settings = tabular_bank(), told(**changes)
    tree = tree_law(bank, TOLD, WEIGHTS, settings, monkeypatch, prompts={UNTOLD: BARE})
    assert total_variation(tree, law(bank, TOLD, WEIGHTS, replace(settings, tell="none"))) < 1e-9


@pytest.mark.parametrize("changes", [TARGETS[0][0], TARGETS[2][0]], ids=str)
def test_ratios_to_the_told_reference_are_caught(changes: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mutant: untold attributes over the told reference's denominator, where telling cancels at strength 1."""
    bank, settings = tabular_bank(), told(tell="reference", strength=1.0, **changes)
    wanted = law(bank, TOLD, WEIGHTS, settings, PROMPTS["reference"])
    right = Layout.with_untold
    monkeypatch.setattr(Layout, "with_untold", lambda self, *, divides: right(self, divides=False))
    tree = tree_law(bank, TOLD, WEIGHTS, settings, monkeypatch, prompts=PROMPTS["reference"])
    assert total_variation(tree, wanted) > 1e-2
    assert total_variation(tree, law(bank, BARE, WEIGHTS, told(strength=1.0, **changes))) < 1e-9


@pytest.mark.parametrize("tell", ["reference", "all"])
def test_a_choices_probability_is_the_told_laws(tell: str) -> None:
    bank, settings = tabular_bank(), told(tell=tell)
    enumerated = law(bank, TOLD, WEIGHTS, settings, PROMPTS[tell])
    choices = [(1,), (2, 1)]
    (found,) = choice_log_probs(bank, [(Request(TOLD, WEIGHTS, 0, PROMPTS[tell]), choices)], settings)
    for choice, value in zip(choices, found, strict=True):
        marginal = math.fsum(p for response, p in enumerated.items() if response[: len(choice)] == choice)
        assert value == pytest.approx(math.log(marginal), abs=1e-9)


# ------------------------------------------------------------------ models with caches and a trunk

# Adapters of the top layers share what lies below with the reference that reads the same; one over all layers doesn't.
# "called" is on from a call in its prompt only (aLoRA): before it, its lane is that of the reference told the same.
LAYERS = {"top": [4], "half": [2, 4], "all": None, "called": [3]}
CALL = [11, 12]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> ModelBank:
    folder = tmp_path_factory.mktemp("told")
    base, made = tiny_llama(folder / "base", n_layers=5), {}
    for seed, (name, layers) in enumerate(LAYERS.items()):
        some = {"layers_to_transform": layers, "targets": ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]}
        more: dict[str, Any] = {} if layers is None else some
        more |= {"alora_invocation_tokens": CALL} if name == "called" else {}
        made[name] = tiny_adapter(base, folder / name, seed=seed, scale=0.5, **more)
    return ModelBank.load(str(base), made)


def asked(name: str, tell: str, n: int = 5) -> list[Request]:
    """Rows whose prompts are told in words of different lengths; some attributes read a prompt of their own."""
    generator, names, found = random.Random(3), list(LAYERS), []
    for i in range(n):
        prompt = [5, 6, 8, *CALL, *(generator.randrange(3, 40) for _ in range(1 + i % 3))]
        words = [5, *(generator.randrange(3, 40) for _ in range(3 + i)), 6]
        some = [names[i % 4]] if name == "single" else names[i % 3 :]
        own = {} if tell == "all" else dict.fromkeys(names, prompt)
        own |= {} if name == "soup" or i % 2 else {names[1]: [9, *prompt]}
        found.append(Request([*words, *prompt], dict.fromkeys(some, 1 / len(some)), 50 + i, {UNTOLD: prompt, **own}))
    return found


def tellings(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Each decoder under each way that it can be told."""
    found = [(name, "none") for name in names if TABLE[name].told]
    return found + [
        (name, tell)
        for name in names
        if TABLE[name].weighted and not TABLE[name].told
        for tell in (("all",) if TABLE[name].soup else ("reference", "all"))
    ]


def settings_of(name: str, tell: str) -> DecoderSettings:
    return DecoderSettings(
        name=name, tell=tell, horizon=5, chunk_len=4, max_new_tokens=9, temperature=0.9, max_tries=2, n_candidates=2
    )


@pytest.mark.parametrize(("name", "tell"), tellings(EXACT_DECODERS))
def test_texts_equal_the_slow_decoders(bank: ModelBank, name: str, tell: str) -> None:
    settings, requests = settings_of(name, tell), asked(name, "all" if TABLE[name].told else tell)
    wanted = [decode_slowly(bank, request, settings) for request in requests]
    for batch_size, draft_len in ((1, None), (3, 3)):
        got = decode(bank, requests, settings, batch_size=batch_size, draft_len=draft_len)
        assert [c.token_ids for c in got] == wanted, (batch_size, draft_len)


@pytest.mark.parametrize(("name", "tell"), tellings(DECODERS))
def test_books_say_what_the_told_and_the_untold_reference_make_of_a_text(bank: ModelBank, name: str, tell: str) -> None:
    settings, requests = settings_of(name, tell), asked(name, "all" if TABLE[name].told else tell)
    for request, done in zip(requests, decode(bank, requests, settings, batch_size=3), strict=True):
        read = list(dict.fromkeys(map(tuple, (request.prompt_ids, *request.prompts.values()))))
        scored = component_log_probs(bank, [(prompt, done.token_ids) for prompt in read], temperature=0.9)
        found = {prompt: log_probs.sum(0).tolist() for prompt, (_, log_probs) in zip(read, scored, strict=True)}
        untold, reference = found[tuple(request.prompts[UNTOLD])][0], found[tuple(request.prompt_ids)][0]
        assert done.log_prob_untold == pytest.approx(untold, abs=1e-3)
        assert done.log_prob_reference == pytest.approx(reference, abs=1e-3)
        divisor = untold if tell == "reference" else reference
        wanted = {
            attribute: found[tuple(request.prompt_of(attribute))][1 + list(LAYERS).index(attribute)] - divisor
            for attribute in request.weights
        }
        assert done.log_ratios == pytest.approx(wanted, abs=1e-3)


def test_without_the_untold_prompt_nothing_is_booked_of_it(bank: ModelBank) -> None:
    """And no text changes by its being there."""
    settings = settings_of("scr-exact", "all")
    with_it = asked("scr-exact", "all")
    without = [replace(r, prompts={k: v for k, v in r.prompts.items() if k != UNTOLD}) for r in with_it]
    for one, other in zip(decode(bank, with_it, settings), decode(bank, without, settings), strict=True):
        assert one.token_ids == other.token_ids and one.log_prob_untold is not None and other.log_prob_untold is None


def test_a_lane_for_the_books_alone_waits_for_a_texts_end(bank: ModelBank) -> None:
    for tell, n_lanes in (("all", 2), ("reference", 3)):
        under = bank.under(settings_of("mod", tell))
        session = under.session(1, 8)
        session.add_row(under.layout.branches_of(["top"], told=True), prompt_of=lambda _: [5])
        assert len(session.branches_of(0)) == 3 and len(session.every_lane()) == n_lanes


# ------------------------------------------------------------------ what can't be


def test_every_decoder_is_told_or_says_why_not() -> None:
    refused = {}
    for name in DECODERS:
        for tell in TELLS:
            try:
                DecoderSettings(name=name, tell=tell)
            except ValueError as error:
                refused[name, tell] = str(error)
    assert sorted(refused) == [("prompting", "all"), ("prompting", "reference"), ("soup", "reference")]
    assert (
        "decoder.tell: 'all' has no say in 'prompting', which tells the reference already"
        in (refused["prompting", "all"])
    )
    assert "'soup' is one model, which reads one prompt; make it all" in refused["soup", "reference"]
    with pytest.raises(ValueError, match=r"decoder\.tell: 'nobody' tells nobody that there is; choose from none, "):
        DecoderSettings(tell="nobody")


@pytest.mark.parametrize(
    ("name", "tell", "prompts", "says"),
    [
        ("mod", "reference", {}, "prompts: none for the reference told nothing"),
        ("mod", "none", {UNTOLD: [1]}, "decoder 'mod' tells nobody here"),
        ("reference", "all", {UNTOLD: [1]}, "decoder 'reference' tells nobody here"),
        ("mod", "all", {UNTOLD: []}, "an empty prompt"),
        ("soup", "all", {"top": [1]}, "decoder 'soup' is one model and reads one prompt"),
    ],
)
def test_prompts_that_nobody_can_read(bank: ModelBank, name: str, tell: str, prompts: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        list(decode(bank, [Request([1], {"top": 1.0}, 0, prompts)], DecoderSettings(name=name, tell=tell)))
