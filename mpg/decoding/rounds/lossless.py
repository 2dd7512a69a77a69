"""``scr-exact``: speculative sampling, every drafted token settled by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from mpg.decoding.rounds.draft import Chunk, ChunkRound
from mpg.decoding.rows import DRAFT, REPLACEMENT, TEST, Rows
from mpg.laws.drawing import draw
from mpg.laws.verify import settle
from mpg.models.lanes import BankSession
from mpg.models.states import Block, States


class LosslessRound(ChunkRound):
    """``scr-exact``: speculative sampling of the target, every position settled by its own uniforms."""

    def step(self, session: BankSession, rows: Rows) -> None:
        n = self.draft_len or 1
        if n == 1:
            states = self.feed_last(session, rows, session.every_lane())
            self._settle(rows, states, rows.every, 0, None)
            return
        uniforms = torch.stack([rows.uniforms_at(j, DRAFT) for j in range(n)], dim=1)
        chunk = self.draft(session, rows, uniforms)
        alive = rows.every
        for j in range(chunk.tokens.shape[1]):
            alive = alive[self._settle(rows, chunk.states, alive, j, chunk)]
            if not len(alive):
                break

    def _settle(self, rows: Rows, states: States, alive: Tensor, j: int, chunk: Chunk | None) -> Tensor:
        """Settle position j of the round for the rows alive; whether each goes on, ``[alive]`` bool."""
        going = torch.zeros(len(rows), dtype=torch.bool, device=alive.device)
        # Rows alive have written j tokens in this round: their next position is the one to settle.
        uniforms = [rows.uniforms_at(0, column) for column in (DRAFT, TEST, REPLACEMENT)]
        for block in self.blocks(states, alive):
            log_policies = self.log_policies(states, block, j)
            target, log_q = self.target(rows, block, log_policies)
            at, test, replacement = (u[block.rows] for u in uniforms)
            draft, law = self._proposed(chunk, block, j, log_policies, at)
            token, accepted = settle(target, law, draft, test, replacement)
            self.keep(rows, block, log_policies, token, log_q)
            rows.count_draft(block.rows, accepted)
            going[block.rows] = accepted
        going &= ~rows.ended()
        return going[alive]

    def _proposed(
        self, chunk: Chunk | None, block: Block, j: int, log_policies: Tensor, uniforms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Draft j of a block's rows, ``[n]``, and the law it follows, ``[n, vocab]``: of the chunk, or drawn now."""
        if chunk is not None:
            return chunk.tokens[block.rows, j], chunk.laws[j][block.rows]
        law = self.proposal(log_policies[: len(block.rows)], self.settings_of(block))
        return draw(law, uniforms), law
