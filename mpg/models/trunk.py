"""The trunk: layers below which no adapter in use tells the branches of a row apart.

Below its lowest adapted layer a branch's hidden states are the reference's, as long as it reads the same tokens. So
these layers run once a row, whatever the number of branches, and their keys and values are kept once. Above them every
branch has a lane of its own. The law is untouched: it is the same arithmetic, done once.

A *trunk lane* stands for the lanes of a row that share its layers; a lane that shares them with none has one alone.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mpg.models.cache import LaneCache
from mpg.models.sending import sent

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


# Sets of lanes that are fed in turns: what is sent to a device for them stays there.
_MOST_PLANS = 16


class _Plan:
    """Entries' trunk lanes, each run once.

    Attributes:
        lanes: of each entry; ``alike``: the first entry of its lane; both ``[entries]``, on the device.
        places: the first entry of each lane, and ``mine``, the same on the device; ``of``: those lanes.
        order: of each entry, its lane's place among them, ``[entries]``.
    """

    def __init__(self, lanes: tuple[int, ...], device: torch.device) -> None:
        first: dict[int, int] = {}
        for place, lane in enumerate(lanes):
            first.setdefault(lane, place)
        number = {lane: i for i, lane in enumerate(first)}
        self.places, self.of = tuple(first.values()), tuple(first)
        self.mine = sent(self.places, device)
        of_each = sent([(lane, first[lane], number[lane]) for lane in lanes], device)
        self.lanes, self.alike, self.order = of_each.T.contiguous()


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
        self._plans: dict[tuple[int, ...], _Plan] = {}
        self._copied: dict[int, tuple[int, int]] = {}  # trunk lane -> where its beginning was last copied from
        self._read: dict[tuple[int, int], KeptTrunk] = {}  # what was read last, as long as it is what stands there
        self._written: dict[int, KeptTrunk] = {}

    def states(
        self,
        lanes: Sequence[int],
        tokens: Tensor,
        starts: Tensor,
        run: Callable[[Sequence[int], Tensor, Sequence[int]], Tensor],
        *,
        fresh: bool = False,
    ) -> Tensor:
        """What comes out of the trunk for ``tokens [entries, time]`` from ``starts [entries]`` on.

        Args:
            lanes: the trunk lane of each entry.
            run: called with the places of some entries, on the host and on the device, and their trunk lanes, no lane
                twice; runs the trunk over them.
            fresh: whether these tokens are known to be new and, within a lane, the same in the same places: a device is
                not asked.

        Returns:
            ``[entries, time, hidden]``.
        """
        time, plan = tokens.shape[1], self._plan(lanes, tokens.device)
        index = plan.lanes[:, None]
        at = starts[:, None]
        at = at + torch.arange(time, device=at.device) if time > 1 else at
        if not fresh:
            known = (self._tokens[index, at] == tokens).all() & (starts + time <= self._length[plan.lanes]).all()
            alike = plan.alike
            shared = (starts == starts[alike]).all() & (tokens == tokens[alike]).all()
            is_known, is_shared = torch.stack([known, shared]).tolist()
            if is_known:
                return self._hidden[index, at]
            if not is_shared:
                return self._one_by_one(lanes, tokens, starts, run)
        self._copied.clear()
        self._read.clear()
        mine, of, place = plan.mine, plan.lanes[plan.mine][:, None], at[plan.mine]
        done = run(plan.places, mine, plan.of)
        self._tokens[of, place] = tokens[mine]
        self._hidden[of, place] = done
        self._length[of[:, 0]] = place[:, -1] + 1
        return done if len(plan.places) == len(lanes) else done[plan.order]

    def _plan(self, lanes: Sequence[int], device: torch.device) -> _Plan:
        key = tuple(lanes)
        if key not in self._plans:
            if len(self._plans) == _MOST_PLANS:
                self._plans.clear()
            self._plans[key] = _Plan(key, device)
        return self._plans[key]

    def _one_by_one(
        self,
        lanes: Sequence[int],
        tokens: Tensor,
        starts: Tensor,
        run: Callable[[Sequence[int], Tensor, Sequence[int]], Tensor],
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

            def run_some(
                some: Sequence[int], at: Tensor, of: Sequence[int], places: list[int] = places, mine: Tensor = mine
            ) -> Tensor:
                return run([places[i] for i in some], mine[at], of)

            out[mine] = self.states([lanes[i] for i in places], tokens[mine], starts[mine], run_some)
        return out

    def begin(self, lanes: Sequence[int]) -> None:
        """Nothing is known of these any more: a new row has them."""
        self._read.clear()
        for lane in lanes:
            self._length[lane] = 0
            self._copied.pop(lane, None)
            self._written.pop(lane, None)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of a trunk lane over another's; branches that share it each ask."""
        origin, upto = self._copied.get(target, (-1, 0))
        if source == target or (origin == source and length <= upto):
            return
        self._read.clear()
        self.cache.copy(source, target, length)
        for table in (self._tokens, self._hidden):
            table[target, :length] = table[source, :length]
        known = self._length[source].clamp_max(length)
        self._length[target] = torch.maximum(self._length[target], known) if origin == source else known
        self._copied[target] = source, length

    def read(self, lane: int, length: int) -> KeptTrunk:
        """The first ``length`` positions of a trunk lane; branches that share it each ask, and are given the same."""
        if (lane, length) not in self._read:
            table = (self._tokens[lane, :length].clone(), self._hidden[lane, :length].clone())
            known = self._length[lane].clamp_max(length)
            self._read = {(lane, length): KeptTrunk(self.cache.read(lane, length), *table, known)}
        return self._read[lane, length]

    def write(self, lane: int, kept: KeptTrunk) -> None:
        """Fill the beginning of a trunk lane; branches that share it each ask."""
        if self._written.get(lane) is kept:
            return
        self._written[lane] = kept
        self._copied.pop(lane, None)
        self.cache.write(lane, kept.cached)
        self._tokens[lane, : len(kept.tokens)] = kept.tokens
        self._hidden[lane, : len(kept.tokens)] = kept.hidden
        self._length[lane] = kept.length

    def move(self, source: int, target: int, length: int) -> None:
        """The same for a lane that is given up: its number is the target's from now on."""
        self._copied.clear()
        self._written.clear()
        self.copy(source, target, length)
        self._copied.clear()


