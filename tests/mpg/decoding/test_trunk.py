"""Layers that no adapter tells apart are run once a row: nothing else changes."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.backbone import TransformersBackbone
from mpg.models.lanes import BankSession
from mpg.models.lean import LlamaPass
from mpg.models.trunk import best_split, first_layer, n_trunks
from mpg.oracle.decoder import decode_slowly
from mpg.score.texts import component_log_probs
from mpg.settings import DECODERS, EXACT_DECODERS
from tests.fakes import tiny_adapter, tiny_llama

N_LAYERS = 5
CALL = [11, 12]
# Adapter -> the layers that it changes; "called" is on from a call in the prompt only (aLoRA).
LAYERS = {"top": [4], "third": [3, 4], "half": [2, 4], "all": None, "called": [3]}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Path]]:
    folder = tmp_path_factory.mktemp("trunk")
    base, made = tiny_llama(folder / "base", n_layers=N_LAYERS), {}
    for seed, (name, layers) in enumerate(LAYERS.items()):
        more: dict[str, Any] = {"alora_invocation_tokens": CALL} if name == "called" else {}
        targets: Any = "all-linear" if layers is None else None
        if layers is not None:
            more["layers_to_transform"] = layers
            targets = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
        made[name] = tiny_adapter(base, folder / name, seed=seed, scale=0.5, targets=targets, **more)
    return base, made


# Attributes of a bank, and which have a reference of their own.
BANKS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "two of the top": (("top", "third"), {}),
    "one over all layers": (("top", "all"), {}),
    "three heights": (("half", "third", "top"), {}),
    "every kind": (("all", "half", "called", "top"), {}),
    "own reference": (("top", "third"), {"top": "third"}),
    "own reference over all layers": (("third", "top"), {"top": "all"}),
}


def bank_of(adapters: tuple[Path, dict[str, Path]], kind: str) -> ModelBank:
    base, made = adapters
    names, own = BANKS[kind]
    return ModelBank.load(str(base), {name: made[name] for name in names}, {name: made[of] for name, of in own.items()})


@pytest.fixture(scope="module", params=BANKS)
def bank(request: pytest.FixtureRequest, adapters: tuple[Path, dict[str, Path]]) -> ModelBank:
    return bank_of(adapters, request.param)


def requests(bank: ModelBank, n: int = 6, *, own: bool = False) -> list[Request]:
    generator, names, found = random.Random(1), bank.attributes, []
    for i in range(n):
        prompt = [5, 6, *CALL, *(generator.randrange(3, 40) for _ in range(i % 4))]
        shares = [generator.random() * (generator.random() < 0.8) for _ in names]
        total = sum(shares)
        weights = {name: share / total for name, share in zip(names, shares, strict=True)} if total else {names[0]: 1.0}
        prompts = {name: [*CALL, *prompt[: 1 + i % 5], 9] for name in names[i % 2 :: 2]} if own and i % 3 else {}
        found.append(Request(prompt, weights, 100 + i, prompts))
    return found


def for_decoder(bank: ModelBank, name: str, *, own: bool = False) -> list[Request]:
    asked = requests(bank, own=own)
    if name == "single":
        names = itertools.cycle(bank.attributes)
        asked = [Request(r.prompt_ids, {next(names): 1.0}, r.seed, r.prompts) for r in asked]
    return asked


def is_split(bank: ModelBank) -> bool:
    session = bank.session(1, 8, one_prompt=True)
    session.close()
    return any(shared.split for shared in session._shared)


OFTEN = ("scr-exact", "routing", "mod")
# Every decoder over adapters of every kind, some over the other banks; a soup is one model: it reads one prompt, and
# has no references of its own.
CASES = [
    pytest.param(kind, name, own, marks=[] if kind == "every kind" and own == (name in OFTEN) else pytest.mark.long)
    for kind, own in itertools.product(BANKS, (False, True))
    for name in (EXACT_DECODERS if kind == "every kind" else OFTEN)
    if not (name == "soup" and own)
]


@pytest.mark.parametrize(("kind", "name", "own"), CASES)
def test_every_decoder_equals_the_slow_one(
    adapters: tuple[Path, dict[str, Path]], kind: str, name: str, own: bool
) -> None:
    bank = bank_of(adapters, kind)
    assert is_split(bank)
    settings = DecoderSettings(name=name, horizon=5, chunk_len=4, max_new_tokens=9, temperature=0.9, top_p=0.9)
    asked = for_decoder(bank, name, own=own)
    wanted = [decode_slowly(bank, request, settings) for request in asked]
    for batch_size, draft_len in ((1, None), (3, 4)):
        got = decode(bank, asked, settings, batch_size=batch_size, draft_len=draft_len)
        assert [c.token_ids for c in got] == wanted, (batch_size, draft_len)
    backwards = list(decode(bank, asked[::-1], settings, batch_size=2))
    assert [c.token_ids for c in backwards[::-1]] == wanted


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("every kind", name) for name in (*DECODERS, "block", "mixture")),
        *(("own reference over all layers", name) for name in ("scr", "block")),
    ],
)
def test_texts_and_books_are_those_without_a_trunk(
    adapters: tuple[Path, dict[str, Path]], kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = bank_of(adapters, kind)
    changes = {"block": {"verification": "block"}, "mixture": {"drafter": "mixture"}}.get(name, {"name": name})
    settings = DecoderSettings(horizon=5, chunk_len=4, max_new_tokens=13, temperature=0.9, **changes)
    asked = for_decoder(bank, name, own=name != "soup")
    with_trunk = list(decode(bank, asked, settings, batch_size=4))
    for backbone in bank.backbones:
        monkeypatch.setattr(backbone, "n_layers", 0)
    assert not is_split(bank)
    for one, other in zip(with_trunk, decode(bank, asked, settings, batch_size=4), strict=True):
        assert one.token_ids == other.token_ids
        assert one.log_ratios == pytest.approx(other.log_ratios, abs=1e-4)
        assert one.log_prob_reference == pytest.approx(other.log_prob_reference, abs=1e-4)


def test_given_texts_are_scored_as_without_a_trunk(bank: ModelBank, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(2)
    texts = [([*CALL, 7, *range(3, 3 + i)], [generator.randrange(3, 60) for _ in range(1 + i)]) for i in range(6)]
    found = component_log_probs(bank, texts)
    for backbone in bank.backbones:
        monkeypatch.setattr(backbone, "n_layers", 0)
    for (q, p), (other_q, other_p) in zip(found, component_log_probs(bank, texts), strict=True):
        assert torch.allclose(q, other_q, atol=1e-4) and torch.allclose(p, other_p, atol=1e-4)


@torch.inference_mode()
def test_rows_come_and_go_in_any_order(adapters: tuple[Path, dict[str, Path]]) -> None:
    """Whatever is fed when to whom: the hidden states are those of the whole text, run through at once."""
    bank = bank_of(adapters, "three heights")
    n = bank.layout.n_branches
    for seed in range(12):
        generator = random.Random(seed)
        session = bank.session(4, 24)
        rows: list[tuple[list[int], dict[int, int]]] = []  # text; branch -> tokens fed
        for _ in range(40):
            if len(rows) < 4 and (not rows or generator.random() < 0.3):
                branches = [0, *generator.sample(range(1, n), generator.randint(0, n - 1))]
                session.add_row(branches, prompt_of=lambda _: [1])
                rows.append(([generator.randrange(1, 60) for _ in range(24)], dict.fromkeys(branches, 0)))
            elif generator.random() < 0.1:
                row = generator.randrange(len(rows))
                lengths = [[fed.get(branch, 0) for branch in range(n)] for _, fed in rows]
                session.remove_row(row, lengths)
                rows[row] = rows[-1]
                rows.pop()
            else:
                step(bank, session, rows, generator)
        session.close()


def step(bank: ModelBank, session: BankSession, rows: list[Any], generator: random.Random) -> None:
    """Feed some lanes some tokens, now and then ones that are taken back."""
    row = generator.randrange(len(rows))
    text, fed = rows[row]
    time = generator.randint(1, 3)
    some = generator.sample(sorted(fed), generator.randint(1, len(fed)))
    some = [branch for branch in some if fed[branch] + time <= len(text)]
    if not some:
        return
    drafts = [list(text[fed[b] : fed[b] + time]) for b in some]
    ahead = all(fed[branch] + time > max(fed.values()) for branch in some)  # drafts come after what is kept
    if ahead and generator.random() < 0.4:  # and are taken back
        drafts = [[*draft[:-1], 61] for draft in drafts]
    entries = session.pick([(row, branch) for branch in some])
    order = [some.index(branch) for branch in entries.branches.tolist()]
    starts = torch.tensor([fed[some[i]] for i in order])
    states = session.append(entries, torch.tensor([drafts[i] for i in order]), starts)
    for place, i in enumerate(order):
        whole = [*text[: fed[some[i]]], *drafts[i]]
        alone = bank.session(1, len(whole))
        alone.add_row([some[i]])
        wanted = alone.append(alone.pick([(0, some[i])]), torch.tensor([whole]), torch.tensor([0]))
        got = states.logits(torch.tensor([place]), time - 1)
        assert torch.allclose(got, wanted.logits(slice(None), len(whole) - 1), atol=1e-3)
        alone.close()
    if drafts[0][-1] == 61:
        return
    for branch in some:
        fed[branch] += time


def test_the_trunk_is_run_once_a_row(adapters: tuple[Path, dict[str, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Token-layers of a job: a row's lower layers once, whatever the number of branches."""
    counted: list[int] = []
    layers = LlamaPass.layers

    def counting(self: LlamaPass, x: Any, positions: Any, mask: Any, cache: Any, first: int, last: int) -> Any:
        counted.append(x.shape[0] * x.shape[1] * (last - first))
        return layers(self, x, positions, mask, cache, first, last)

    monkeypatch.setattr(LlamaPass, "layers", counting)
    prompt, weights = list(range(3, 13)), {"top": 0.5, "third": 0.5}
    asked = [Request(prompt, weights, 0)]
    settings = DecoderSettings(name="scr-exact", aggregate="product", max_new_tokens=6)
    bank = bank_of(adapters, "two of the top")
    counted.clear()
    (done,) = decode(bank, asked, settings)
    n_tokens = len(prompt) - 1 + len(done.token_ids)
    split = 3
    assert sum(counted) == n_tokens * (split + 3 * (N_LAYERS - split))


