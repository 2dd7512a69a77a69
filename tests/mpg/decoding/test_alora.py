"""Adapters that are on from their invocation tokens in the prompt (aLoRA): every decoder, any batch, given texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.uncached import branch_logits
from mpg.oracle.decoder import decode_slowly
from mpg.score.choices import choice_log_probs
from mpg.score.texts import component_log_probs
from tests.fakes import tiny_adapter

CALL = [11, 12]
BOTH = {"x": 0.5, "y": 0.5}
# What all begin with is longer than where the first's adapter is on, and the second's is on later: what the one holds
# of it is no good to the other. The fourth has the call at its very end, the fifth at its beginning alone.
PROMPTS = (
    [5, 6, 7, *CALL, 8, 9, 10],
    [5, 6, 7, *CALL, 8, 9, *CALL, 20, 21, 22, 23, 24],
    [5, 6, 7, *CALL, 8, 9, 30],
    [5, 6, 7, *CALL, 8, *CALL],
    [*CALL, 5, 6, 7],
    [*CALL, 40],
)


@pytest.fixture(scope="module")
def bank(llama: Path, adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> ModelBank:
    """``x`` waits for its call, ``y`` is plain, ``z`` waits for another."""
    folders = {"y": adapters["y"]}
    for name, source, call in (("x", adapters["x"], CALL), ("z", None, [33])):
        folder = tmp_path_factory.mktemp("alora") / name
        if source is None:
            tiny_adapter(llama, folder, seed=9, rank=2)
        else:
            shutil.copytree(source, folder)
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"alora_invocation_tokens": call}))
        folders[name] = folder
    return ModelBank.load(str(llama), folders)


def requests() -> list[Request]:
    asked = [Request(prompt, BOTH, seed) for seed, prompt in enumerate(PROMPTS * 2)]
    return [*asked, Request([7, 8, 9], {"y": 1.0}, 50), Request(PROMPTS[0], {"x": 1.0}, 51)]


@pytest.mark.parametrize("name", ["routing", "mod", "scr-exact", "mixture", "soup", "pad", "drift"])
def test_every_decoder_writes_what_the_slow_one_does(bank: ModelBank, name: str) -> None:
    changes = {"drafter": "mixture"} if name == "mixture" else {"name": name}
    settings = DecoderSettings(horizon=5, chunk_len=4, max_new_tokens=9, temperature=0.9, **changes)
    wanted = [decode_slowly(bank, request, settings) for request in requests()]
    for batch_size in (1, 2, 5, 32):
        got = decode(bank, requests(), settings, batch_size=batch_size)
        assert [done.token_ids for done in got] == wanted, batch_size


def test_what_all_prompts_begin_with_is_shared_up_to_the_first_call(bank: ModelBank) -> None:
    asked = [Request(prompt, BOTH, seed) for seed, prompt in enumerate(PROMPTS[:4] * 2)]
    settings = DecoderSettings(horizon=5, chunk_len=4, max_new_tokens=9, temperature=0.9)
    wanted = [decode_slowly(bank, request, settings) for request in asked]
    for batch_size in (2, 8):
        done = list(decode(bank, asked, settings, batch_size=batch_size))
        assert [completion.token_ids for completion in done] == wanted, batch_size
        for request, completion in zip(asked, done, strict=True):
            (alone,) = decode(bank, [request], settings)
            assert completion.log_ratios == pytest.approx(alone.log_ratios, abs=1e-4)


def test_it_is_off_before_its_call_and_on_from_it(bank: ModelBank) -> None:
    prompt = [5, 6, 7, *CALL, 8, 9]
    branch = bank.layout.policy[bank.attributes.index("x")]
    for length in range(1, len(prompt) + 1):
        session = bank.session(1, 8)
        session.add_row([0, branch], prompt_of=lambda _: prompt)
        entries = session.every_lane()
        states = session.append(entries, torch.tensor([prompt[:length]] * 2), torch.zeros(2, dtype=torch.long))
        bare, own = states.logits(slice(None), length - 1)
        assert torch.allclose(bare, own, atol=1e-5) == (length <= 3)
        session.close()


def test_own_prompts_say_where_it_is_on(bank: ModelBank) -> None:
    """The attribute's own prompt has the call, the reference's none."""
    asked = [
        Request([7, 8, 9], BOTH, 1, {"x": [4, *CALL, 7, 8, 9]}),
        Request([7, 8, 9], BOTH, 2, {"x": [4, 7, *CALL, 7]}),
    ]
    settings = DecoderSettings(horizon=5, chunk_len=4, max_new_tokens=9, temperature=0.9)
    wanted = [decode_slowly(bank, request, settings) for request in asked]
    assert [done.token_ids for done in decode(bank, asked, settings, batch_size=2)] == wanted


def test_a_prompt_without_the_call_is_named(bank: ModelBank) -> None:
    asked = [Request(PROMPTS[0], BOTH, 0), Request([5, 6, 12, 11], BOTH, 1)]
    settings = DecoderSettings(max_new_tokens=4)
    says = r"prompts\.x: its adapter is on from its invocation tokens \(alora_invocation_tokens: \[11, 12\]\)"
    with pytest.raises(ValueError, match=f"request 1: {says}") as caught:
        list(decode(bank, asked, settings))
    assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(ValueError, match=r"request 0: prompts\.x: "):
        list(decode(bank, [Request([5, 6], BOTH, 1)], DecoderSettings(name="soup", max_new_tokens=4)))
    with pytest.raises(ValueError, match=r"text 1: prompts\.x: "):
        component_log_probs(bank, [([*CALL, 33], [5]), ([33, 5], [6])])
    with pytest.raises(ValueError, match=r"prompts\.x: none given"):
        bank.session(1, 8).add_row(range(bank.layout.n_branches))
    # Who does not use it needs no call.
    assert len(list(decode(bank, [Request([5, 6], {"y": 1.0}, 1)], settings))) == 1
    assert len(list(decode(bank, [Request([5, 6], {}, 1)], DecoderSettings(name="reference", max_new_tokens=4)))) == 1


def test_books_and_given_texts_agree(bank: ModelBank) -> None:
    prompts = [[*prompt[:-1], 33, prompt[-1]] for prompt in PROMPTS if prompt[-2:] != CALL]
    prompts = [prompt if CALL[0] in prompt[:-2] else [*CALL, *prompt] for prompt in prompts]
    weights = {"x": 0.4, "y": 0.3, "z": 0.3}
    settings = DecoderSettings(max_new_tokens=7, temperature=1.0)
    asked = [Request(prompt, weights, seed) for seed, prompt in enumerate(prompts)]
    done = list(decode(bank, asked, settings, batch_size=4))
    scored = component_log_probs(bank, [(r.prompt_ids, c.token_ids) for r, c in zip(asked, done, strict=True)])
    for completion, (_, log_probs) in zip(done, scored, strict=True):
        totals = log_probs.sum(0)
        for name, policy in zip(bank.attributes, bank.layout.policy, strict=True):
            assert completion.log_ratios[name] == pytest.approx(float(totals[policy] - totals[0]), abs=1e-4)


def test_the_response_does_not_move_it(bank: ModelBank) -> None:
    """A call that the response spells out leaves the adapter on from the prompt's: PEFT's rule while it generates."""
    response = [20, *CALL, 21]
    (_, given), (_, none) = component_log_probs(bank, [([*CALL, 33], response), ([33, *CALL], response)])
    branch = bank.layout.policy[bank.attributes.index("x")]
    request = Request([*CALL, 33], {"x": 1.0}, 0)
    at_end = branch_logits(bank, request, response[:-1], None, len(response)).log_softmax(-1)[branch, response[-1]]
    assert float(given[-1, branch]) == pytest.approx(float(at_end), abs=1e-5)
    assert float(given[-1, branch]) != pytest.approx(float(none[-1, branch]), abs=1e-5)


def test_answers_to_choose_from_need_the_calls_of_what_counts(bank: ModelBank) -> None:
    options = [[20], [21, 22]]
    settings = DecoderSettings(name="mod", max_new_tokens=4, temperature=1.0)
    asked = [Request(PROMPTS[0], {"x": 1.0}, 0), Request([7, 8], {"y": 1.0}, 0)]
    together = choice_log_probs(bank, [(request, options) for request in asked], settings)
    for request, scores in zip(asked, together, strict=True):
        (alone,) = choice_log_probs(bank, [(request, options)], settings)
        assert alone == pytest.approx(scores, abs=1e-5)
    with pytest.raises(ValueError, match=r"request 0: prompts\.x: "):
        choice_log_probs(bank, [(Request([7, 8], {"x": 1.0}, 0), options)], settings)
