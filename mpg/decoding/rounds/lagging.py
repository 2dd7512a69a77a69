"""Drawing from one lane a row: the other lanes catch up later, many tokens in one pass."""

from __future__ import annotations

from mpg.decoding.rounds.base import Round
from mpg.decoding.rows import DRAFT, Rows
from mpg.laws.drawing import draw
from mpg.models.lanes import BankSession
from mpg.models.states import Entries


class LaggingRound(Round):
    """Keeps ``rows.fed`` and brings lanes up to date."""

    def draw_from(self, session: BankSession, rows: Rows, entries: Entries) -> None:
        """Feed each row's last token to the given lanes, draw from the target's law there, and keep it."""
        states = self.feed_last(session, rows, entries)
        rows.fed[entries.rows, entries.branches] = rows.n_cached()[entries.rows] + 1
        uniforms = rows.uniforms_at(0, DRAFT)
        for block in self.blocks(states):
            log_policies = self.log_policies(states, block, 0)
            target, log_q = self.target(rows, block, log_policies)
            self.keep(rows, block, log_policies, draw(target, uniforms[block.at]), log_q)

    def finish(self, session: BankSession, rows: Rows, slots: list[int]) -> None:
        """The books of every branch but the soup, in one parallel pass over the response."""
        pairs = [(slot, b) for slot in slots for b in session.branches_of(slot) if b != session.soup]
        self.catch_up(session, rows, pairs, self.lag(rows).tolist())
