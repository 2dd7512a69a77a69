"""The engine's machinery on a tiny random Llama: the slow reference, batch invariance, ends of texts, bad requests."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mpg import DecoderSettings, FunctionModel, ModelBank, Request, decode
from mpg.decoding.prompts import Prompts
from mpg.laws.drawing import draw, truncate
from mpg.oracle.decoder import decode_slowly
from mpg.settings import DECODERS, DRAFTERS, EXACT_DECODERS
from tests.fakes import tabular_bank


@pytest.fixture(scope="module")
def bank(llama: Path, adapters: dict[str, Path]) -> ModelBank:
    return ModelBank.load(str(llama), adapters)


def requests(n: int = 11) -> list[Request]:
    return [Request(list(range(3, 4 + i % 5)), {"x": i % 3 / 2, "y": 1 - i % 3 / 2}, seed=100 + i) for i in range(n)]


def one_hot(i: int) -> dict[str, float]:
    return {"x": 1.0} if i % 2 else {"y": 1.0}


def for_decoder(name: str, n: int = 11) -> list[Request]:
    if name != "single":
        return requests(n)
    return [Request(r.prompt_ids, one_hot(i), r.seed) for i, r in enumerate(requests(n))]


@pytest.mark.parametrize("name", EXACT_DECODERS)
@pytest.mark.parametrize(
    "changes", [{}, {"aggregate": "product", "strength": {"x": 0.5, "y": 2.0}, "top_k": 20}], ids=str
)
def test_the_batched_engine_equals_the_slow_decoder(bank: ModelBank, name: str, changes: dict) -> None:
    """Token for token in float32: at any batch size, order of arrival and number of drafts a round."""
    settings = DecoderSettings(
        name=name, **({"horizon": 5, "chunk_len": 4, "max_new_tokens": 13, "top_p": 0.9, "temperature": 0.9} | changes)
    )
    asked = for_decoder(name)
    wanted = [decode_slowly(bank, request, settings) for request in asked]
    assert any(len(tokens) > 9 for tokens in wanted)
    for batch_size, draft_len in ((1, None), (3, 4), (4, 2), (32, 3), (32, 1)):
        got = decode(bank, asked, settings, batch_size=batch_size, draft_len=draft_len)
        assert [c.token_ids for c in got] == wanted, (batch_size, draft_len)
    backwards = list(decode(bank, asked[::-1], settings, batch_size=4))
    assert [c.token_ids for c in backwards[::-1]] == wanted


def with_prompts(asked: list[Request]) -> list[Request]:
    """Prompts of every length: shorter, longer and none of the attributes' own."""
    own = [{"x": list(range(5, 6 + i % 9)), "y": [7, 8]} if i % 3 else {"y": list(range(4, 14))} for i in range(99)]
    found = [Request(r.prompt_ids, r.weights, r.seed, own[i]) for i, r in enumerate(asked)]
    # Beside a much longer prompt of the row: padded with it, the attributes' lanes reach past what the row can hold.
    return [*found, Request(list(range(3, 43)), asked[1].weights, 7, {name: [5, 6] for name in asked[1].weights})]


@pytest.mark.parametrize("name", [*(n for n in EXACT_DECODERS if n != "soup"), "mixture"])
def test_attributes_with_prompts_of_their_own_equal_the_slow_decoder(bank: ModelBank, name: str) -> None:
    changes = {"drafter": "mixture"} if name == "mixture" else {"name": name}
    settings = DecoderSettings(
        horizon=5, chunk_len=4, max_new_tokens=13, temperature=0.9, strength={"x": 1.5, "y": 1.0}, **changes
    )
    asked = with_prompts(for_decoder(name))
    wanted = [decode_slowly(bank, request, settings) for request in asked]
    for batch_size, draft_len in ((1, None), (3, 4), (4, 2), (32, 1)):
        got = decode(bank, asked, settings, batch_size=batch_size, draft_len=draft_len)
        assert [c.token_ids for c in got] == wanted, (batch_size, draft_len)
    if name not in ("reference", "prompting"):
        assert wanted[:-1] != [decode_slowly(bank, request, settings) for request in for_decoder(name)]


