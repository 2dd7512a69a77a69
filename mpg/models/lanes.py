"""The lanes of a bank in use: which row has which branch where, and passes over any of them.

A *lane* is one row under one branch. Rows carry only the branches they need, so a persona of one
attribute costs two lanes beside one of five. Lanes of a backbone are kept dense: a pass over all of them
attends to contiguous memory.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpg.laws.layout import Layout
from mpg.models.backbone import Backbone, BackboneSession
from mpg.models.invocation import activation, invocations_of
from mpg.models.sending import sent
from mpg.models.states import Entries, Places, States
from mpg.models.trunk import KeptTrunk, Shared

# Tokens of one forward pass, all lanes together. On a CPU, whose matrix products gain nothing beyond, more
# makes temporaries that the allocator hands back and takes anew: a quarter of such a pass is page faults.
_TOKENS_AT_ONCE, TOKENS_AT_ONCE_ON_GPU = 512, 16384


# Sets of lanes that are remembered; decoders that draw which lanes draft have one a round.
_MOST_PICKED = 16


class _Lanes:
    """Lanes of one backbone: ``owners[lane]`` is the (row, branch) that holds it, dense from ``first`` on."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.owners: list[tuple[int, int]] = []

    def take(self, row: int, branch: int) -> int:
        self.owners.append((row, branch))
        return self.first + len(self.owners) - 1


@dataclass(frozen=True)
class Kept:
    """The beginning of a lane, apart from it.

    Attributes:
        length: positions.
        lane: keys and values of the lane; ``trunk``: what its trunk lane keeps, if it has one.
    """

    length: int
    lane: Sequence[Tensor]
    trunk: KeptTrunk | None


