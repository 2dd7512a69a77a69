"""Prompts: each runs once a branch, whatever rows it belongs to and also after the rows that brought it have ended.

What a lane keeps of a token depends on the model and on what stands before it. So another lane has it already, where

- a row of the same prompt runs: its lane of that branch is copied;
- rows of the same prompt have ended, and more are to come: their keys and values were kept;
- all prompts begin alike (a chat template's own words): one lane a branch runs that;
- an adapter is on from a place in its prompt only (aLoRA): before it, the branch is the reference.
"""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mpg.decoding.rounds.base import Round
from mpg.decoding.rows import Rows
from mpg.models.bank import ModelBank
from mpg.models.invocation import activation
from mpg.models.lanes import BankSession, Kept
from mpg.request import Request

# Prompt tokens fed in one pass, all lanes together: bounds the memory of its activations, and a CPU
# runs 1024 faster than 4096 (they stay nearer to its caches); a GPU is as quick with many at once as with few.
_PREFILL_TOKENS, _PREFILL_TOKENS_ON_GPU = 1024, 16384
# What prompts of ended rows may take, as a share of the running rows' cache.
_KEPT_SHARE = 0.25

# A prompt under a branch: rows of one key have the same keys and values.
Key = tuple[int, int, int]  # the prompt's number, the branch, what its positions depend on


@dataclass(frozen=True)
class _Lane:
    """A lane whose prompt is to run, from its ``first`` position on; before it, it is another's."""

    row: int
    branch: int
    first: int