@pytest.mark.parametrize("name", [*(n for n in DECODERS if n not in ("soup", "reference")), "block"])
def test_books_are_kept_under_the_attributes_own_prompts(bank: ModelBank, name: str) -> None:
    changes = {"verification": "block"} if name == "block" else {"name": name}
    settings = DecoderSettings(chunk_len=5, max_new_tokens=17, temperature=0.8, **changes)
    asked = with_prompts(for_decoder(name, 5))
    for request, completion in zip(asked, decode(bank, asked, settings, batch_size=3), strict=True):
        totals = {}
        for attribute, branch in ((None, 0), ("x", 1), ("y", 2)):
            prompt = request.prompt_of(attribute)
            ids = [*prompt, *completion.token_ids]
            session = bank.session(1, len(ids))
            session.add_row([branch])
            fed = torch.tensor([ids], device=bank.device)
            states = session.append(session.pick([(0, branch)]), fed, torch.zeros_like(fed[:, 0]))
            picked = [
                float((states.logits(slice(None), t) / 0.8).log_softmax(-1)[0, ids[t + 1]])
                for t in range(len(prompt) - 1, len(ids) - 1)
            ]
            totals[attribute] = sum(picked)
        assert completion.log_prob_reference == pytest.approx(totals[None], abs=1e-3)
        wanted = {a: totals[a] - totals[None] for a in request.weights}
        assert completion.log_ratios == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize(
    ("prompts", "name", "says"),
    [
        ({"z": [1]}, "scr-exact", "prompts: 'z' is not an attribute of the bank"),
        ({"x": []}, "scr-exact", "prompts.x: an empty prompt"),
        ({"x": [1]}, "soup", "decoder 'soup' is one model and reads one prompt"),
    ],
)
def test_prompts_that_no_attribute_can_read(bank: ModelBank, prompts: dict, name: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        list(decode(bank, [Request([1], {"x": 1.0}, 0, prompts)], DecoderSettings(name=name)))


def test_the_slow_decoder_refuses_what_it_is_no_reference_for(bank: ModelBank) -> None:
    for settings in (DecoderSettings(name="scr"), DecoderSettings(verification="block")):
        with pytest.raises(ValueError, match="the slow decoder is for exact ones"):
            decode_slowly(bank, requests(1)[0], settings)


@pytest.mark.parametrize("name", [*DECODERS, "block"])
def test_a_row_does_not_depend_on_batch_size_or_order(bank: ModelBank, name: str) -> None:
    changes = {"verification": "block"} if name == "block" else {"name": name}
    settings = DecoderSettings(horizon=5, chunk_len=4, max_new_tokens=21, top_p=0.9, temperature=0.9, **changes)
    wanted = list(decode(bank, for_decoder(name), settings, batch_size=1))
    for batch_size in (3, 8, 32):
        got = list(decode(bank, for_decoder(name), settings, batch_size=batch_size))
        assert [c.token_ids for c in got] == [c.token_ids for c in wanted]
        for one, other in zip(wanted, got, strict=True):
            assert one.log_prob_reference == pytest.approx(other.log_prob_reference, abs=1e-3)
            assert one.log_ratios == pytest.approx(other.log_ratios, abs=1e-3)
            assert (one.n_chunks, one.acceptance_rate) == (other.n_chunks, other.acceptance_rate)
    backwards = list(decode(bank, for_decoder(name)[::-1], settings, batch_size=4))
    assert [c.token_ids for c in backwards[::-1]] == [c.token_ids for c in wanted]


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_how_much_is_drafted_changes_neither_a_text_nor_its_books(bank: ModelBank, drafter: str) -> None:
    settings = DecoderSettings(chunk_len=4, max_new_tokens=21, drafter=drafter, top_k=20)
    wanted = list(decode(bank, requests(), settings, draft_len=1))
    assert 0 < sum(c.acceptance_rate for c in wanted) < len(wanted)
    for draft_len in (2, 4):
        for one, other in zip(wanted, decode(bank, requests(), settings, draft_len=draft_len), strict=True):
            assert (one.token_ids, one.n_chunks, one.acceptance_rate) == (
                other.token_ids,
                other.n_chunks,
                other.acceptance_rate,
            )
    with pytest.raises(ValueError, match=r"draft_len: 5 must be in 1\.\.4"):
        list(decode(bank, requests(), settings, draft_len=5))


@pytest.mark.parametrize("name", [*DECODERS, "block"])
def test_books_agree_with_a_fresh_pass_over_the_text(bank: ModelBank, name: str) -> None:
    """log_ratios and log_prob_reference, summed token by token in flight, against one plain pass."""
    changes = {"verification": "block"} if name == "block" else {"name": name}
    settings = DecoderSettings(chunk_len=5, max_new_tokens=17, temperature=0.8, strength=1.5, **changes)
    asked = for_decoder(name, 4)
    for request, completion in zip(asked, decode(bank, asked, settings), strict=True):
        ids = [*request.prompt_ids, *completion.token_ids]
        session = bank.session(1, 64)
        session.add_row([0, 1, 2])
        entries = session.every_lane()
        states = session.append(entries, torch.tensor([ids] * 3), torch.zeros(3, dtype=torch.long))
        totals = torch.zeros(3)
        for t in range(len(request.prompt_ids) - 1, len(ids) - 1):
            log_probs = (states.logits(slice(None), t) / 0.8).log_softmax(-1)
            totals += log_probs[:, ids[t + 1]]
        assert completion.log_prob_reference == pytest.approx(float(totals[0]), abs=1e-3)
        wanted = {} if name == "reference" else {"x": float(totals[1] - totals[0]), "y": float(totals[2] - totals[0])}
        wanted = {attribute: wanted[attribute] for attribute in request.weights if attribute in wanted}
        assert completion.log_ratios == pytest.approx(wanted, abs=1e-3)


@pytest.mark.parametrize("name", DECODERS)
def test_texts_end_at_eos_or_at_the_length_asked_for(name: str) -> None:
    bank = tabular_bank()
    settings = DecoderSettings(name=name, chunk_len=4, max_new_tokens=6)
    completions = list(decode(bank, [Request([1], {"a": 1.0}, seed=s) for s in range(200)], settings))
    assert {c.finish_reason for c in completions} == {"stop", "length"}
    for c in completions:
        assert 1 <= len(c.token_ids) <= 6
        assert 0 not in c.token_ids[:-1]
        assert (c.finish_reason == "stop") == (c.token_ids[-1] == 0)


def test_seed_zero_is_a_seed_and_seeds_differ() -> None:
    bank, settings = tabular_bank(), DecoderSettings(max_new_tokens=12, chunk_len=3)
    texts = [
        c.token_ids for c in decode(bank, [Request([1], {"a": 1.0}, seed=s) for s in (0, 0, *range(40))], settings)
    ]
    assert texts[0] == texts[1] == texts[2]
    assert len(set(texts)) > 5


def test_rows_are_reported_as_they_end_and_yielded_in_order() -> None:
    bank, ended = tabular_bank(), []
    wanted = [Request([1], {"a": 1.0}, seed=s) for s in range(40)]
    settings = DecoderSettings(max_new_tokens=9, chunk_len=2)
    got = list(decode(bank, wanted, settings, batch_size=4, on_done=lambda i, c: ended.append((i, c))))
    assert sorted(i for i, _ in ended) == list(range(40))
    assert [i for i, _ in ended] != list(range(40))
    assert [c for _, c in sorted(ended, key=lambda e: e[0])] == got
    assert list(decode(bank, [], settings)) == []


def test_a_prompt_runs_once_a_branch_for_all_its_weights(bank: ModelBank, monkeypatch: pytest.MonkeyPatch) -> None:
    prefilled: list[tuple[tuple[int, ...], int, int]] = []
    right = Prompts._run

    def counting(self, session, rows, lanes):
        prefilled.extend((tuple(rows.requests[lane.row].prompt_ids), lane.branch, lane.first) for lane in lanes)
        return right(self, session, rows, lanes)

    monkeypatch.setattr(Prompts, "_run", counting)
    settings = DecoderSettings(max_new_tokens=6, chunk_len=2)
    many = [Request([5, 6, 7], {"x": i / 15, "y": 1 - i / 15}, seed=i) for i in range(16)]
    list(decode(bank, [*many, Request([8, 9], {"x": 1.0}, seed=0)], settings, batch_size=17))
    assert sorted(prefilled) == [((5, 6, 7), b, 0) for b in (0, 1, 2)] + [((8, 9), b, 0) for b in (0, 1)]


def test_what_all_prompts_begin_with_runs_once_a_branch(bank: ModelBank, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpg.models.lanes import BankSession

    fed: list[int] = []
    right = BankSession.append

    def counting(self, entries, tokens, starts):
        fed.append(tokens.numel())
        return right(self, entries, tokens, starts)

    settings = DecoderSettings(name="mod", max_new_tokens=1)
    prompts = [[7, 8, 9, 10, 11, 12, i, 13] for i in range(20, 26)]
    asked = [Request(prompt, {"x": 0.5, "y": 0.5}, seed=i) for i, prompt in enumerate(prompts)]
    with monkeypatch.context() as patch:
        patch.setattr(BankSession, "append", counting)
        got = [c.token_ids for c in decode(bank, asked, settings, batch_size=4)]
    assert got == [decode_slowly(bank, request, settings) for request in asked]
    # Three branches: the first prompt's seven tokens, then one more a row, then the token each row draws; also of the
    # two rows that come when all before them have ended.
    assert sum(fed) == 3 * (7 + 3 * 1) + 3 * 4 + 3 * 2 * 1 + 3 * 2


def test_rows_carry_only_the_branches_they_need(bank: ModelBank, monkeypatch: pytest.MonkeyPatch) -> None:
    from mpg.models.lanes import BankSession

    lanes: list[int] = []
    right = BankSession.append

    def counting(self, entries, tokens, starts):
        lanes.append(len(entries))
        return right(self, entries, tokens, starts)

    monkeypatch.setattr(BankSession, "append", counting)
    settings = DecoderSettings(name="mod", max_new_tokens=4)
    list(decode(bank, [Request([5], {"x": 1.0}, 0), Request([5], {"x": 0.5, "y": 0.5}, 1)], settings))
    assert max(lanes) == 5  # two for the first, three for the second
    (completion,) = decode(bank, [Request([5], {"x": 1.0, "y": 0.0}, 0)], settings)
    assert set(completion.log_ratios) == {"x", "y"}  # a weight of zero that is named is scored


def test_a_caller_is_not_left_in_inference_mode_between_completions() -> None:
    wanted = [Request([1], {"a": 1.0}, seed=s) for s in range(6)]
    for _ in decode(tabular_bank(), wanted, DecoderSettings(max_new_tokens=5, chunk_len=2), batch_size=2):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request([], {"a": 1.0}, 0), "request 0: prompt_ids: an empty prompt"),
        (Request([1], {}, 0), "weights: none given"),
        (Request([1], {"z": 1.0}, 0), r"weights: 'z' is not an attribute of the bank \(a, b\)"),
        (Request([1], {"a": -0.5, "b": 1.5}, 0), "weights.a: -0.5 must be 0 or more"),
        (Request([1], {"a": 0.5, "b": 0.4}, 0), "they sum to 0.9, not to 1"),
        (Request([1], {"a": float("nan"), "b": 1.0}, 0), "weights.a: nan"),
    ],
)
def test_bad_requests_are_named_before_anything_is_decoded(request_: Request, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(decode(tabular_bank(), [request_], DecoderSettings()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "best"),
        ("aggregate", "max"),
        ("horizon", 0),
        ("chunk_len", 0),
        ("max_new_tokens", 0),
        ("strength", 0.0),
        ("strength", {"a": -1.0}),
        ("temperature", -0.1),
        ("temperature", 1e-7),
        ("temperature", float("inf")),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("window", 0),
        ("max_tries", 0),
        ("verification", "row"),
        ("drafter", "n-gram"),
        ("n_candidates", 0),
    ],
)
def test_bad_settings_name_field_and_value(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"decoder\.{field}: "):
        DecoderSettings(**{field: value})  # type: ignore[arg-type]


