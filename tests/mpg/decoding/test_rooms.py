"""What decoding holds in memory: lanes for what requests need, and of whole responses no law."""

from __future__ import annotations

import gc
import random
from pathlib import Path

import pytest
import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.decoding.engine import Engine
from mpg.decoding.rounds.whole import WholeRound
from mpg.models.lanes import BankSession
from tests.fakes import tabular_bank, tiny_adapter, tiny_llama

NAMES = tuple("abcdef")


@pytest.fixture
def allotted(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Lanes of each backbone, per session."""
    found: list[list[int]] = []
    right = BankSession._lanes_needed

    def noting(self, slots, needs):
        found.append(right(self, slots, needs))
        return found[-1]

    monkeypatch.setattr(BankSession, "_lanes_needed", noting)
    return found


@pytest.mark.parametrize(
    ("weights", "batch_size", "lanes"),
    [
        ([{"a": 1.0}, {"b": 1.0}, {"f": 1.0}], 3, 6),  # two a row, whatever the bank has
        ([dict.fromkeys(NAMES, 1 / 6), *[{"b": 1.0}] * 9], 3, 3 + 6 + 1 + 1),
        ([{"b": 1.0}] * 9 + [dict.fromkeys("abc", 1 / 3), dict.fromkeys("de", 0.5)], 4, 4 + 3 + 2 + 1 + 1),
        ([dict.fromkeys(NAMES, 1 / 6)] * 2, 8, 14),  # no more rows than there are
    ],
)
def test_lanes_are_those_of_the_widest_rows_that_may_run_together(
    allotted: list, weights: list[dict], batch_size: int, lanes: int
) -> None:
    bank = tabular_bank(NAMES)
    asked = [Request([1, 2], each, seed=i) for i, each in enumerate(weights)]
    settings = DecoderSettings(max_new_tokens=6, chunk_len=2)
    together = [c.token_ids for c in decode(bank, asked, settings, batch_size=batch_size)]
    assert allotted == [[lanes]]
    assert together == [next(decode(bank, [request], settings)).token_ids for request in asked]


@pytest.mark.parametrize("name", ["scr-exact", "routing", "mod", "soup", "best-of-n", "scr", "reference", "prompting"])
def test_rows_of_any_width_in_any_order_have_room(name: str) -> None:
    """A lane too few would be an index out of range."""
    for seed in range(12):
        generator = random.Random(seed)
        bank = tabular_bank(NAMES, own_reference=seed % 2 == 1 and name != "soup")
        asked = []
        for i in range(14):
            some = generator.sample(NAMES, generator.choice([1, 1, 1, 2, 6]))
            asked.append(Request([1, 2][: 1 + i % 2], dict.fromkeys(some, 1 / len(some)), seed=i))
        settings = DecoderSettings(name=name, max_new_tokens=5, chunk_len=2, n_candidates=2)
        together = [c.token_ids for c in decode(bank, asked, settings, batch_size=generator.choice([1, 3, 14]))]
        assert together == [next(decode(bank, [request], settings)).token_ids for request in asked]


def test_a_whole_model_has_lanes_where_a_row_needs_it(allotted: list, llama: Path, tmp_path: Path) -> None:
    other = tiny_llama(tmp_path / "other", seed=5)
    bank = ModelBank.load(llama, {"x": tiny_adapter(llama, tmp_path / "x", seed=1), "w": other})
    asked = [Request([3 + i, 4], {"w": 1.0} if i == 5 else {"x": 1.0}, seed=i) for i in range(8)]
    settings = DecoderSettings(max_new_tokens=6, chunk_len=2)
    first = [c.token_ids for c in decode(bank, asked, settings, batch_size=4)]
    assert allotted == [[8, 1]]
    # The caches are kept for the next session; one that needs more takes more.
    wider = [Request(r.prompt_ids, {"w": 0.5, "x": 0.5}, r.seed) for r in asked]
    list(decode(bank, wider, settings, batch_size=8))
    assert [c.token_ids for c in decode(bank, asked, settings, batch_size=4)] == first


@pytest.mark.parametrize("name", ["best-of-n", "sequence-rejection"])
def test_whole_responses_hold_no_law(name: str, llama: Path, adapters: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vocabulary-wide tensors alive while a response is followed: as many for a long one as for a short one."""
    bank = ModelBank.load(str(llama), adapters)
    bank.eos_ids = frozenset()
    alive: list[int] = []
    right = WholeRound._log_target

    def counting(self, *args):
        tensors = [each for each in gc.get_objects() if type(each) is torch.Tensor]
        alive.append(sum(each.dim() == 2 and each.shape[1] == bank.vocab_size for each in tensors))
        return right(self, *args)

    monkeypatch.setattr(WholeRound, "_log_target", counting)
    held = []
    for length in (4, 16):
        alive.clear()
        settings = DecoderSettings(name=name, max_new_tokens=length, n_candidates=1, max_tries=1)
        asked = [Request([3, 4 + i], {"x": 0.5, "y": 0.5}, seed=i) for i in range(4)]
        list(decode(bank, asked, settings, batch_size=4))
        held.append(max(alive))
    assert held[1] <= held[0] + 2


def test_a_session_of_a_bank_asked_for_nothing_special_has_every_branch() -> None:
    bank = tabular_bank(NAMES)
    session = bank.session(2, 4, soup=True)
    for mix in (None, None):
        session.add_row(range(bank.layout.n_branches + 1), mix)
    assert len(session.every_lane()) == 2 * (len(NAMES) + 2)
    assert Engine(bank, DecoderSettings()).batch_size == 32