def test_its_memory_is_used_again_for_other_rows(adapters: tuple[Path, dict[str, Path]]) -> None:
    bank = bank_of(adapters, "three heights")
    (backbone,) = bank.backbones
    settings = DecoderSettings(max_new_tokens=7, horizon=5, temperature=0.9)
    asked = requests(bank, 4)
    wanted = [decode_slowly(bank, request, settings) for request in asked]
    held = []
    for some in (asked, asked[::-1], asked[:2]):
        done = list(decode(bank, some, settings, batch_size=2))
        assert [c.token_ids for c in done] == [wanted[asked.index(request)] for request in some]
        assert backbone._spare is not None
        held.append(backbone._spare[1])
    assert held[0] is not None and held[0] is held[1] is held[2]


def test_where_nothing_is_shared_there_is_no_trunk(adapters: tuple[Path, dict[str, Path]]) -> None:
    base, made = adapters
    whole = ModelBank.load(str(base), {"all": made["all"]})
    assert not is_split(whole)
    bare = ModelBank.load(str(base), {"top": made["top"]})
    session = bare.session(1, 8, needs=[[0]])
    assert not any(shared.split for shared in session._shared)  # the reference alone


def test_the_split_that_costs_least() -> None:
    assert best_split(30, [[30, 20, 20]]) == 20
    assert best_split(30, [[30, 0, 0]]) == 0
    assert best_split(30, [[30, 0, 20]]) == 20  # one over all layers has a trunk lane of its own
    assert best_split(30, [[30, 10, 20]]) == 10  # 10 * 1 + 20 * 3 = 20 * 2 + 10 * 3: the lower wins ties
    assert best_split(30, [[30, 10, 10, 20]]) == 10
    assert best_split(30, [[30, 20]] * 9 + [[30]]) == 20
    assert best_split(30, []) == 0
    assert n_trunks([30, 20, 0], 20) == 2
    assert n_trunks([0, 0], 20) == 2
    assert first_layer(["model.layers.12.self_attn.q_proj", "model.layers.7.mlp.up_proj"]) == 7
    assert first_layer(["model.embed_tokens", "model.layers.7.mlp.up_proj"]) == 0
    assert first_layer([]) == 0


def test_an_adapter_that_changes_no_layer_apart_is_served_without(adapters: tuple[Path, dict[str, Path]]) -> None:
    """What is no lean pass has no layers that can be run apart."""
    base, made = adapters
    bank = ModelBank.load(str(base), {"top": made["top"]})
    backbone = bank.backbones[0]
    assert isinstance(backbone, TransformersBackbone)
    assert backbone.first_layers == (4,)
    assert TransformersBackbone(backbone.model, (), "general").n_layers == 0
