"""What passes over lanes were of, what came of them, and the rows of them that are looked at together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mpg.laws.layout import Layout, Part
from mpg.models.backbone import BackboneSession
from mpg.models.sending import sent

# What a set of lanes remembers of its blocks, and of other sets that it is looked at with.
_MOST_REMEMBERED = 16


@dataclass(frozen=True)
class Places:
    """Which rows and branches some lanes of a pass are: what the host knows, so that no device is asked.

    Attributes:
        pairs: (row, branch) of each.
        sizes: how many lie in each part of the pass's states.
        rows, branches: of each, on the device, ``[entries]``.
    """

    pairs: tuple[tuple[int, int], ...]
    sizes: tuple[int, ...]
    rows: Tensor
    branches: Tensor
    _blocks: dict[int, list[Block]] = field(default_factory=dict, repr=False)
    _policies_of: list[Tensor] = field(default_factory=list, repr=False)
    _joined: dict[int, tuple[Places, Places]] = field(default_factory=dict, repr=False)

    def joined(self, others: Places) -> Places:
        """These and others in one."""
        if id(others) not in self._joined:
            if len(self._joined) == _MOST_REMEMBERED:
                self._joined.clear()
            rows, branches = torch.cat([self.rows, others.rows]), torch.cat([self.branches, others.branches])
            both = Places(self.pairs + others.pairs, self.sizes + others.sizes, rows, branches)
            self._joined[id(others)] = others, both  # kept, so that the id stays its own
        return self._joined[id(others)][1]

    @cached_property
    def n_rows(self) -> int:
        return 1 + max(row for row, _ in self.pairs)

    def blocks(self, size: int, layout: Layout) -> list[Block]:
        """All rows with their lanes, ``size`` rows at a time; each row has a lane among these."""
        key, n_rows = size, self.n_rows
        if key not in self._blocks:
            entry = {pair: i for i, pair in enumerate(self.pairs)}
            rows = [range(first, min(first + size, n_rows)) for first in range(0, n_rows, size)]
            self._blocks[key] = [self._block(each, entry, layout) for each in rows]
        return self._blocks[key]

    def policies(self, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        """The lanes that are attributes' policies: which entries, whose rows', which attributes'."""
        if not self._policies_of:
            number = {policy: attribute for attribute, policy in enumerate(layout.policy)}
            mine = [(i, row, number[b]) for i, (row, b) in enumerate(self.pairs) if b in number]
            self._policies_of.append(sent(mine, self.rows.device).view(len(mine), 3).T.contiguous())
        entries, rows, attributes = self._policies_of[0]
        return entries, rows, attributes

    def _block(self, rows: range, entry: dict[tuple[int, int], int], layout: Layout) -> Block:
        device = self.rows.device

        branches = sorted({branch for _, branch in self.pairs})
        lines = [(branch, place) for branch in branches for place, row in enumerate(rows) if (row, branch) in entry]
        line = {lane: i for i, lane in enumerate(lines)}
        parts = []
        for attribute, (policy, rho) in enumerate(zip(layout.policy, layout.reference, strict=True)):
            mine = [place for place in range(len(rows)) if (policy, place) in line]
            if mine:
                # Without its reference's line beside it, a component that needs none (q_i = pi_i) is all there is.
                held = [line[policy, place] for place in mine], [line.get((rho, place), 0) for place in mine]
                at, pi, own = (_sent(numbers, device) for numbers in (mine, *held))
                parts.append(Part(attribute, at, pi, own, plain=rho == 0))
        entries = [entry[rows[place], branch] for branch, place in lines]
        each = [(entries[i], place, rows[place], branch) for i, (branch, place) in enumerate(lines)]
        of_line = sent(each, device).T.contiguous()
        return Block(
            torch.arange(rows.start, rows.stop, device=device),
            slice(rows.start, rows.stop),
            of_line[0],
            of_line[1],
            of_line[2],
            of_line[3],
            parts,
            self._by_part(entries),
            sent([[line.get((pi, place), -1) for pi in layout.policy] for place in range(len(rows))], device),
        )

    def _by_part(self, entries: Sequence[int]) -> tuple[tuple[Tensor, Tensor], ...] | None:
        if len(self.sizes) == 1:
            return None
        found, first = [], 0
        for size in self.sizes:
            mine = [i for i, entry in enumerate(entries) if first <= entry < first + size]
            at, index = (
                sent([(i, entries[i] - first) for i in mine], self.rows.device).view(len(mine), 2).T.contiguous()
            )
            found.append((at, index))
            first += size
        return tuple(found)


def _sent(numbers: Sequence[int], device: torch.device) -> Tensor | slice:
    """Indices, as a slice where they follow each other: it is read where it lies."""
    first = numbers[0]
    whole = list(numbers) == list(range(first, first + len(numbers)))
    return slice(first, first + len(numbers)) if whole else sent(numbers, device)


class _Placed:
    """What has a row and a branch for each of its entries."""

    places: Places

    @property
    def rows(self) -> Tensor:
        """``[entries]``."""
        return self.places.rows

    @property
    def branches(self) -> Tensor:
        """``[entries]``."""
        return self.places.branches


@dataclass(frozen=True)
class Entries(_Placed):
    """Lanes of one pass, in its order: those of the first backbone first.

    Attributes:
        places: their rows and branches.
        sizes: entries of each backbone.
        lanes: of each backbone.
        mixes: adapter coefficients, per backbone ``[entries, n_branches - 1]``.
        on_from: positions from which they count, likewise; ``None``: all do from the beginning.
        extents: how long each lane's text may become, per backbone ``[entries]``; ``None``: it changes nothing.
        trunks: each lane's trunk lane, per backbone; ``None``: it has no trunk.
    """

    places: Places
    sizes: tuple[int, ...]
    lanes: tuple[tuple[int, ...], ...]
    mixes: tuple[Tensor, ...]
    on_from: tuple[Tensor | None, ...]
    extents: tuple[Tensor | None, ...]
    trunks: tuple[tuple[int, ...] | None, ...]

    def __len__(self) -> int:
        return sum(self.sizes)


