"""``routing``: an attribute is drawn per horizon, and the text from its component alone."""

from __future__ import annotations

import torch

from mpg.decoding.rounds.lagging import LaggingRound
from mpg.decoding.rows import Rows
from mpg.models.lanes import BankSession


class RoutingRound(LaggingRound):
    """Per horizon ``i ~ alpha``; tokens from ``q_i``. The sum's law, if each component is truncated."""

    def step(self, session: BankSession, rows: Rows) -> None:
        drawn = self.draw_components(rows)
        one_hot = torch.nn.functional.one_hot(rows.component[drawn], rows.alphas.shape[1])
        rows.log_weights[drawn] = one_hot.to(rows.log_weights).log()
        pairs = self.component_lanes(rows)
        self.catch_up(session, rows, pairs)
        self.draw_from(session, rows, session.pick(pairs))
