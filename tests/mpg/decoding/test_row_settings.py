"""Settings are rows' own: a batch of any mix gives each row what it has when it is decoded alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mpg import Completion, DecoderSettings, ModelBank, Request, decode
from mpg.decoding.engine import Engine
from mpg.decoding.groups import groups_of
from mpg.decoding.resilient import BatchSize, Failure, decode_each
from mpg.oracle.decoder import decode_slowly
from mpg.settings import DECODERS, EXACT_DECODERS, OF_A_ROW
from tests.fakes import tabular_bank

NAMES = ("x", "y")
# Every setting of a row, off and on, alone and together; greedy ones last.
OWN = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7, "strength": 2.0},
    {"strength": {"x": 0.5, "y": 3.0}},
    {"top_k": 3},
    {"top_p": 0.6, "horizon": 1},
    {"top_k": 4, "top_p": 0.7, "temperature": 0.8},
    {"top_k": 1000, "horizon": None},
    {"max_new_tokens": 4, "strength": {"y": 2.0}},
    {"max_new_tokens": 17, "horizon": 3, "temperature": 1.2},
    {"temperature": 0},
    {"temperature": 0, "strength": 4.0, "top_k": 2, "max_new_tokens": 7},
]
SPECULATIVE = [
    {"drafter": "reference"},
    {"drafter": "mixture"},
    {"verification": "block"},
    {"aggregate": "product"},
    {"horizon": None, "chunk_len": 2},
]
# What is decoded with: every decoder, and every way of the speculative one.
WAYS = [{"name": name} for name in DECODERS] + SPECULATIVE
BASE = {"horizon": 5, "chunk_len": 4, "max_new_tokens": 11, "n_candidates": 3, "max_tries": 3}


def mix(way: dict) -> list[DecoderSettings]:
    greedy = DecoderSettings(**way).facts.exact
    return [DecoderSettings(**(BASE | way | own)) for own in OWN if greedy or own.get("temperature") != 0]


def asked(way: dict, n: int) -> list[Request]:
    weights = [{"x": 0.35, "y": 0.65}, {"x": 1.0}, {"y": 0.5, "x": 0.5}]
    if way.get("name") == "single":
        weights = [{"x": 1.0}, {"y": 1.0}]
    return [Request(list(range(1, 2 + i % 4)), weights[i % len(weights)], seed=100 + i) for i in range(n)]


def same(one: Completion, other: Completion, tolerance: float = 1e-9) -> bool:
    """All that is said of a text, books to a tolerance."""
    books = [{"": c.log_prob_reference, "tv": c.tv_bound or 0.0, **c.log_ratios} for c in (one, other)]
    plain = [replace(c, log_prob_reference=0.0, log_ratios={}, tv_bound=None) for c in (one, other)]
    return plain[0] == plain[1] and books[0] == pytest.approx(books[1], abs=tolerance)


@pytest.mark.parametrize("own_reference", [False, True])
@pytest.mark.parametrize("way", WAYS, ids=str)
def test_a_row_of_any_mix_is_what_it_is_alone(way: dict, own_reference: bool) -> None:
    """Tokens, books and counts, at any batch size and order, whatever the rows beside it are told."""
    if own_reference and way.get("name") == "soup":
        return  # refused: its deltas do not add up
    bank = tabular_bank(NAMES, vocab_size=9, own_reference=own_reference, scale=1.5)
    settings = [*mix(way), *mix(way)[::-1]]
    requests = asked(way, len(settings))
    alone = [next(decode(bank, [request], own)) for request, own in zip(requests, settings, strict=True)]
    for batch_size, draft_len in ((32, None), (5, 2), (32, 1)):
        if draft_len is not None and way.get("verification") == "block":
            continue  # how much is judged at a time is part of its texts
        ended: dict[int, Completion] = {}
        got = list(
            decode(bank, requests, settings, batch_size=batch_size, draft_len=draft_len, on_done=ended.__setitem__)
        )
        assert all(map(same, got, alone)), (batch_size, draft_len)
        assert [ended[i] for i in range(len(settings))] == got
    backwards = list(decode(bank, requests[::-1], settings[::-1], batch_size=7))
    assert all(map(same, backwards[::-1], alone))
    # What a row is told matters: under the first one's settings other texts come of it.
    assert [c.token_ids for c in decode(bank, requests, settings[0])] != [c.token_ids for c in alone]


@pytest.mark.parametrize("way", [{"name": name} for name in EXACT_DECODERS] + SPECULATIVE[:2], ids=str)
def test_the_slow_decoder_agrees_with_a_mixed_batch(llama: Path, adapters: dict[str, Path], way: dict) -> None:
    """Token for token, on a network in float32; with prompts of the attributes' own where they may be."""
    bank = ModelBank.load(str(llama), adapters)
    settings = mix(way)
    requests = asked(way, len(settings))
    if way.get("name") != "soup":
        requests = [replace(r, prompts={"y": [7, 8, 9][: 1 + i % 3]}) if i % 2 else r for i, r in enumerate(requests)]
    slow = [decode_slowly(bank, request, own) for request, own in zip(requests, settings, strict=True)]
    for batch_size in (4, 32):
        assert [c.token_ids for c in decode(bank, requests, settings, batch_size=batch_size)] == slow


