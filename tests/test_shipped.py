"""What ships, on the real model: SmolLM2-135M-Instruct and the adapters trained for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.dtype import pick_dtype
from mpg.models.embedded import SMOLLM2, gguf_file, resolve
from personas import MBTI
from personas.preferences import MBTI_FILE
from pipeline.job.load import load_job
from pipeline.job.model import SHIPPED_ADAPTERS, shipped_adapters
from tests.fakes import feed_every_branch
from tools.shipped_adapters import FLOORS, SCALES, pairs_of

ROOT = Path(__file__).parent.parent
DATA = ROOT.parent / "shared" / "data"
MAX_ADAPTER_BYTES = 3_000_000


@pytest.fixture(scope="module")
def bank() -> ModelBank:
    return ModelBank.load(SMOLLM2, {name: SHIPPED_ADAPTERS / name for name in FLOORS})


def prompt_ids(bank: ModelBank, text: str) -> list[int]:
    chat = [{"role": "user", "content": text}]
    return list(bank.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))


@pytest.mark.parametrize("name", FLOORS)
def test_every_adapter_is_small_has_a_card_and_meets_its_floor(name: str) -> None:
    folder = SHIPPED_ADAPTERS / name
    assert shipped_adapters()[name] == folder
    assert (folder / "adapter_model.safetensors").stat().st_size <= MAX_ADAPTER_BYTES
    card = json.loads((folder / "card.json").read_text())
    assert card["base_model"] == SMOLLM2
    assert card["held_out"]["accuracy"] >= FLOORS[name]
    assert card["held_out"]["n_pairs"] > 40 and card["data"]["source"] and card["recipe"]["steps"]
    assert 0 < card["held_out"]["kl_per_token"] < 2 and 0.5 < card["held_out"]["acceptance_per_token"] < 1
    assert ("refined" in card) == (name in SCALES)


@pytest.mark.parametrize("name", FLOORS)
def test_every_card_shows_what_strength_does(name: str) -> None:
    """The curve from the bare model (strength 0) to 3, with what each point stands on."""
    curve = json.loads((SHIPPED_ADAPTERS / name / "card.json").read_text())["curve"]
    assert [point["strength"] for point in curve] == [0.0, 0.25, 0.5, 1.0, 2.0, 3.0]
    assert all(point["n"] + point["n_unscored"] >= 5 and point["perplexity"] > 1 for point in curve)
    judged = [point for point in curve if point["adherence"] is not None]
    assert len(judged) == (6 if name in MBTI else 5)  # the bare model has no persona to be near to
    assert judged[-1]["adherence"] > judged[0]["adherence"]


@pytest.mark.skipif(not (DATA / MBTI_FILE).is_file(), reason="the preference pairs are not beside the project")
@pytest.mark.parametrize("name", FLOORS)
def test_rewards_on_held_out_pairs_agree_with_the_card(name: str) -> None:
    """The shipped weights, through this project's own engine, on 12 pairs that nothing was trained on."""
    dtype = getattr(torch, pick_dtype("auto"))
    bank = ModelBank.load(SMOLLM2, {name: SHIPPED_ADAPTERS / name}, dtype=dtype)
    _, held_out = pairs_of(name, DATA)
    pairs = [p for p in held_out if len(p.question + p.chosen) < 400 and len(p.rejected) < 400][:12]
    right = 0
    for pair in pairs:
        prompt = list(bank.tokenizer.apply_chat_template(pair.as_chat(), add_generation_prompt=True, return_dict=False))
        rewards = []
        for answer in (pair.chosen, pair.rejected):
            ids = torch.tensor([prompt + bank.tokenizer(answer).input_ids])
            states = feed_every_branch(bank, ids)
            logits = [states.logits(slice(None), t) for t in range(len(prompt) - 1, ids.shape[1] - 1)]
            log_probs = torch.stack(logits, dim=1).float().log_softmax(-1)  # [2, answer, vocab]
            picked = log_probs.gather(2, ids[0, len(prompt) :][None, :, None].expand(2, -1, 1))
            rewards.append(float((picked[1] - picked[0]).sum()))
        right += rewards[0] > rewards[1]
    # At an accuracy of 0.75, 12 pairs give 5 or fewer right with probability 0.014.
    assert len(pairs) == 12 and right >= 6


def test_the_real_model_writes_and_batches_do_not_matter(bank: ModelBank) -> None:
    settings = DecoderSettings(max_new_tokens=16, chunk_len=4, temperature=0.8, top_p=0.95)
    texts = ["What does your ideal Saturday look like?", "How do you plan a trip?", "Hi!"]
    requests = [
        Request(prompt_ids(bank, text), {"E": 0.5, "J": 0.5} if i else {"T": 1.0}, seed=i)
        for i, text in enumerate(texts)
    ]
    together = list(decode(bank, requests, settings, batch_size=3))
    alone = list(decode(bank, requests, settings, batch_size=1))
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    for request, completion in zip(requests, together, strict=True):
        assert set(completion.log_ratios) == set(request.weights)
        assert len(bank.tokenizer.decode(completion.token_ids, skip_special_tokens=True)) > 5


def test_the_model_comes_out_of_its_package_and_is_converted_once() -> None:
    assert gguf_file().stat().st_size > 90_000_000
    folder = Path(resolve(SMOLLM2))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert Path(resolve(SMOLLM2)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize("job", sorted((ROOT / "workflows").glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_job_files_are_valid(job: Path) -> None:
    loaded = load_job(job)
    assert loaded.n_cells(len(loaded.load_prompts())) > 0
