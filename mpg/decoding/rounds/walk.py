"""A chunk's drafts followed under the target, for verdicts over the whole of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mpg.decoding.rounds.draft import Chunk, ChunkRound
from mpg.decoding.rows import Rows
from mpg.laws.target import log_token_law
from mpg.models.states import Block


@dataclass
class Walk:
    """A chunk's drafts under the target, and the books after each prefix (0..chunk drafts).

    All float64 and made before the first position: small tensors that stay, taken between a position's large ones that
    go, would leave the allocator with holes that the next position's do not fit into.

    Attributes:
        log_target: of the drafts, ``[chunk, rows]``.
        log_weights: the mixture's after a prefix, ``[chunk + 1, rows, attributes]``.
        log_probs: summed over the prefix, ``[chunk + 1, rows, branches]``.
        token_log_probs: their terms, ``[chunk, rows, branches]``; ``None``: nobody asked for them.
        laws: T ``[rows, vocab]`` of the first positions, as many as were asked for.
    """

    log_target: Tensor
    log_weights: Tensor
    log_probs: Tensor
    token_log_probs: Tensor | None = None
    laws: list[Tensor] = field(default_factory=list)


class WalkingRound(ChunkRound):
    """Drafting, scoring, and the target along the drafts."""

    def walk(self, rows: Rows, chunk: Chunk, n: int, *, n_laws: int) -> Walk:
        """Follow the first ``n`` drafts of every row under the target, whatever is kept of them later.

        Args:
            n_laws: positions, from the first on, whose whole law is kept: a vocabulary of numbers a row each.
        """
        lost: list[Tensor] = []
        walk = self._walk(rows, chunk, n, n_laws, lost)
        # A device is asked once for all of them, and seldom has to go again.
        return self._walk(rows, chunk, n, n_laws, None) if lost and bool(torch.cat(lost).any()) else walk

    def _walk(self, rows: Rows, chunk: Chunk, n: int, n_laws: int, lost: list[Tensor] | None) -> Walk:
        """See :meth:`walk`; ``lost``: see :meth:`_log_target`."""
        before, log_probs = rows.log_weights[: len(rows)], rows.log_probs[: len(rows)]
        walk = Walk(
            log_target=log_probs.new_empty(n, len(rows)),
            log_weights=before.repeat(n + 1, 1, 1),
            log_probs=torch.zeros_like(log_probs).repeat(n + 1, 1, 1),
            token_log_probs=torch.zeros_like(log_probs).repeat(n, 1, 1) if self.settings.token_log_ratios else None,
        )
        for j in range(n):
            token = chunk.tokens[:, j]
            law: Tensor | None = None
            log_probs, log_weights = walk.log_probs[j + 1], walk.log_weights[j + 1]
            log_probs.copy_(walk.log_probs[j])
            log_weights.copy_(walk.log_weights[j])
            rows.log_weights[: len(rows)] = log_weights
            for block in self.blocks(chunk.states):
                log_policies = self.log_policies(chunk.states, block, j)
                target, log_q = self.target(rows, block, log_policies)
                mine = token[block.rows]
                if j < n_laws:
                    law = target.new_empty(len(rows), target.shape[1]) if law is None else law
                    law[block.rows] = target
                walk.log_target[j, block.rows] = self._log_target(rows, block, log_policies, target, mine, lost)
                picked = log_policies.gather(1, mine[block.entry_rows, None])[:, 0]
                lane = block.rows[block.entry_rows], block.branches
                log_probs[lane] += picked.double()
                if walk.token_log_probs is not None:
                    walk.token_log_probs[j][lane] = picked.double()
                position = rows.n_new[block.rows] + j
                log_weights[block.rows] = self.weights_after(rows, block, log_policies, mine, position, log_q)
            if law is not None:
                walk.laws.append(law)
        rows.log_weights[: len(rows)] = walk.log_weights[0]
        return walk

    def _log_target(
        self, rows: Rows, block: Block, log_policies: Tensor, law: Tensor, token: Tensor, later: list[Tensor] | None
    ) -> Tensor:
        """``log T(token)`` of a block's rows, ``[n]`` float64: exact where the probability has left float32's range.

        Args:
            later: where a device notes whether there are such, instead of being asked now.
        """
        picked = law.gather(1, token[:, None])[:, 0]
        log_target, lost = picked.double().log(), picked < torch.finfo(picked.dtype).tiny
        own = self.settings_of(block)
        if later is not None and lost.device.type != "cpu":
            later += [] if own.greedy is True else [lost]
            return log_target
        if own.greedy is True or not bool(lost.any()):
            return log_target
        log_law = log_token_law(self.kind, log_policies, block.parts, rows.target_state(block.rows), own)
        return torch.where(lost, log_law.gather(1, token[:, None])[:, 0].double(), log_target)

    def keep_prefix(self, rows: Rows, chunk: Chunk, walk: Walk, counts: Tensor) -> None:
        """Write the first ``counts [rows]`` drafts of every row, with their books."""
        every = rows.every
        rows.log_probs[: len(rows)] += walk.log_probs[counts, every]
        rows.log_weights[: len(rows)] = walk.log_weights[counts, every]
        if walk.token_log_probs is not None:
            n, _, branches = (torch.arange(size, device=every.device) for size in walk.token_log_probs.shape)
            position = rows.n_new[every] + n[:, None]  # [chunk, rows]
            rows.book_tokens(every[:, None], position[:, :, None], branches, walk.token_log_probs)
        rows.write_prefix(chunk.tokens, counts, self.eos_ids)