def test_each_setting_of_a_row_shares_its_batch_with_others() -> None:
    """One group, whatever rows differ in that they may; what decides about the round is another."""
    bank = tabular_bank(NAMES)
    for name in DECODERS:
        warm = [own for own in mix({"name": name, "drafter": "reference"}) if own.temperature]
        assert len(groups_of(bank, asked({"name": name}, len(warm)), warm)) == 1, name
    for name in set(EXACT_DECODERS) - {"routing"}:
        every = mix({"name": name, "drafter": "reference"})
        assert len(groups_of(bank, asked({"name": name}, len(every)), every)) == 1, name
    strengths = [DecoderSettings(strength=s, temperature=t) for s in (0.5, 1.0, 2.0) for t in (0.7, 1.0)]
    assert groups_of(bank, asked({}, 6), strengths) == [[0, 1, 2, 3, 4, 5]]
    others = [DecoderSettings(), DecoderSettings(name="mod"), DecoderSettings(chunk_len=3), DecoderSettings(top_k=2)]
    assert groups_of(bank, asked({}, 8), others * 2) == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert set(OF_A_ROW) == {"temperature", "top_k", "top_p", "strength", "horizon", "max_new_tokens"}


def test_any_mix_of_decoders_comes_in_the_order_of_the_requests() -> None:
    bank = tabular_bank(NAMES, vocab_size=5)
    settings = [own for row in zip(*([*mix(way)][:6] for way in WAYS), strict=False) for own in row]
    # One attribute each, which every decoder takes.
    requests = [Request([1, 2], {"xy"[i % 2]: 1.0}, seed=i) for i in range(len(settings))]
    alone = [next(decode(bank, [request], own)) for request, own in zip(requests, settings, strict=True)]
    assert all(map(same, decode(bank, requests, settings, batch_size=6), alone))
    found = dict(decode_each(bank, requests, settings, BatchSize(6)))
    assert len(found) == len(alone) and all(same(found[i], each) for i, each in enumerate(alone))  # type: ignore[arg-type]


def steps_of(bank: ModelBank, requests: list[Request], settings: list[DecoderSettings], size: int) -> int:
    """Rounds that an engine runs until all rows have ended."""
    engine, n = Engine(bank, settings, batch_size=size), 0
    right = engine.round.step

    def counted(*given: object) -> None:
        nonlocal n
        n += 1
        right(*given)  # type: ignore[arg-type]

    engine.round.step = counted  # type: ignore[method-assign, assignment]
    assert len(list(engine.run(requests))) == len(requests)
    return n


@pytest.mark.parametrize("name", DECODERS)
def test_a_grid_over_strengths_takes_no_more_rounds_than_its_slowest_strength(name: str) -> None:
    bank, grid = tabular_bank(NAMES, vocab_size=50), (0.5, 1.0, 2.0, 4.0)
    settings = [DecoderSettings(name=name, max_new_tokens=12, strength=s, drafter="reference") for s in grid * 2]
    requests = asked({"name": name}, 8)
    together = steps_of(bank, requests, settings, 8)
    groups = [[i for i in range(8) if settings[i].strength == s] for s in grid]
    apart = [steps_of(bank, [requests[i] for i in g], [settings[i] for i in g], 8) for g in groups]
    assert together == max(apart) and min(apart) > 0


# ------------------------------------------------------------------ errors, before any work


def test_another_number_of_settings_than_of_requests_is_one_line() -> None:
    bank, requests = tabular_bank(NAMES), asked({}, 3)
    says = r"^settings: 2 given for 3 requests; give one for all, or one for each request$"
    for call in (
        lambda own: list(decode(bank, requests, own)),
        lambda own: list(decode_each(bank, requests, own, BatchSize(2))),
        lambda own: list(Engine(bank, own).run(requests)),
    ):
        with pytest.raises(ValueError, match=says):
            call([DecoderSettings()] * 2)
    with pytest.raises(ValueError, match="settings: 1 given for 0 requests"):
        list(decode(bank, [], [DecoderSettings()]))
    assert list(decode(bank, [], [])) == [] and not dict(decode_each(bank, [], [], BatchSize(2)))