class Prompts:
    """The prompts of a run.

    Args:
        requests: all that may come, in their order.
        max_new_tokens: how long each row's response may become.
        slots: rows that run together.

    Attributes:
        longest: of all prompts, in tokens; ``longest_own``: of those that attributes read for themselves, 0 where none.
        capacity: positions of a row's lanes.
    """

    def __init__(
        self, bank: ModelBank, round_: Round, requests: Sequence[Request], *, max_new_tokens: int, slots: int
    ) -> None:
        self.bank, self.round, self.requests, self._max_new_tokens = bank, round_, requests, max_new_tokens
        layout = bank.layout
        self._owners = [layout.owner(branch) for branch in range(layout.n_branches)]
        self.shared = self._common_lengths()  # per branch, tokens that all of its prompts begin with
        numbers: dict[tuple[int, ...], int] = {}
        self._keys: list[dict[int, Key]] = []  # per request
        self._uses: dict[Key, deque[int]] = {}  # requests that have not come yet
        for index, request in enumerate(requests):
            keys, prompts = {}, dict[str | None, tuple[int, ...]]()
            for branch in self._branches(request):
                name = self._owners[branch] if self._owners[branch] in request.prompts else None
                if name not in prompts:
                    prompts[name] = tuple(request.prompt_of(name))
                number = numbers.setdefault(prompts[name], len(numbers))
                keys[branch] = key = number, branch, self._reading(branch, len(prompts[name]))
                self._uses.setdefault(key, deque()).append(index)
            self._keys.append(keys)
        self._to_come = Counter(branch for keys in self._keys for branch in keys)
        owns = [len(own) for request in requests for own in request.prompts.values()]
        self.longest_own = max(owns, default=0)
        self.longest = max(self.longest_own, *(len(request.prompt_ids) for request in requests))
        # A chunk drafted at the very end of the longest row still has to fit.
        self.capacity = self.longest + max_new_tokens + round_.overhang
        widest = max(len(round_.branches(request)) for request in requests)
        self._room = _KEPT_SHARE * slots * self.capacity * widest  # positions, all branches together
        self._kept: dict[Key, Kept] = {}
        self._begun: dict[int, Kept] = {}  # branch -> what all prompts begin with

    def _branches(self, request: Request) -> list[int]:
        """Without the soup: soups differ by their weights, and each runs its own prompt."""
        return [branch for branch in self.round.branches(request) if branch < len(self._owners)]

    def _reading(self, branch: int, n_prompt: int) -> int:
        """The same number for lengths that are read with the same positions (:mod:`mpg.models.positions`)."""
        positions = self.bank.branch_positions[branch]
        return 0 if positions is None else positions.frequencies(n_prompt + self._max_new_tokens)

    # ------------------------------------------------------------------ rows come and go

    def admit(self, session: BankSession, rows: Rows, first_new: int) -> None:
        """Fill the lanes of the rows from ``first_new`` on with their prompts, all but the last tokens."""
        # What a running row holds lies untouched before what it has written since its prompt.
        holders: dict[Key, int] = {}
        any_holder: dict[int, int] = {}
        for row in range(first_new):
            for branch, key in self._keys[rows.index[row]].items():
                holders.setdefault(key, row)
                any_holder.setdefault(branch, row)
        first: list[_Lane] = []
        fresh: list[_Lane] = []
        following: list[tuple[_Lane, Key]] = []  # and the bare lane that it begins like
        copies: list[tuple[int, Key, int]] = []
        for row in range(first_new, len(rows)):
            keys = self._keys[rows.index[row]]
            for branch in session.branches_of(row):
                shared, mine = 0, keys.get(branch)
                if mine is not None:
                    self._uses[mine].popleft()
                    self._to_come[branch] -= 1
                    if holders.setdefault(mine, row) != row:
                        copies.append((branch, mine, row))
                        continue
                    if mine in self._kept:
                        session.write(self._kept[mine], row, branch)
                        any_holder.setdefault(branch, row)
                        continue
                    shared = self.shared[branch]
                bare, read = self._like_a_bare_lane(session, rows, row, branch)
                if read is not None and bare >= shared:
                    following.append((_Lane(row, branch, bare), read))
                elif branch in self._begun and mine is not None and branch not in any_holder:
                    session.write(self._begun[branch], row, branch)
                    any_holder[branch] = row
                    fresh.append(_Lane(row, branch, shared))
                elif mine is not None and branch not in any_holder:
                    any_holder[branch] = row
                    first.append(_Lane(row, branch, 0))
                else:
                    fresh.append(_Lane(row, branch, shared))
        self._run(session, rows, first)
        for lane in fresh:
            if lane.first and any_holder[lane.branch] != lane.row:
                session.copy((any_holder[lane.branch], lane.branch), (lane.row, lane.branch), lane.first)
        self._run(session, rows, fresh)
        for lane, key in following:
            session.copy((holders[key], key[1]), (lane.row, lane.branch), lane.first)
        self._run(session, rows, [lane for lane, _ in following])
        for branch, key, row in copies:
            session.copy((holders[key], branch), (row, branch), len(rows.prompt_of(row, branch)) - 1)
        self._kept = {key: kept for key, kept in self._kept.items() if self._uses[key]}

    def leave(self, session: BankSession, rows: Rows, slot: int) -> None:
        """A row is about to go: what others will read again is kept, as far as there is room for it."""
        keys = self._keys[rows.index[slot]]
        wanted = [branch for branch, key in keys.items() if self._uses[key] and key not in self._kept]
        if wanted:
            others = (self._keys[rows.index[row]].values() for row in range(len(rows)) if row != slot)
            staying = set(itertools.chain.from_iterable(others))
            for branch in wanted:
                if keys[branch] not in staying:
                    self._keep(session, slot, branch, keys[branch], len(rows.prompt_of(slot, branch)) - 1)
        for branch in keys:
            if self._to_come[branch] and self.shared[branch] and branch not in self._begun:
                self._begun[branch] = session.read(slot, branch, self.shared[branch])

    def _keep(self, session: BankSession, slot: int, branch: int, key: Key, length: int) -> None:
        """Keep a prompt; where room is short, those go that are wanted last."""
        later = sorted((each for each in self._kept if self._uses[each][0] > self._uses[key][0]), key=self._next_use)
        while later and self._taken() + length > self._room:
            del self._kept[later.pop()]
        if length and self._taken() + length <= self._room:
            self._kept[key] = session.read(slot, branch, length)

    def _next_use(self, key: Key) -> int:
        return self._uses[key][0]

    def _taken(self) -> int:
        return sum(each.length for each in self._kept.values())

    def _like_a_bare_lane(self, session: BankSession, rows: Rows, row: int, branch: int) -> tuple[int, Key | None]:
        """Positions of a lane that are a reference lane's of its row: it reads the same, and its adapter is not on yet.

        Returns:
            how many, and that lane's key; ``None``: none.
        """
        keys, bare = self._keys[rows.index[row]], session.bare_until(row, branch)
        found: tuple[int, Key | None] = 0, None
        for source in (0, self.bank.layout.untold):
            if not bare or source is None or source not in keys:
                continue
            own, other = rows.prompt_of(row, branch), rows.prompt_of(row, source)
            if self._reading(source, len(own)) != self._reading(source, len(other)):
                continue
            pairs = enumerate(zip(own, other, strict=False))
            alike = next((i for i, (a, b) in pairs if a != b), min(len(own), len(other)))
            n = min(alike, bare, len(own) - 1, len(other) - 1)
            found = (n, keys[source]) if n > found[0] else found
        return found

    # ------------------------------------------------------------------ passes

    def _run(self, session: BankSession, rows: Rows, lanes: Sequence[_Lane]) -> None:
        """Run the prompts of lanes, all but their last tokens."""
        left = [(len(rows.prompt_of(lane.row, lane.branch)) - 1 - lane.first, lane) for lane in lanes]
        ordered = sorted((each for each in left if each[0] > 0), key=lambda each: each[0])
        at_once = _PREFILL_TOKENS if self.bank.device.type == "cpu" else _PREFILL_TOKENS_ON_GPU
        while ordered:
            width, _ = ordered[-1]
            # Shorter ones are padded on the right, as far as the cache reaches; before that can be seen, a row's own
            # next tokens are written over it.
            group = [
                lane for _, lane in ordered[-max(1, at_once // (width + 1)) :] if lane.first + width <= self.capacity
            ]
            ordered = [each for each in ordered if each[1] not in set(group)]
            start = {(lane.row, lane.branch): lane.first for lane in group}
            entries = session.pick(list(start))
            lanes_in_order = zip(entries.rows.tolist(), entries.branches.tolist(), strict=True)
            starts = torch.tensor([start[lane] for lane in lanes_in_order], device=self.bank.device)
            positions = starts[:, None] + torch.arange(width, device=starts.device)
            session.append(entries, rows.tokens_at(entries, positions), starts)

    # ------------------------------------------------------------------ what prompts have in common

    def _common_lengths(self) -> list[int]:
        names = {name for request in self.requests for name in request.prompts}
        lengths = {
            name: _common_length([request.prompt_of(name) for request in self.requests])
            for name in (None, *sorted(names))
        }
        shared = [lengths.get(owner, lengths[None]) for owner in self._owners]
        for branch, invocation in enumerate(self.bank.branch_invocations[: len(shared)]):
            if invocation:  # before its adapter is on, and no further: from there on, what a token reads may differ
                on_from = [
                    activation(self._owners[branch], request.prompt_of(self._owners[branch]), invocation)
                    for request in self.requests
                    if branch in self.round.branches(request)
                ]
                shared[branch] = min([shared[branch], *on_from])
        for branch, name in enumerate(self._owners):  # what all prompts begin with is read with different positions
            if len({self._reading(branch, len(request.prompt_of(name))) for request in self.requests}) > 1:
                shared[branch] = 0
        return shared


def _common_length(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, their last ones left out."""
    first = min(prompts, key=len)
    for i, token in enumerate(first[:-1]):
        if any(prompt[i] != token for prompt in prompts):
            return i
    return len(first) - 1