class States(_Placed):
    """Hidden states of one or more passes; the vocabulary head runs only over what is asked for.

    Args:
        vocab_size: of the bank: what a model's head has beyond it is padding, and no part of any law.
    """

    def __init__(self, parts: Sequence[tuple[BackboneSession, Tensor]], entries: Entries, vocab_size: int) -> None:
        self._parts, self._vocab_size, self.places = list(parts), vocab_size, entries.places

    def __len__(self) -> int:
        return len(self.places.pairs)

    @staticmethod
    def in_time(steps: Sequence[States]) -> States:
        """Passes over the same lanes, one after the other, as one."""
        joined = copy.copy(steps[0])
        sessions = [session for session, _ in joined._parts]
        hidden = zip(*([h for _, h in step._parts] for step in steps), strict=True)
        joined._parts = [(s, torch.cat(h, dim=1)) for s, h in zip(sessions, hidden, strict=True)]
        return joined

    def joined(self, others: States) -> States:
        """These lanes and others' in one."""
        joined = copy.copy(self)
        joined._parts = self._parts + others._parts
        joined.places = self.places.joined(others.places)
        return joined

    def lane_among(self, entries: Tensor) -> Callable[[int | slice], tuple[Tensor, Tensor]]:
        """The row and the branch of each of some entries, by its place among them, or of a slice of them."""
        return lambda place: (self.rows[entries[place]], self.branches[entries[place]])

    def logits(
        self,
        entries: Tensor | slice,
        position: int | Tensor,
        by_part: Sequence[tuple[Tensor, Tensor]] | None = None,
    ) -> Tensor:
        """Next-token logits of some entries, ``[n, vocab]``.

        Args:
            entries: which.
            position: after the pass's how-manieth token, one for all or one each.
            by_part: see :class:`Block`; without it a device is asked, if there are several parts.
        """
        if len(self._parts) == 1:
            ((session, hidden),) = self._parts
            at = hidden[entries, position] if isinstance(position, Tensor) else hidden[:, position][entries]
            return self._cut(session.logits(at))
        if isinstance(entries, slice):
            entries = torch.arange(len(self), device=self.rows.device)[entries]
        out: Tensor | None = None
        for (session, hidden), (mine, index) in zip(self._parts, by_part or self._divided(entries), strict=True):
            if not len(mine):
                continue
            at = hidden[index, position[mine] if isinstance(position, Tensor) else position]
            logits = self._cut(session.logits(at))
            if len(mine) == len(entries):
                return logits
            out = logits.new_empty(len(entries), logits.shape[-1]) if out is None else out
            out[mine] = logits
        assert out is not None
        return out

    def _divided(self, entries: Tensor) -> list[tuple[Tensor, Tensor]]:
        found, first = [], 0
        for _, hidden in self._parts:
            mine = ((entries >= first) & (entries < first + len(hidden))).nonzero()[:, 0]
            found.append((mine, entries[mine] - first))
            first += len(hidden)
        return found

    def _cut(self, logits: Tensor) -> Tensor:
        return logits if logits.shape[-1] == self._vocab_size else logits[..., : self._vocab_size]


@dataclass(frozen=True)
class Block:
    """Some rows of a pass with their lanes, as the target's functions want them.

    Attributes:
        rows: ``[n]``; ``at``: the same, as a slice where they follow each other.
        entries: their lanes in the pass, the references first, ``[lines]``.
        entry_rows: for each line its place in ``rows``, ``entry_slots``: its row; ``branches``: its branch.
        parts: see :class:`mpg.laws.layout.Part`.
        by_part: of each part of the pass's states the places in ``entries`` that lie in it, and their places in it;
            ``None``: there is one part, or nobody knows.
        policy_lines: of all rows' blocks, where each row's ``pi_i`` stands among the lines, ``[n, attributes]``; -1: it
            has none.
    """

    rows: Tensor
    at: Tensor | slice
    entries: Tensor
    entry_rows: Tensor
    entry_slots: Tensor
    branches: Tensor
    parts: list[Part]
    by_part: tuple[tuple[Tensor, Tensor], ...] | None = None
    policy_lines: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))


def block_of(states_rows: Tensor, states_branches: Tensor, rows: Tensor, layout: Layout, n_branches: int) -> Block:
    """The lanes of ``rows`` among a pass's, by tables: no loop over rows. Of all rows: :meth:`Places.blocks`.

    Args:
        states_rows, states_branches: of the pass's entries.
        n_branches: of the bank, the soup included.
    """
    device = rows.device
    n_rows = int(max(states_rows.max(), rows.max())) + 1
    table = torch.full((n_rows, n_branches), -1, dtype=torch.long, device=device)
    table[states_rows, states_branches] = torch.arange(len(states_rows), device=device)
    entry = table[rows].T  # [branches, rows]: the references come first
    held = entry >= 0
    line = held.flatten().cumsum(0).view_as(held.long()) - 1  # place among the block's lines
    parts = []
    for attribute, (policy, rho) in enumerate(zip(layout.policy, layout.reference, strict=True)):
        mine = held[policy].nonzero()[:, 0]
        if len(mine):
            parts.append(Part(attribute, mine, line[policy, mine], line[rho, mine], plain=rho == 0))
    branches, entry_rows = held.nonzero(as_tuple=True)
    return Block(rows, rows, entry[held], entry_rows, rows[entry_rows], branches, parts)