@dataclass(frozen=True)
class KeptTrunk:
    """The beginning of a trunk lane, apart from it; ``length``: how much of ``hidden`` is known."""

    cached: Sequence[Tensor]
    tokens: Tensor
    hidden: Tensor
    length: Tensor


class Shared:
    """What the branches of each row share in one backbone: how many layers, and in which trunk lanes; these are dense.

    Args:
        backbone: one without ``n_layers`` has nothing to share.
        needs: of each row that may come, its branches by their places in the backbone, a soup's being the one past the
            last.
    """

    def __init__(self, backbone: Any, needs: Sequence[Sequence[int]]) -> None:
        n_layers: int = getattr(backbone, "n_layers", 0)
        firsts: tuple[int, ...] = getattr(backbone, "first_layers", ())
        self._lowest = [n_layers, *firsts, min(firsts, default=n_layers)]  # by place
        self._rows = [[self._lowest[place] for place in row] for row in needs] if n_layers else []
        self.split = best_split(n_layers, self._rows)
        self._trunk: Trunk | None = None
        self._owners: list[tuple[int, Hashable]] = []  # of each trunk lane
        self._lane: list[dict[Hashable, int]] = []  # per row: group -> trunk lane
        self._group: list[dict[int, Hashable]] = []  # per row: branch -> group

    def session(self, backbone: Any, lanes: int, capacity: int, slots: int, *, one_prompt: bool) -> Any:
        """The backbone's, with room for ``slots`` rows' trunk lanes.

        Args:
            one_prompt: whether all branches of a row read the same, and so share what they can.
        """
        if not self.split:
            return backbone.session(lanes, capacity)
        widths = [n_trunks(row, self.split) if one_prompt else len(row) for row in self._rows]
        n = sum(heapq.nlargest(slots, widths))
        opened = backbone.session(lanes, capacity, split=self.split, trunk_lanes=n)
        self._trunk = opened.trunk
        return opened

    def add_row(
        self,
        readers: Mapping[int, tuple[int, str | None]],
        soup: Tensor | None,
        prompt_of: Callable[[str | None], Sequence[int]] | None,
    ) -> None:
        """Trunk lanes of a new row.

        Args:
            readers: branch -> its place, and whose prompt it reads.
            soup: the coefficients of that branch.
            prompt_of: see :meth:`mpg.models.lanes.BankSession.add_row`; without it nobody knows who reads the same.
        """
        if self._trunk is None:
            return
        groups: dict[int, Hashable] = {}
        for branch, (place, reader) in readers.items():
            lowest = self._lowest[place]
            if place == len(self._lowest) - 1 and soup is not None:
                lowest = min((self._lowest[1 + i] for i in soup.nonzero()[:, 0].tolist()), default=self._lowest[0])
            alone = lowest < self.split or prompt_of is None
            groups[branch] = branch if alone or prompt_of is None else tuple(prompt_of(reader))
        row, lanes = len(self._lane), dict[Hashable, int]()
        for group in groups.values():
            if group not in lanes:
                lanes[group] = len(self._owners)
                self._owners.append((row, group))
        self._group.append(groups)
        self._lane.append(lanes)
        self._trunk.begin([*lanes.values()])

    def trunk_lanes(self, pairs: Sequence[tuple[int, int]]) -> tuple[int, ...] | None:
        """Of (row, branch) pairs; ``None``: nothing is shared."""
        return None if self._trunk is None else tuple(self._lane[row][self._group[row][b]] for row, b in pairs)

    def copy(self, source: tuple[int, int], target: tuple[int, int], length: int) -> None:
        """What the first ``length`` positions of one (row, branch) share, to another's."""
        if self._trunk is not None:
            (of, to) = self.trunk_lanes([source, target]) or (0, 0)
            self._trunk.copy(of, to, length)

    def read(self, row: int, branch: int, length: int) -> KeptTrunk | None:
        """See :meth:`Trunk.read`; ``None``: nothing is shared."""
        return None if self._trunk is None else self._trunk.read(self._lane[row][self._group[row][branch]], length)

    def write(self, kept: KeptTrunk | None, row: int, branch: int) -> None:
        """See :meth:`Trunk.write`."""
        if self._trunk is not None and kept is not None:
            self._trunk.write(self._lane[row][self._group[row][branch]], kept)

    def remove_row(self, row: int, length_of: Sequence[Sequence[int]]) -> None:
        """Free a row's; the last row takes its number. ``length_of``: tokens cached, per row and branch."""
        if self._trunk is None:
            return
        for group in list(self._lane[row]):
            hole = self._lane[row].pop(group)
            moved_row, moved_group = self._owners.pop()
            if hole != len(self._owners):  # the last one fills the hole
                self._trunk.move(self._lane[moved_row][moved_group], hole, max(length_of[moved_row]))
                self._owners[hole] = (moved_row, moved_group)
                self._lane[moved_row][moved_group] = hole
        last = len(self._lane) - 1
        if row != last:
            self._lane[row], self._group[row] = self._lane[last], self._group[last]
            for group, lane in self._lane[row].items():
                self._owners[lane] = (row, group)
        self._lane.pop()
        self._group.pop()
