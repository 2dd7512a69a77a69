"""What ships, on the real model: SmolLM2-135M-Instruct and the adapters trained for it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.dtype import pick_dtype
from mpg.models.embedded import SMOLLM2, gguf_file, resolve
from mpg.score.texts import component_log_probs
from personas import MBTI
from personas.preferences import MBTI_FILE, ROLE_PLAY_FILE, PreferencePair
from pipeline.job.load import load_job
from pipeline.job.model import SHIPPED_ADAPTERS, shipped_adapters
from tests.own_pairs import N_OWN_PAIRS, REAL_DATA, needs_real, write_own_pairs
from tools.shipped_adapters import FLOORS, SCALES, pairs_of

ROOT = Path(__file__).parent.parent
MAX_ADAPTER_BYTES = 3_000_000
DTYPE = getattr(torch, pick_dtype("auto"))
Margins = dict[str, Tensor]  # adapter -> what its reward sets chosen above rejected by, in nats, [pairs]


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


def reward_margins(bank: ModelBank, pairs: Sequence[PreferencePair]) -> Margins:
    """``log r(chosen) - log r(rejected)`` of the pairs under each attribute of a bank."""
    texts = []
    for pair in pairs:
        prompt = list(bank.tokenizer.apply_chat_template(pair.as_chat(), add_generation_prompt=True, return_dict=False))
        texts += [(prompt, bank.tokenizer(answer).input_ids) for answer in (pair.chosen, pair.rejected)]
    scored = component_log_probs(bank, texts)
    log_probs = torch.stack([of_tokens.sum(0) for _, of_tokens in scored])  # [texts, branches]
    log_rewards = log_probs[:, bank.layout.policy] - log_probs[:, bank.layout.reference]  # [texts, attributes]
    return dict(zip(bank.attributes, (log_rewards[0::2] - log_rewards[1::2]).T, strict=True))


@needs_real(MBTI_FILE, ROLE_PLAY_FILE, guards="held-out rewards are not held against the cards")
@pytest.mark.parametrize(
    "name", [each if each == "E" else pytest.param(each, marks=pytest.mark.long) for each in FLOORS]
)
def test_rewards_on_held_out_pairs_agree_with_the_card(name: str) -> None:
    """The shipped weights, through this project's own engine, on 12 pairs that nothing was trained on."""
    bank = ModelBank.load(SMOLLM2, {name: SHIPPED_ADAPTERS / name}, dtype=DTYPE)
    _, held_out = pairs_of(name, REAL_DATA)
    pairs = [p for p in held_out if len(p.question + p.chosen) < 400 and len(p.rejected) < 400][:12]
    # At an accuracy of 0.75, 12 pairs give 5 or fewer right with probability 0.014.
    assert len(pairs) == 12 and int((reward_margins(bank, pairs)[name] > 0).sum()) >= 6


# In the other's place, each must be caught: opposite poles, and the two adapters that read a persona's texts.
PARTNERS = (("E", "I"), ("S", "N"), ("T", "F"), ("J", "P"), ("profile", "personality"))
# Mean margin of each adapter on its 12 own pairs, in nats; other weights (`make adapters`) have others, which a failure
# of the test below prints. Measured with `pytest tests/test_shipped.py -k own_pairs` on two cores of an AMD EPYC, in
# bfloat16 and float32 (either is within 1.6 % of these).
OWN_MARGINS = {
    **{"E": 14.9, "I": 20.8, "S": 21.0, "N": 7.3, "T": 38.2, "F": 22.7, "J": 19.0, "P": 9.2},
    **{"profile": 7.1, "personality": 7.0},
}


