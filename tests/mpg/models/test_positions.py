"""Positions that depend on a text's length: each row as if it were alone, and as transformers reads a text so long."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mpg import DecoderSettings, ModelBank, Request
from mpg.decoding.engine import decode
from mpg.oracle.decoder import decode_slowly
from mpg.score.texts import component_log_probs
from tests.fakes import tiny_adapter, tiny_tokenizer
from tools.tiny_models import ROPES, config_of, model_of

BORDER = 24  # where the positions change
NEW = 8
LONG, SHORT, CROSSING = (list(range(3, 3 + n)) for n in (40, 9, 20))  # the last is read as a text of 28 tokens
KINDS = {
    "phi3": {"rope_parameters": ROPES["longrope"] | {"rope_type": "longrope",
                                                     "original_max_position_embeddings": BORDER},
             "original_max_position_embeddings": BORDER},
    "llama": {"rope_parameters": ROPES["dynamic"] | {"rope_type": "dynamic"}, "max_position_embeddings": BORDER},
    "gemma3_text": {"rope_parameters": {
        kind: ROPES["dynamic"] | {"rope_type": "dynamic"} for kind in ("full_attention", "sliding_attention")
    }, "max_position_embeddings": BORDER},
}  # fmt: skip


@pytest.fixture(params=KINDS)
def bank_and_base(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ModelBank, Any]:
    config = config_of(request.param, KINDS[request.param] | {"eos_token_id": None})
    model_of(config).save_pretrained(tmp_path / "base")
    tiny_tokenizer(config.vocab_size).save_pretrained(tmp_path / "base")
    adapter = tiny_adapter(tmp_path / "base", tmp_path / "x", seed=1, rank=2)
    bank = ModelBank.load(str(tmp_path / "base"), {"x": adapter})
    bank.eos_ids = frozenset()  # every text is as long as it may become
    return bank, config


def fresh_log_prob(config: Any, prompt: list[int], response: tuple[int, ...]) -> float:
    """Of a response, by a model that has read nothing else: transformers keeps the longest text in mind."""
    ids = torch.tensor([[*prompt, *response]])
    with torch.no_grad():
        laws = model_of(config)(ids, use_cache=False).logits[0].log_softmax(-1)
    return float(laws[len(prompt) - 1 : -1].gather(1, ids[0, len(prompt) :, None]).sum())


@pytest.mark.parametrize("decoder", ["reference", "scr-exact"])
def test_a_long_row_changes_no_other(bank_and_base: tuple[ModelBank, Any], decoder: str) -> None:
    bank, config = bank_and_base
    settings = DecoderSettings(name=decoder, max_new_tokens=NEW, chunk_len=4)
    weights = {"x": 1.0} if decoder == "scr-exact" else {}
    requests = [Request(prompt, weights, seed) for seed, prompt in enumerate((SHORT, LONG, CROSSING, SHORT[:-1], LONG))]
    together = list(decode(bank, requests, settings))
    for request, found in zip(requests, together, strict=True):
        (alone,) = decode(bank, [request], settings)
        assert found.token_ids == alone.token_ids == decode_slowly(bank, request, settings)
        assert found.log_prob_reference == pytest.approx(alone.log_prob_reference, abs=1e-3)
        own = fresh_log_prob(config, list(request.prompt_ids), found.token_ids)
        assert found.log_prob_reference == pytest.approx(own, abs=1e-3)


def test_how_long_a_row_may_become_is_its_own(bank_and_base: tuple[ModelBank, Any]) -> None:
    """One prompt, on this side of the border and beyond it: neither reads what the other has read."""
    bank, config = bank_and_base
    lengths = [NEW, BORDER - len(SHORT) + NEW, NEW - 1, BORDER - len(SHORT) + NEW + 1]
    settings = [DecoderSettings(max_new_tokens=n, chunk_len=4, strength=1.0 + n % 2) for n in lengths]
    requests = [Request(SHORT, {"x": 1.0}, seed=4)] * len(lengths)
    for request, own, found in zip(requests, settings, decode(bank, requests, settings), strict=True):
        (alone,) = decode(bank, [request], own)
        assert found.token_ids == alone.token_ids and len(found.token_ids) == own.max_new_tokens
        fresh = fresh_log_prob(config, list(request.prompt_ids), found.token_ids)
        assert found.log_prob_reference == pytest.approx(fresh, abs=1e-3)


def test_given_texts_are_read_as_transformers_reads_them(bank_and_base: tuple[ModelBank, Any]) -> None:
    bank, config = bank_and_base
    texts = [(SHORT, LONG[:NEW]), (LONG, SHORT[:NEW]), (CROSSING, SHORT[:NEW])]
    for (prompt, response), (_, log_probs) in zip(texts, component_log_probs(bank, texts), strict=True):
        own = fresh_log_prob(config, prompt, tuple(response))
        assert float(log_probs[:, 0].sum()) == pytest.approx(own, abs=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "opt", "biogpt"])
def test_drafts_past_the_last_learned_position_are_nobodys(name: str, tmp_path: Path) -> None:
    """A text may end at the last of a table's positions; what is drafted behind it is thrown away."""
    config = config_of(
        name, {"eos_token_id": None, "n_positions" if name in ("gpt2", "ctrl") else "max_position_embeddings": 32}
    )
    model_of(config).save_pretrained(tmp_path / "base")
    tiny_tokenizer(config.vocab_size).save_pretrained(tmp_path / "base")
    bank = ModelBank.load(tmp_path / "base", {"x": tiny_adapter(tmp_path / "base", tmp_path / "x", seed=1)})
    bank.eos_ids = frozenset()
    requests = [Request(list(range(3, 27)), {"x": 1.0}, seed) for seed in range(3)]
    for options in ({"name": "scr"}, {"verification": "block"}, {"name": "best-of-n"}, {"name": "mod"}):
        settings = DecoderSettings(max_new_tokens=8, chunk_len=6, **options)
        assert [len(done.token_ids) for done in decode(bank, requests, settings)] == [8, 8, 8]
        with pytest.raises(ValueError, match="make 33 tokens, and the models have 32 positions"):
            list(decode(bank, requests, replace(settings, max_new_tokens=9)))
        # Beside a row that may write more, behind a shorter prompt.
        mixed, asked = [settings, replace(settings, max_new_tokens=29)], [requests[0], Request([3, 4], {"x": 1.0}, 1)]
        for request, own, found in zip(asked, mixed, decode(bank, asked, mixed), strict=True):
            (alone,) = decode(bank, [request], own)
            assert found.token_ids == alone.token_ids and len(found.token_ids) == own.max_new_tokens


def test_rewards_of_rows_in_a_batch_are_those_of_each_alone(
    bank_and_base: tuple[ModelBank, Any], tmp_path: Path
) -> None:
    from peft import PeftModel

    from mpg.train.rewards import reward_report

    _, config = bank_and_base
    peft = PeftModel.from_pretrained(model_of(config), str(tmp_path / "x"))
    rows = [
        {"prompt_ids": prompt, "chosen_ids": SHORT[:5], "rejected_ids": SHORT[:3]} for prompt in (SHORT, LONG, CROSSING)
    ]
    together = reward_report(peft, rows)
    alone = [reward_report(peft, [row]) for row in rows]
    assert together.chosen_log_likelihood == pytest.approx(sum(a.chosen_log_likelihood for a in alone) / 3, abs=1e-3)
    own = sum(fresh_log_prob(config, row["prompt_ids"], tuple(row["chosen_ids"])) for row in rows) / 3
    assert together.chosen_log_likelihood_reference == pytest.approx(own, abs=1e-3)
