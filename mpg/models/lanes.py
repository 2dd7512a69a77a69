"""The lanes of a bank in use: which row has which branch where, and passes over any of them.

A *lane* is one row under one branch. Rows carry only the branches they need, so a persona of one
attribute costs two lanes beside one of five. Lanes of a backbone are kept dense: a pass over all of them
attends to contiguous memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from mpg.laws.layout import Layout
from mpg.models.backbone import Backbone, BackboneSession
from mpg.models.states import Entries, States

# Tokens of one forward pass, all lanes together. On a CPU, whose matrix products gain nothing beyond, more
# makes temporaries that the allocator hands back and takes anew: a quarter of such a pass is page faults.
_TOKENS_AT_ONCE, _TOKENS_AT_ONCE_ON_GPU = 512, 16384


class _Lanes:
    """Lanes of one backbone: ``owners[lane]`` is the (row, branch) that holds it, dense from ``first`` on."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.owners: list[tuple[int, int]] = []

    def take(self, row: int, branch: int) -> int:
        self.owners.append((row, branch))
        return self.first + len(self.owners) - 1


class BankSession:
    """Room for ``slots`` rows of up to ``capacity`` tokens, each under some of the bank's branches.

    See :meth:`mpg.ModelBank.session`.

    Branches are numbered through the backbones; one past the last is the *soup*, a weighted sum of
    the first backbone's adapters. Branch 0 of row r lies in lane r of the first backbone.
    """

    def __init__(
        self,
        backbones: Sequence[Backbone],
        layout: Layout,
        slots: int,
        capacity: int,
        *,
        needs: Sequence[Sequence[int]],
        vocab_size: int,
    ) -> None:
        self.layout, self.device, self._vocab_size = layout, backbones[0].device, vocab_size
        self.soup = sum(backbone.n_branches for backbone in backbones)
        self._sizes = [backbone.n_branches for backbone in backbones]
        self._home = [k for k, n in enumerate(self._sizes) for _ in range(n)] + [0]  # backbone of each branch
        self._first = [sum(self._sizes[:k]) for k in range(len(self._sizes))]  # first branch of each backbone
        counts = self._lanes_needed(slots, needs)
        self._sessions: list[BackboneSession] = [
            backbone.session(n, capacity) for backbone, n in zip(backbones, counts, strict=True)
        ]
        self._lanes = [_Lanes(slots if k == 0 else 0) for k in range(len(self._sizes))]
        self._lane_of: list[dict[int, int]] = []  # per row: branch -> lane
        self._soup_mix: list[Tensor] = []  # per row
        self._cached: dict[object, Entries] = {}
        self._tokens_at_once = _TOKENS_AT_ONCE if self.device.type == "cpu" else _TOKENS_AT_ONCE_ON_GPU

    def _lanes_needed(self, slots: int, needs: Sequence[Sequence[int]]) -> list[int]:
        """Lanes of each backbone: a reference's for every slot, and what the ``slots`` widest rows take besides."""
        counts = [slots] + [0] * (len(self._sizes) - 1)
        for home in range(len(counts)):
            widths = (sum(branch != 0 and self._home[branch] == home for branch in row) for row in needs)
            counts[home] += sum(heapq.nlargest(slots, widths))
        return counts

    def close(self) -> None:
        """Give the memory back to the backbones, for their next session."""
        for session in self._sessions:
            session.close()

    # ------------------------------------------------------------------ rows come and go

    def add_row(self, branches: Sequence[int], soup: Tensor | None = None) -> int:
        """Lanes for a new row, the next one; ``soup``: its adapter coefficients if it has that branch."""
        row = len(self._lane_of)
        self._lane_of.append({})
        self._soup_mix.append(torch.zeros(self._sizes[0] - 1, dtype=torch.float64) if soup is None else soup)
        for branch in branches:
            lane = row if branch == 0 else self._lanes[self._home[branch]].take(row, branch)
            self._lane_of[row][branch] = lane
        self._cached.clear()
        return row

    def branches_of(self, row: int) -> list[int]:
        return list(self._lane_of[row])

    def copy(self, branch: int, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of a branch from one row to another."""
        self._sessions[self._home[branch]].copy(self._lane_of[source][branch], self._lane_of[target][branch], length)

    def remove_row(self, row: int, length_of: Sequence[Sequence[int]]) -> None:
        """Free a row's lanes; the last row takes its number. ``length_of``: tokens cached, per row and branch."""
        last = len(self._lane_of) - 1
        for branch in [branch for branch in self._lane_of[row] if branch != 0]:
            lane = self._lane_of[row][branch]  # now: another of this row's lanes may have been moved before
            home = self._home[branch]
            lanes = self._lanes[home]
            moved_row, moved_branch = lanes.owners.pop()
            if (moved_row, moved_branch) != (row, branch):  # the last lane fills the hole
                source = self._lane_of[moved_row][moved_branch]
                self._sessions[home].copy(source, lane, length_of[moved_row][moved_branch])
                lanes.owners[lane - lanes.first] = (moved_row, moved_branch)
                self._lane_of[moved_row][moved_branch] = lane
            del self._lane_of[row][branch]
        if row != last:
            if 0 in self._lane_of[last]:
                self._sessions[0].copy(last, row, length_of[last][0])
            self._lane_of[row], self._soup_mix[row] = self._lane_of[last], self._soup_mix[last]
            for branch, lane in self._lane_of[row].items():
                if branch == 0:
                    self._lane_of[row][0] = row
                else:
                    lanes = self._lanes[self._home[branch]]
                    lanes.owners[lane - lanes.first] = (row, branch)
        self._lane_of.pop()
        self._soup_mix.pop()
        self._cached.clear()

    # ------------------------------------------------------------------ which lanes a pass runs over

    def every_lane(self) -> Entries:
        """All lanes of all rows; the references first, in the order of the rows."""
        return self._remembered("all", [*self._references(), *self._others()])

    def references(self) -> Entries:
        """Branch 0 of every row."""
        return self._remembered("references", self._references())

    def others(self) -> Entries:
        """All lanes but the references."""
        return self._remembered("others", self._others())

    def pick(self, pairs: Sequence[tuple[int, int]]) -> Entries:
        """Given (row, branch) pairs."""
        homes = [self._home[branch] for _, branch in pairs]
        ordered = [pair for home in range(len(self._sizes)) for pair, h in zip(pairs, homes, strict=True) if h == home]
        lanes, mixes, sizes = [], [], []
        for home in range(len(self._sizes)):
            mine = [pair for pair in ordered if self._home[pair[1]] == home]
            lanes.append(tuple(self._lane_of[row][branch] for row, branch in mine))
            sizes.append(len(mine))
            mix = torch.zeros(len(mine), self._sizes[home] - 1, dtype=torch.float64)
            for i, (row, branch) in enumerate(mine):
                if branch == self.soup:
                    mix[i] = self._soup_mix[row]
                elif branch > self._first[home]:
                    mix[i, branch - self._first[home] - 1] = 1.0
            mixes.append(mix)
        rows, branches = zip(*ordered, strict=True) if ordered else ((), ())
        return Entries(
            torch.tensor(rows, dtype=torch.long, device=self.device),
            torch.tensor(branches, dtype=torch.long, device=self.device),
            tuple(sizes),
            tuple(lanes),
            tuple(mixes),
        )

    def _remembered(self, key: str, pairs: Sequence[tuple[int, int]]) -> Entries:
        if key not in self._cached:
            self._cached[key] = self.pick(pairs)
        return self._cached[key]

    def _references(self) -> list[tuple[int, int]]:
        return [(row, 0) for row, lanes in enumerate(self._lane_of) if 0 in lanes]

    def _others(self) -> list[tuple[int, int]]:
        return [owner for lanes in self._lanes for owner in lanes.owners]

    # ------------------------------------------------------------------ passes

    def append(self, entries: Entries, tokens: Tensor, starts: Tensor) -> States:
        """Feed ``tokens [entries, time]`` from positions ``starts [entries]`` on."""
        parts, first = [], 0
        for session, size, lanes, mixes in zip(
            self._sessions, entries.sizes, entries.lanes, entries.mixes, strict=True
        ):
            most = max(1, self._tokens_at_once // tokens.shape[1])
            fed = []
            for begin in range(0, size, most):
                mine = slice(begin, min(begin + most, size))
                at = slice(first + mine.start, first + mine.stop)
                fed.append(session.append(lanes[mine], mixes[mine], tokens[at], starts[at]))
            if fed:
                parts.append((session, torch.cat(fed) if len(fed) > 1 else fed[0]))
            first += size
        return States(parts, entries, self._vocab_size)
