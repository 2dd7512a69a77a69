"""What passes over lanes were of, what came of them, and the rows of them that are looked at together."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mpg.laws.layout import Layout, Part
from mpg.models.backbone import BackboneSession


@dataclass(frozen=True)
class Entries:
    """Lanes of one pass, in its order: those of the first backbone first.

    Attributes:
        rows, branches: ``[entries]``.
        sizes: entries of each backbone.
        lanes: of each backbone.
        mixes: adapter coefficients, per backbone ``[entries, n_branches - 1]``.
        on_from: positions from which they count, likewise; ``None``: all do from the beginning.
        extents: how long each lane's text may become, per backbone ``[entries]``; ``None``: it changes nothing.
        trunks: each lane's trunk lane, per backbone; ``None``: it has no trunk.
    """

    rows: Tensor
    branches: Tensor
    sizes: tuple[int, ...]
    lanes: tuple[tuple[int, ...], ...]
    mixes: tuple[Tensor, ...]
    on_from: tuple[Tensor | None, ...]
    extents: tuple[Tensor | None, ...]
    trunks: tuple[tuple[int, ...] | None, ...]

    def __len__(self) -> int:
        return sum(self.sizes)


class States:
    """Hidden states of one or more passes; the vocabulary head runs only over what is asked for.

    Args:
        vocab_size: of the bank: what a model's head has beyond it is padding, and no part of any law.
    """

    def __init__(self, parts: Sequence[tuple[BackboneSession, Tensor]], entries: Entries, vocab_size: int) -> None:
        self._parts, self._vocab_size = list(parts), vocab_size
        self.rows, self.branches = entries.rows, entries.branches

    def __len__(self) -> int:
        return len(self.rows)

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
        joined.rows = torch.cat([self.rows, others.rows])
        joined.branches = torch.cat([self.branches, others.branches])
        return joined

    def lane_among(self, entries: Tensor) -> Callable[[int | slice], tuple[Tensor, Tensor]]:
        """The row and the branch of each of some entries, by its place among them, or of a slice of them."""
        return lambda place: (self.rows[entries[place]], self.branches[entries[place]])

    def logits(self, entries: Tensor | slice, position: int | Tensor) -> Tensor:
        """Next-token logits of some entries, ``[n, vocab]``.

        Args:
            entries: which.
            position: after the pass's how-manieth token, one for all or one each.
        """
        if isinstance(entries, slice):
            entries = torch.arange(len(self), device=self.rows.device)[entries]
        out: Tensor | None = None
        first = 0
        for session, hidden in self._parts:
            mine = ((entries >= first) & (entries < first + len(hidden))).nonzero()[:, 0]
            index = entries[mine] - first
            first += len(hidden)
            if not len(mine):
                continue
            at = position[mine] if isinstance(position, Tensor) else position
            logits = session.logits(hidden[index, at])
            if logits.shape[-1] != self._vocab_size:
                logits = logits[..., : self._vocab_size]
            if len(mine) == len(entries):
                return logits
            out = logits.new_empty(len(entries), logits.shape[-1]) if out is None else out
            out[mine] = logits
        assert out is not None
        return out


@dataclass(frozen=True)
class Block:
    """Some rows of a pass with their lanes, as the target's functions want them.

    Attributes:
        rows: ``[n]``.
        entries: their lanes in the pass, the references first, ``[lines]``.
        entry_rows: for each line its place in ``rows``; ``branches``: its branch.
        parts: see :class:`mpg.laws.layout.Part`.
    """

    rows: Tensor
    entries: Tensor
    entry_rows: Tensor
    branches: Tensor
    parts: list[Part]


def block_of(states_rows: Tensor, states_branches: Tensor, rows: Tensor, layout: Layout, n_branches: int) -> Block:
    """The lanes of ``rows`` among a pass's, by tables: no loop over rows.

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
    return Block(rows, entry[held], entry_rows, branches, parts)