def know_their_attribute(margins: Tensor, name: str) -> bool:
    """Whether margins ``[12]`` on an attribute's own pairs are those of its shipped adapter.

    The weights are fixed, so nothing but rounding moves what was measured: 12 of 12 right. Two may go wrong: who knows
    nothing gets 10 or more with probability 79/4096 = 0.019. The mean may move by 8 %, five times what the number
    format does. Many right is not enough: J's weights in S's place get 12, too, by 12.7 nats on the mean where S's get
    21.0; F's in P's place 11, by 6.0 for 9.2 (the nearest of the 90 ways to put one adapter's weights in another's
    place, measured once).
    """
    assert margins.shape == (N_OWN_PAIRS,)
    return int((margins > 0).sum()) >= 10 and float(margins.mean()) == pytest.approx(OWN_MARGINS[name], rel=0.08)


def broken(name: str, folder: Path, *, factor: float = 1.0, weights_of: str | None = None) -> Path:
    """A copy of a shipped adapter with deltas multiplied by a factor, or with the weights of another."""
    shutil.copytree(SHIPPED_ADAPTERS / name, folder)
    weights = load_file(SHIPPED_ADAPTERS / (weights_of or name) / "adapter_model.safetensors")
    save_file({k: v * factor if "lora_B" in k else v for k, v in weights.items()}, folder / "adapter_model.safetensors")
    return folder


# Two of the ten in the short series; the others, half a minute each, in the long one.
_IN_TURN = [PARTNERS[0], *(pytest.param(pair, marks=pytest.mark.long) for pair in PARTNERS[1:])]


@pytest.fixture(scope="module", params=_IN_TURN, ids="-".join)
def own_margins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Margins]:
    """Partners' own pairs under both their adapters, and under a broken one: attribute -> adapter -> ``[12]``."""
    (first, second), folder = request.param, tmp_path_factory.mktemp("own")
    adapters = {name: SHIPPED_ADAPTERS / name for name in (first, second)}
    if first == "E":
        adapters["halved"] = broken("E", folder / "halved", factor=0.5)
    if first == "S":
        adapters["J's weights"] = broken("S", folder / "exchanged", weights_of="J")
    if first == "T":
        adapters["negated"] = broken("T", folder / "negated", factor=-1.0)
    bank = ModelBank.load(SMOLLM2, adapters, dtype=DTYPE)
    write_own_pairs(folder)
    margins = {first: reward_margins(bank, [*itertools.chain(*pairs_of(first, folder))])}
    if first in MBTI:  # the same pairs, turned round
        margins[second] = {adapter: -of_pairs for adapter, of_pairs in margins[first].items()}
    else:
        margins[second] = reward_margins(bank, [*itertools.chain(*pairs_of(second, folder))])
    return margins


def test_the_own_pairs_are_of_every_adapter() -> None:
    assert sorted(name for pair in PARTNERS for name in pair) == sorted(FLOORS) == sorted(OWN_MARGINS)


def test_every_adapter_ranks_its_own_pairs(own_margins: dict[str, Margins]) -> None:
    """The shipped weights, through this project's own engine, on pairs written for this test."""
    for name, margins in own_margins.items():
        figures = f"{int((margins[name] > 0).sum())} right, mean margin {float(margins[name].mean()):.1f} nats"
        assert know_their_attribute(margins[name], name), f"{name}: {figures}; {OWN_MARGINS[name]} on record"


def test_another_adapter_in_its_place_is_caught(own_margins: dict[str, Margins]) -> None:
    """The opposite pole's, another's weights, deltas negated or at another scale."""
    for name, margins in own_margins.items():
        others = {other: of_pairs for other, of_pairs in margins.items() if other != name}
        assert len(others) >= 1
        assert [other for other, of_pairs in others.items() if know_their_attribute(of_pairs, name)] == []


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


# Comparisons and the study of students are no jobs; their own tests load them.
JOBS = [
    each for each in sorted((ROOT / "workflows").glob("*.yaml")) if not each.name.startswith(("compare-", "student"))
]


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_shipped_job_files_are_valid(job: Path) -> None:
    scheduled = "{interval}" in job.read_text("utf-8")
    loaded = load_job(job, ["interval=2026-11-23"] if scheduled else [])
    assert loaded.n_cells(len(loaded.load_prompts())) > 0
