"""``scr-exact``: speculative sampling, every drafted token settled by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from mpg.decoding.rounds.draft import Chunk, ChunkRound
from mpg.decoding.rows import DRAFT, REPLACEMENT, TEST, Rows
from mpg.laws.drawing import draw
from mpg.laws.verify import settle
from mpg.models.lanes import BankSession
from mpg.models.states import States


class LosslessRound(ChunkRound):
    """``scr-exact``: speculative sampling of the target, every position settled by its own uniforms."""

    def step(self, session: BankSession, rows: Rows) -> None:
        n = self.draft_len or 1
        if n == 1:
            states = self.feed_last(session, rows, session.every_lane())
            self._settle(rows, states, None, 0, None)
            return
        uniforms = torch.stack([rows.uniforms_at(j, DRAFT) for j in range(n)], dim=1)
        chunk = self.draft(session, rows, uniforms)
        alive = rows.every[self._settle(rows, chunk.states, None, 0, chunk)]
        for j in range(1, chunk.tokens.shape[1]):
            alive = alive[self._settle(rows, chunk.states, alive, j, chunk)]
            if not len(alive):
                break

    def _settle(self, rows: Rows, states: States, alive: Tensor | None, j: int, chunk: Chunk | None) -> Tensor:
        """Settle position j of the round for the rows alive (``None``: all); whether each goes on, ``[alive]`` bool."""
        every = rows.every
        going = torch.zeros_like(every, dtype=torch.bool)
        # Rows alive have written j tokens in this round: their next position is the one to settle.
        uniforms = rows.all_uniforms_at(0)
        for block in self.blocks(states, alive):
            log_policies = self.log_policies(states, block, j)
            at = uniforms[block.at]
            if chunk is None:  # drafted now, from what judges it
                (target, log_q), law = self.target_and_proposal(rows, block, log_policies)
                draft = draw(law, at[:, DRAFT])
            else:
                target, log_q = self.target(rows, block, log_policies)
                draft, law = chunk.tokens[block.at, j], chunk.laws[j][block.at]
            token, accepted = settle(target, law, draft, at[:, TEST], at[:, REPLACEMENT])
            self.keep(rows, block, log_policies, token, log_q)
            rows.count_draft(block.at, accepted)
            going[block.at] = accepted
        if chunk is None:
            return going
        going &= ~rows.ended()
        return going if alive is None else going[alive]