def test_what_is_no_setting_is_named_by_its_place() -> None:
    bank, requests = tabular_bank(NAMES), asked({}, 2)
    with pytest.raises(ValueError, match=r"^settings\[1\]: 0\.5 is not a DecoderSettings; give one for each request$"):
        list(decode(bank, requests, [DecoderSettings(), 0.5]))  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"^settings: None is not a DecoderSettings; give one for all, or one"):
        list(decode(bank, requests, None))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^settings: none given; give one for all, or one for each request$"):
        Engine(bank, [])
    with pytest.raises(ValueError, match=r"^settings\[1\]: differs from settings\[0\] in more than temperature, top_k"):
        Engine(bank, [DecoderSettings(), DecoderSettings(name="mod")])


@pytest.mark.parametrize("each", [False, True], ids=["decode", "decode_each"])
def test_a_request_that_cannot_be_decoded_is_found_in_every_group_before_any(each: bool) -> None:
    """By its own index, whichever group it is in."""
    bank = tabular_bank(NAMES)
    requests = [*asked({}, 3), Request([1], {"x": 0.5}, seed=0)]
    settings = [DecoderSettings(), DecoderSettings(name="mod"), DecoderSettings(), DecoderSettings(name="mod")]
    done: list[int] = []
    with pytest.raises(ValueError, match=r"^request 3: weights: they sum to 0\.5, not to 1"):
        if each:
            list(decode_each(bank, requests, settings, BatchSize(2), on_done=done.append))
        else:
            list(decode(bank, requests, settings, on_done=lambda index, _: done.append(index)))
    assert not done
    bare = tabular_bank(NAMES, own_reference=True)  # a soup can't be made of it
    with pytest.raises(ValueError, match="adds up LoRA adapters"):
        list(
            decode(
                bare,
                asked({}, 2),
                [DecoderSettings(), DecoderSettings(name="soup")],
                on_done=lambda i, _: done.append(i),
            )
        )
    with pytest.raises(ValueError, match=r"draft_len: 5 must be in 1\.\.4"):
        list(decode(bank, asked({}, 2), [DecoderSettings(), DecoderSettings(chunk_len=4)], draft_len=5))
    assert not done


def test_a_broken_model_is_named_with_the_requests_own_index_in_a_later_group() -> None:
    from mpg import FunctionModel
    from tests.fakes import tabular_model

    bad = FunctionModel(lambda tokens: tabular_model(1).fn(tokens) * float("nan"), 3, 0)
    bank = ModelBank.from_functions(reference=tabular_model(0), attributes={"x": tabular_model(1), "bad": bad})
    requests = [Request([1], {"x": 1.0}, seed=i) for i in range(5)] + [Request([1], {"bad": 1.0}, seed=9)]
    settings = [DecoderSettings(max_new_tokens=3), DecoderSettings(name="mod", max_new_tokens=3, strength=2.0)] * 3
    with pytest.raises(FloatingPointError, match=r"^request 5: attribute 'bad'"):
        list(decode(bank, requests, settings))
    # The row before it is of another group, whose turn comes later: it is not to blame.
    requests, settings = requests[3:], settings[3:]
    for batch_size in (1, 4):
        found = dict(decode_each(bank, requests, settings, BatchSize(batch_size)))
        failed = [i for i, each in found.items() if isinstance(each, Failure)]
        assert len(found) == 3 and failed == [2], batch_size
        sound = {i: each for i, each in found.items() if isinstance(each, Completion)}
        assert all(same(each, next(decode(bank, [requests[i]], settings[i]))) for i, each in sound.items())


def test_a_stop_ends_all_groups() -> None:
    """What is in flight ends; what comes is the beginning of the requests, and all that ended is told."""
    bank, ended = tabular_bank(NAMES), dict[int, Completion]()
    settings = [DecoderSettings(name=name, max_new_tokens=4, strength=s) for s in (1, 2, 3) for name in ("mod", "pad")]
    got = list(
        decode(bank, asked({}, 6), settings, batch_size=1, on_done=ended.__setitem__, stop=lambda: len(ended) > 1)
    )
    assert list(ended) == [0, 2] and got == [ended[0]]


def test_numbers_of_numpy_are_numbers() -> None:
    """A grid by ``linspace`` is decoded as one of plain numbers: its comparisons give no plain True or False."""
    bank, grid = tabular_bank(NAMES, vocab_size=9), [0.5, 1.0, 2.0]
    plain = [DecoderSettings(temperature=t, strength=s, max_new_tokens=6) for t in grid for s in grid]
    with_numpy = [
        DecoderSettings(temperature=t, strength=s, max_new_tokens=np.int64(6))  # type: ignore[arg-type]
        for t, s in itertools.product(np.array(grid), np.array(grid))
    ]
    wanted = list(decode(bank, asked({}, 9), plain))
    assert all(map(same, decode(bank, asked({}, 9), with_numpy), wanted))
    assert all(
        same(next(decode(bank, [r], own)), c) for r, own, c in zip(asked({}, 9), with_numpy, wanted, strict=True)
    )
