"""One token a round, drawn from the target itself: all lanes of all rows in one pass."""

from __future__ import annotations

from mpg.decoding.rounds.base import Round
from mpg.decoding.rows import DRAFT, Rows
from mpg.laws.drawing import draw
from mpg.models.lanes import BankSession


class DirectRound(Round):
    """``reference``, ``single``, ``mod``, ``pad``, ``drift``: ``t ~ T`` by inverse CDF."""

    def step(self, session: BankSession, rows: Rows) -> None:
        states = self.feed_last(session, rows, session.every_lane())
        uniforms = rows.uniforms_at(0, DRAFT)
        for block in self.blocks(states):
            log_policies = self.log_policies(states, block, 0)
            target, log_q = self.target(rows, block, log_policies)
            self.keep(rows, block, log_policies, draw(target, uniforms[block.at]), log_q)
