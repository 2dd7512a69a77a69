"""The trunk: layers below which no adapter in use tells the branches of a row apart.

Below its lowest adapted layer a branch's hidden states are the reference's, as long as it reads the same tokens. So
these layers run once a row, whatever the number of branches, and their keys and values are kept once. Above them every
branch has a lane of its own. The law is untouched: it is the same arithmetic, done once.

A *trunk lane* stands for the lanes of a row that share its layers; a lane that shares them with none has one alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence

import torch
from torch import Tensor

from mpg.models.cache import LaneCache

_LAYER = re.compile(r"\blayers\.(\d+)\.")


def first_layer(names: Iterable[str]) -> int:
    """The lowest decoder layer among adapted modules; 0 where one of them lies in none."""
    found = [_LAYER.search(name) for name in names]
    return min((0 if each is None else int(each[1]) for each in found), default=0)


def best_split(n_layers: int, rows: Iterable[Sequence[int]]) -> int:
    """How many layers are the trunk's: what costs the fewest layer passes; 0: sharing none costs no more.

    Args:
        rows: of each, the lowest adapted layer of its lanes (``n_layers`` for a bare model's).
    """
    rows = [lowest for lowest in rows if lowest]

    def cost(split: int) -> int:
        return sum(split * n_trunks(lowest, split) + (n_layers - split) * len(lowest) for lowest in rows)

    candidates = sorted({each for lowest in rows for each in lowest if each < n_layers} | {0})
    return min(candidates, key=cost)


def n_trunks(lowest: Sequence[int], split: int) -> int:
    """Trunk lanes of a row whose branches all read the same, see :func:`best_split`."""
    below = sum(each < split for each in lowest)
    return below + (below < len(lowest))


class TrunkLanes:
    """Which trunk lane each row's groups of branches have; dense, as lanes are."""

    def __init__(self) -> None:
        self.owners: list[tuple[int, Hashable]] = []
        self._lane: list[dict[Hashable, int]] = []  # per row: group -> trunk lane
        self._group: list[dict[int, Hashable]] = []  # per row: branch -> group

    def add(self, groups: dict[int, Hashable]) -> list[int]:
        """A new row's trunk lanes, for its branches' groups."""
        row = len(self._lane)
        self._group.append(groups)
        self._lane.append({})
        for group in groups.values():
            if group not in self._lane[row]:
                self._lane[row][group] = len(self.owners)
                self.owners.append((row, group))
        return list(self._lane[row].values())

    def of(self, row: int, branch: int) -> int:
        return self._lane[row][self._group[row][branch]]

    def remove(self, row: int, move: Callable[[int, int, int], None]) -> None:
        """Free a row's; the last row takes its number.

        Args:
            move: called with (row, trunk lane, trunk lane that it is to be copied to), in this order.
        """
        for group in list(self._lane[row]):
            hole = self._lane[row].pop(group)
            moved_row, moved_group = self.owners.pop()
            if hole != len(self.owners):  # the last one fills the hole
                move(moved_row, self._lane[moved_row][moved_group], hole)
                self.owners[hole] = (moved_row, moved_group)
                self._lane[moved_row][moved_group] = hole
        last = len(self._lane) - 1
        if row != last:
            self._lane[row], self._group[row] = self._lane[last], self._group[last]
            for group, lane in self._lane[row].items():
                self.owners[lane] = (row, group)
        self._lane.pop()
        self._group.pop()


class Trunk:
    """The trunk's keys, values and what comes out of it, position by position, of a number of trunk lanes.

    Which passes come first is the decoders' business: a branch that scores what another has drafted finds the states
    that the draft has left, and runs the trunk only over tokens that are not those. All branches of a row keep the same
    text: what is fed to one of them at a place that another has kept is what stands there.
    """

    def __init__(self, cache: LaneCache, hidden_size: int, device: torch.device, dtype: torch.dtype) -> None:
        self.cache = cache
        shape = cache.lanes, cache.capacity
        self._tokens = torch.zeros(shape, dtype=torch.long, device=device)
        self._hidden = torch.zeros(*shape, hidden_size, dtype=dtype, device=device)
        self._length = torch.zeros(cache.lanes, dtype=torch.long, device=device)  # of what is known, from 0 on
        self._copied: dict[int, tuple[int, int]] = {}  # trunk lane -> where its beginning was last copied from

    def states(
        self, lanes: Sequence[int], tokens: Tensor, starts: Tensor, run: Callable[[list[int], list[int]], Tensor]
    ) -> Tensor:
        """What comes out of the trunk for ``tokens [entries, time]`` from ``starts [entries]`` on.

        Args:
            lanes: the trunk lane of each entry.
            run: called with the places of some entries and their trunk lanes, no lane twice; runs the trunk over them.

        Returns:
            ``[entries, time, hidden]``.
        """
        first: dict[int, int] = {}
        for place, lane in enumerate(lanes):
            first.setdefault(lane, place)
        time, device = tokens.shape[1], tokens.device
        index = torch.tensor(lanes, device=device)[:, None]
        at = starts[:, None] + torch.arange(time, device=device)
        alike = torch.tensor([first[lane] for lane in lanes], device=device)
        known = (self._tokens[index, at] == tokens).all() & (starts + time <= self._length[index[:, 0]]).all()
        shared = (starts == starts[alike]).all() & (tokens == tokens[alike]).all()
        is_known, is_shared = torch.stack([known, shared]).tolist()
        if is_known:
            return self._hidden[index, at]
        if not is_shared:
            return self._one_by_one(lanes, tokens, starts, run)
        self._copied.clear()
        places = list(first.values())
        fresh = run(places, list(first))
        mine = torch.tensor(places, device=device)
        self._tokens[index[mine], at[mine]] = tokens[mine]
        self._hidden[index[mine], at[mine]] = fresh
        self._length[index[mine, 0]] = starts[mine] + time
        if len(places) == len(lanes):
            return fresh
        order = {lane: i for i, lane in enumerate(first)}
        return fresh[torch.tensor([order[lane] for lane in lanes], device=device)]

    def _one_by_one(
        self, lanes: Sequence[int], tokens: Tensor, starts: Tensor, run: Callable[[list[int], list[int]], Tensor]
    ) -> Tensor:
        """Entries of one trunk lane begin at different places: each lane once at a time."""
        turns: list[list[int]] = []
        seen: dict[int, int] = {}
        for place, lane in enumerate(lanes):
            turn = seen[lane] = seen.get(lane, -1) + 1
            turns += [[]] if turn == len(turns) else []
            turns[turn].append(place)
        out = self._hidden.new_empty(*tokens.shape, self._hidden.shape[-1])
        for places in turns:
            mine = torch.tensor(places, device=tokens.device)

            def run_some(some: list[int], of: list[int], places: list[int] = places) -> Tensor:
                return run([places[i] for i in some], of)

            out[mine] = self.states([lanes[i] for i in places], tokens[mine], starts[mine], run_some)
        return out

    def begin(self, lanes: Sequence[int]) -> None:
        """Nothing is known of these any more: a new row has them."""
        for lane in lanes:
            self._length[lane] = 0
            self._copied.pop(lane, None)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of a trunk lane over another's; branches that share it each ask."""
        origin, upto = self._copied.get(target, (-1, 0))
        if source == target or (origin == source and length <= upto):
            return
        self.cache.copy(source, target, length)
        for table in (self._tokens, self._hidden):
            table[target, :length] = table[source, :length]
        known = self._length[source].clamp_max(length)
        self._length[target] = torch.maximum(self._length[target], known) if origin == source else known
        self._copied[target] = source, length

    def move(self, source: int, target: int, length: int) -> None:
        """The same for a lane that is given up: its number is the target's from now on."""
        self._copied.clear()
        self.copy(source, target, length)
        self._copied.clear()
