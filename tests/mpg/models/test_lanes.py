"""Lanes stay their rows' own while rows come and go in any order, each with branches of its own."""

from __future__ import annotations

import random

import pytest
import torch

from mpg.models.lanes import BankSession
from tests.fakes import tabular_bank

SLOTS, CAPACITY = 5, 6


@pytest.mark.parametrize("own_reference", [False, True])
def test_lanes_follow_their_rows(own_reference: bool) -> None:
    bank = tabular_bank(["a", "b", "c"], own_reference=own_reference)
    others = range(1, bank.layout.n_branches)
    for seed in range(40):
        generator = random.Random(seed)
        session = bank.session(SLOTS, CAPACITY)
        texts: list[list[int]] = []  # of each row, in the order of the rows
        for _ in range(60):
            if len(texts) < SLOTS and (not texts or generator.random() < 0.5):
                branches = [0, *generator.sample(others, generator.randint(0, len(others)))]
                row = session.add_row(branches)
                texts.append([generator.randrange(3) for _ in range(CAPACITY)])
                entries = session.pick([(row, branch) for branch in branches])
                fed = torch.tensor(texts[row]).expand(len(branches), -1)
                session.append(entries, fed, torch.zeros(len(branches), dtype=torch.long))
            else:
                row = generator.randrange(len(texts))
                session.remove_row(row, [[CAPACITY] * bank.layout.n_branches for _ in texts])
                texts[row] = texts[-1]
                texts.pop()
            check(session, texts)


def check(session: BankSession, texts: list[list[int]]) -> None:
    """Every lane in use holds its row's text; none is used twice, and those of a backbone leave no gap."""
    entries = session.every_lane()
    assert len(entries) == sum(len(session.branches_of(row)) for row in range(len(texts)))
    used, first = [], 0
    for backbone, (held, lanes) in enumerate(zip(session._sessions, entries.lanes, strict=True)):
        for lane, row in zip(lanes, entries.rows[first : first + len(lanes)].tolist(), strict=True):
            assert held._tokens[lane].tolist() == texts[row]
            used.append((backbone, lane))
        first += len(lanes)
    assert len(set(used)) == len(used)