class BankSession:
    """Room for ``slots`` rows of up to ``capacity`` tokens, each under some of the bank's branches.

    See :meth:`mpg.ModelBank.session`.

    Branches are numbered through the backbones. Past the last come the untold reference, where the layout has it (the
    first backbone's bare model once more), and the *soup*, a weighted sum of the first backbone's adapters. Branch 0 of
    row r lies in lane r of the first backbone.
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
        one_prompt: bool = False,
    ) -> None:
        self.layout, self.device, self._vocab_size = layout, backbones[0].device, vocab_size
        self._sizes = [backbone.n_branches for backbone in backbones]
        self.soup = sum(self._sizes) + (layout.untold is not None)
        of_models = [k for k, n in enumerate(self._sizes) for _ in range(n)]
        self._home = of_models + [0] * (1 + self.soup - len(of_models))  # backbone of each branch
        self._first = [sum(self._sizes[:k]) for k in range(len(self._sizes))]  # first branch of each backbone
        counts = self._lanes_needed(slots, needs)
        self._shared = [
            Shared(backbone, [[*self._numbers(k, row).values()] for row in needs])
            for k, backbone in enumerate(backbones)
        ]
        self._sessions: list[BackboneSession] = [
            shared.session(backbone, n, capacity, slots, one_prompt=one_prompt)
            for shared, backbone, n in zip(self._shared, backbones, counts, strict=True)
        ]
        self._lanes = [_Lanes(slots if k == 0 else 0) for k in range(len(self._sizes))]
        self._lane_of: list[dict[int, int]] = []  # per row: branch -> lane
        self._soup_mix: list[Tensor] = []  # per row
        self._invocations = [invocations_of(backbone) for backbone in backbones]
        self._on_from: list[dict[int, Tensor]] = []  # per row: branch -> positions, where an adapter is not on at once
        by_length = [getattr(backbone, "positions", None) is not None for backbone in backbones]
        self._by_length = [by_length[home] for home in self._home]  # per branch
        self._extents: list[dict[int, int]] = []  # per row: branch -> how long its text may become, where it matters
        self._cached: dict[object, Entries] = {}  # until rows come or go
        self._foreseen: dict[str, Any] = {}  # of the next pass
        self._tokens_at_once = _TOKENS_AT_ONCE if self.device.type == "cpu" else TOKENS_AT_ONCE_ON_GPU

    def _lanes_needed(self, slots: int, needs: Sequence[Sequence[int]]) -> list[int]:
        """Lanes of each backbone: a reference's for every slot, and what the ``slots`` widest rows take besides."""
        counts = [slots] + [0] * (len(self._sizes) - 1)
        for home in range(len(counts)):
            widths = (sum(branch != 0 and self._home[branch] == home for branch in row) for row in needs)
            counts[home] += sum(heapq.nlargest(slots, widths))
        return counts

    def _numbers(self, home: int, branches: Iterable[int]) -> dict[int, int]:
        """Of a row's branches those of one backbone: branch -> its place among the backbone's own, the soup's last."""
        mine = [branch for branch in branches if self._home[branch] == home]
        past = {self.soup: self._sizes[0], self.layout.untold: 0}
        return {branch: past.get(branch, branch - self._first[home]) for branch in mine}

    def _adapter(self, branch: int) -> int | None:
        """Of the branch's backbone the adapter that it is; ``None``: a bare model, or the soup."""
        number = branch - self._first[self._home[branch]] - 1
        return None if number < 0 or branch in (self.soup, self.layout.untold) else number

    def close(self) -> None:
        """Give the memory back to the backbones, for their next session."""
        for session in self._sessions:
            session.close()

    # ------------------------------------------------------------------ rows come and go

    def add_row(
        self,
        branches: Sequence[int],
        soup: Tensor | None = None,
        *,
        prompt_of: Callable[[str | None], Sequence[int]] | None = None,
        max_new_tokens: int = 0,
        used: Container[str] | None = None,
    ) -> int:
        """Lanes for a new row, the next one.

        Args:
            soup: its adapter coefficients if it has that branch.
            prompt_of: what an attribute's models read before the response, see :meth:`mpg.Request.prompt_of`; it is
                asked for branches whose adapter is on from a place in it only (aLoRA), and by models that read long
                texts otherwise than short ones (:mod:`mpg.models.positions`).
            max_new_tokens: how long the response may become.
            used: the attributes that count, ``None``: all. Another's adapter stays off without such a place.

        Raises:
            ValueError: a prompt without that place, or none given.
        """
        row = len(self._lane_of)
        found = {branch: self._on_from_of(branch, soup, prompt_of, used) for branch in branches}
        self._on_from.append({branch: on_from for branch, on_from in found.items() if on_from is not None})
        self._extents.append({b: self._extent_of(b, prompt_of, max_new_tokens) for b in branches if self._by_length[b]})
        self._lane_of.append({})
        self._soup_mix.append(torch.zeros(self._sizes[0] - 1, dtype=torch.float64) if soup is None else soup)
        for branch in branches:
            lane = row if branch == 0 else self._lanes[self._home[branch]].take(row, branch)
            self._lane_of[row][branch] = lane
        for home, shared in enumerate(self._shared):
            readers = {
                branch: (number, None if branch == self.soup else self.layout.owner(branch))
                for branch, number in self._numbers(home, branches).items()
            }
            shared.add_row(readers, soup, prompt_of)
        self._cached.clear()
        return row

    def _on_from_of(
        self,
        branch: int,
        soup: Tensor | None,
        prompt_of: Callable[[str | None], Sequence[int]] | None,
        used: Container[str] | None,
    ) -> Tensor | None:
        """From which position on each adapter of a branch counts, ``[adapters]``; ``None``: all do at once."""
        home = self._home[branch]
        if branch == self.soup:
            mixed = [] if soup is None else soup.nonzero()[:, 0].tolist()
        else:
            mixed = [each for each in [self._adapter(branch)] if each is not None]
        waiting = {each: tokens for each in mixed if (tokens := dict(enumerate(self._invocations[home])).get(each))}
        if not waiting:
            return None
        on_from = torch.zeros(self._sizes[home] - 1, dtype=torch.long)
        reader = None if branch == self.soup else self.layout.owner(branch)
        for adapter, invocation in waiting.items():
            owner = self.layout.owner(self._first[home] + 1 + adapter)
            try:
                on_from[adapter] = activation(owner, None if prompt_of is None else prompt_of(reader), invocation)
            except ValueError:
                if used is None or owner in used:
                    raise
                on_from[adapter] = torch.iinfo(torch.long).max
        return on_from

    def _extent_of(
        self, branch: int, prompt_of: Callable[[str | None], Sequence[int]] | None, max_new_tokens: int
    ) -> int:
        """How long a branch's text may become."""
        if prompt_of is None:
            raise ValueError("this model reads long texts otherwise than short ones: add_row needs the row's prompts")
        return len(prompt_of(None if branch == self.soup else self.layout.owner(branch))) + max_new_tokens

    def branches_of(self, row: int) -> list[int]:
        return list(self._lane_of[row])

    def bare_until(self, row: int, branch: int) -> int:
        """Positions of a lane that are the bare model's: its adapters are not on yet (aLoRA); 0 of all others."""
        on_from = self._on_from[row].get(branch)
        if on_from is None or self._home[branch] != 0:
            return 0
        mixed = self._soup_mix[row].nonzero()[:, 0].tolist() if branch == self.soup else [branch - 1]
        return int(on_from[mixed].min())

    def copy(self, source: tuple[int, int], target: tuple[int, int], length: int) -> None:
        """Copy the first ``length`` positions of one (row, branch) over another's of the same backbone."""
        home = self._home[target[1]]
        of, to = (self._lane_of[row][branch] for row, branch in (source, target))
        self._sessions[home].copy(of, to, length)
        self._shared[home].copy(source, target, length)

    def read(self, row: int, branch: int, length: int) -> Kept:
        """What a lane keeps of its first ``length`` positions, to be written into another one later."""
        home = self._home[branch]
        lane = self._sessions[home].read(self._lane_of[row][branch], length)
        return Kept(length, lane, self._shared[home].read(row, branch, length))

    def write(self, kept: Kept, row: int, branch: int) -> None:
        """Fill the beginning of a lane with what was read of one of the same branch."""
        home = self._home[branch]
        self._sessions[home].write(self._lane_of[row][branch], kept.lane)
        self._shared[home].write(kept.trunk, row, branch)

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
        for shared in self._shared:
            shared.remove_row(row, length_of)
        if row != last:
            if 0 in self._lane_of[last]:
                self._sessions[0].copy(last, row, length_of[last][0])
            self._lane_of[row], self._soup_mix[row] = self._lane_of[last], self._soup_mix[last]
            self._on_from[row], self._extents[row] = self._on_from[last], self._extents[last]
            for branch, lane in self._lane_of[row].items():
                if branch == 0:
                    self._lane_of[row][0] = row
                else:
                    lanes = self._lanes[self._home[branch]]
                    lanes.owners[lane - lanes.first] = (row, branch)
        self._lane_of.pop()
        self._soup_mix.pop()
        self._on_from.pop()
        self._extents.pop()
        self._cached.clear()

    # ------------------------------------------------------------------ which lanes a pass runs over

    def every_lane(self) -> Entries:
        """All lanes of all rows but those that are booked late; the references first, in the order of the rows."""
        return self._remembered("all", [*self._references(), *self._others()])

    def references(self) -> Entries:
        """Branch 0 of every row."""
        return self._remembered("references", self._references())

    def others(self) -> Entries:
        """All lanes but the references."""
        return self._remembered("others", self._others())

    def pick(self, pairs: Sequence[tuple[int, int]]) -> Entries:
        """Given (row, branch) pairs."""
        if len(self._cached) >= _MOST_PICKED:
            self._cached.clear()
        return self._remembered(tuple(pairs), pairs)

    def _picked(self, pairs: Sequence[tuple[int, int]]) -> Entries:
        homes = [self._home[branch] for _, branch in pairs]
        ordered = [pair for home in range(len(self._sizes)) for pair, h in zip(pairs, homes, strict=True) if h == home]
        lanes, mixes, sizes, on_from, extents, trunks = [], [], [], [], [], []
        for home in range(len(self._sizes)):
            mine = [pair for pair in ordered if self._home[pair[1]] == home]
            lanes.append(tuple(self._lane_of[row][branch] for row, branch in mine))
            sizes.append(len(mine))
            mix = torch.zeros(len(mine), self._sizes[home] - 1, dtype=torch.float64)
            for i, (row, branch) in enumerate(mine):
                if branch == self.soup:
                    mix[i] = self._soup_mix[row]
                elif (adapter := self._adapter(branch)) is not None:
                    mix[i, adapter] = 1.0
            mixes.append(mix)
            on_from.append(self._on_from_among(mine, self._sizes[home] - 1))
            by_length = any(branch in self._extents[row] for row, branch in mine)
            found = [self._extents[row][branch] for row, branch in mine] if by_length else []
            extents.append(sent(found, self.device) if by_length else None)
            trunks.append(self._shared[home].trunk_lanes(mine))
        at, whose = sent(ordered, self.device).view(len(ordered), 2).T.contiguous()
        return Entries(
            Places(tuple(ordered), tuple(size for size in sizes if size), at, whose),
            tuple(sizes),
            tuple(lanes),
            tuple(mixes),
            tuple(on_from),
            tuple(extents),
            tuple(trunks),
        )

    def _on_from_among(self, pairs: Sequence[tuple[int, int]], adapters: int) -> Tensor | None:
        """Of (row, branch) pairs, ``[pairs, adapters]``; ``None``: all are on at once."""
        found = [self._on_from[row].get(branch) for row, branch in pairs]
        if all(each is None for each in found):
            return None
        return torch.stack([torch.zeros(adapters, dtype=torch.long) if each is None else each for each in found])

    def _remembered(self, key: object, pairs: Sequence[tuple[int, int]]) -> Entries:
        if key not in self._cached:
            self._cached[key] = self._picked(pairs)
        return self._cached[key]

    def _references(self) -> list[tuple[int, int]]:
        return [(row, 0) for row, lanes in enumerate(self._lane_of) if 0 in lanes]

    def _others(self) -> list[tuple[int, int]]:
        late = self.layout.booked_late
        return [owner for lanes in self._lanes for owner in lanes.owners if owner[1] != late]

    # ------------------------------------------------------------------ passes

    def foresee(self, reach: int, *, fresh: bool = False) -> None:
        """What the host knows of the next pass, so that a device need not be asked.

        Args:
            reach: all tokens that it feeds lie before this position.
            fresh: no branch of a row has been fed what stands there now, and all that read the same are fed the same.
        """
        if self.device.type != "cpu":  # which is asked whatever there is to ask: it costs nothing
            self._foreseen = {"reach": reach, "fresh": fresh}

    def append(self, entries: Entries, tokens: Tensor, starts: Tensor) -> States:
        """Feed ``tokens [entries, time]`` from positions ``starts [entries]`` on."""
        known, self._foreseen = self._foreseen, {}
        parts, first = [], 0
        for k, (session, size, lanes, mixes) in enumerate(
            zip(self._sessions, entries.sizes, entries.lanes, entries.mixes, strict=True)
        ):
            on_from, extents, trunks = entries.on_from[k], entries.extents[k], entries.trunks[k]
            most = max(1, self._tokens_at_once // tokens.shape[1])
            fed = []
            for begin in range(0, size, most):
                mine = slice(begin, min(begin + most, size))
                at = slice(first + mine.start, first + mine.stop)
                mix = mixes[mine]
                if on_from is not None:
                    mix = _token_by_token(mix, on_from[mine], starts[at], tokens.shape[1])
                extent = None if extents is None else extents[mine]
                more: Any = known if trunks is None else known | {"trunks": trunks[mine]}
                fed.append(session.append(lanes[mine], mix, tokens[at], starts[at], extent, **more))
            if fed:
                parts.append((session, torch.cat(fed) if len(fed) > 1 else fed[0]))
            first += size
        return States(parts, entries, self._vocab_size)


def _token_by_token(mix: Tensor, on_from: Tensor, starts: Tensor, n_tokens: int) -> Tensor:
    """A pass's coefficients ``[lanes, adapters]``, or ``[lanes, tokens, adapters]`` where one begins to count in it."""
    first = starts.to(on_from.device)[:, None]
    if bool((first >= on_from).all()):
        return mix
    positions = first + torch.arange(n_tokens)
    return mix[:, None] * (positions[:, :, None] >= on_from[:, None])
