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
        size, n = len(rows), rows.alphas.shape[1]
        one_hot = rows.component[:size, None] == torch.arange(n, device=rows.device)
        alone = rows.log_weights.new_zeros(()).masked_fill(~one_hot, -torch.inf)
        rows.log_weights[:size] = torch.where(drawn[:, None], alone, rows.log_weights[:size])
        seen = torch.cat([rows.component[:size, None], self.lag(rows)], dim=1).tolist()
        pairs = self.component_lanes([component for component, *_ in seen])
        self.catch_up(session, rows, pairs, [lag for _, *lag in seen])
        self.draw_from(session, rows, session.pick(pairs))