def test_truncation_keeps_the_nucleus_and_ties() -> None:
    probs = torch.tensor([[0.4, 0.3, 0.2, 0.1], [0.25, 0.25, 0.25, 0.25]])
    assert truncate(probs, top_k=0, top_p=0.6)[0].tolist() == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert truncate(probs, top_k=2, top_p=1.0)[1].tolist() == pytest.approx([0.25] * 4)
    assert truncate(probs, top_k=1, top_p=1.0)[0].tolist() == [1, 0, 0, 0]
    assert torch.equal(truncate(probs, top_k=0, top_p=1.0), probs)


def test_a_wide_nucleus_is_found_beyond_the_first_candidates() -> None:
    probs = torch.full((1, 1000), 1e-3)
    probs[0, 0] += 1e-4
    probs = probs / probs.sum()
    kept = truncate(probs * torch.linspace(1.1, 0.9, 1000), top_k=0, top_p=0.9)
    assert 850 < int((kept > 0).sum()) < 950


def test_draws_invert_the_cumulative_law_and_never_hit_a_zero() -> None:
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]]).repeat(4, 1)
    uniforms = torch.tensor([0.0, 0.4999, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert draw(probs, uniforms).tolist() == [1, 1, 3, 3]


MIXED = ("scr-exact", "scr", "mod", "routing", "pad")


@pytest.mark.parametrize(
    ("name", "broken"), [("reference", "reference"), *((name, model) for name in MIXED for model in ("reference", "a"))]
)
def test_logits_that_are_not_numbers_are_never_drawn_from(name: str, broken: str) -> None:
    """A model that gives NaN from its fifth token on; a broken one that only the books need counts, too."""

    def model(label: str) -> FunctionModel:
        def fn(tokens: torch.Tensor) -> torch.Tensor:
            value = math.nan if label == broken and tokens.shape[1] > 4 else 0.0
            return torch.full((len(tokens), 5), value, dtype=torch.float64)

        return FunctionModel(fn, 5, 0)

    bank = ModelBank.from_functions(reference=model("reference"), attributes={"a": model("a"), "b": model("b")})
    bank.eos_ids = frozenset()
    weights = {} if name == "reference" else {"a": 0.5, "b": 0.5}
    with pytest.raises(FloatingPointError, match="logits are not numbers"):
        list(decode(bank, [Request([1, 2], weights, seed=3)], DecoderSettings(name=name, max_new_tokens=8)))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("max_new_tokens", [1, 3])
def test_long_words_that_all_prompts_begin_with_leave_room_for_the_widest_prompt(
    bank: ModelBank, name: str, max_new_tokens: int
) -> None:
    """A prompt that is padded to another's width begins later than that one: it reaches past what any row needs."""
    told, asked = list(range(5, 45)), for_decoder(name, 6)
    requests = [
        Request(
            told + [3] * (1 + i % 4),
            request.weights,
            request.seed,
            {} if name == "soup" else {"x": [9] * 3 + told[: 10 * (i % 3)] + [4] * i, "y": told + [7] * (1 + i)},
        )
        for i, request in enumerate(asked)
    ]
    settings = DecoderSettings(name=name, max_new_tokens=max_new_tokens, chunk_len=2, n_candidates=2)
    together = [c.token_ids for c in decode(bank, requests, settings, batch_size=8)]
    alone = [next(decode(bank, [request], settings)).token_ids for request in requests]
    assert together == alone and all(len(tokens) <= max_new_tokens for tokens in together)
