"""``scr-exact`` with block verification: a chunk is judged as a whole."""

from __future__ import annotations

import torch
from torch import Tensor

from mpg.decoding.rounds.walk import WalkingRound
from mpg.decoding.rows import Rows
from mpg.laws.drawing import draw
from mpg.laws.verify import block_verdict, residual
from mpg.models.lanes import BankSession
from mpg.models.states import States


class BlockRound(WalkingRound):
    """``scr-exact`` with block verification (Sun et al. 2024): a chunk of ``chunk_len`` is judged as a whole."""

    def step(self, session: BankSession, rows: Rows) -> None:
        n = self.draft_len or self.settings.chunk_len
        uniforms = rows.fresh_uniforms(2 * n + 1)  # drafts, tests, one replacement
        chunk = self.draft(session, rows, uniforms[:, :n])
        lengths = self.lengths(rows, chunk.tokens)
        width = self.longest(lengths, chunk)
        walk = self.walk(rows, chunk, width, n_laws=width)
        laws = chunk.laws[:width]
        counts, scaled = block_verdict(
            walk.laws, laws, chunk.tokens, walk.log_target.T, lengths, uniforms[:, n : n + width]
        )
        self.keep_prefix(rows, chunk, walk, counts)
        rows.n_chunks[: len(rows)] += 1
        rows.n_tested[: len(rows)] += torch.minimum(counts + 1, lengths)
        rows.n_accepted[: len(rows)] += counts
        replaced = (counts < lengths).nonzero()[:, 0]
        for j in counts[replaced].unique().tolist():
            mine = replaced[counts[replaced] == j]
            law = residual(scaled[j][mine], laws[j][mine].to(scaled[j]))
            token = draw(law, uniforms[mine, -1])
            self._replace(rows, chunk.states, mine, j, token)

    def _replace(self, rows: Rows, states: States, mine: Tensor, j: int, token: Tensor) -> None:
        """Write the token that stands in for draft j."""
        place = torch.zeros(len(rows), dtype=torch.long, device=mine.device)
        place[mine] = token
        for block in self.blocks(states, mine):
            log_policies = self.log_policies(states, block, j)
            _, log_q = self.target(rows, block, log_policies)
            self.keep(rows, block, log_policies, place[block.rows], log_q)
