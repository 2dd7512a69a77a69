"""Drawing from one lane a row: the other lanes catch up later, many tokens in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mpg.decoding.rounds.base import Round
from mpg.decoding.rows import DRAFT, Rows
from mpg.laws.drawing import draw
from mpg.models.lanes import BankSession
from mpg.models.states import Entries

# Tokens fed in one pass while catching up: bounds the memory of its activations.
_PASS_TOKENS, _PASS_TOKENS_ON_GPU = 1024, 16384


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

    def lag(self, rows: Rows) -> Tensor:
        """Tokens that each lane has missed, ``[rows, branches]``."""
        return rows.n_cached()[:, None] - rows.fed[: len(rows)]

    def catch_up(
        self, session: BankSession, rows: Rows, pairs: Sequence[tuple[int, int]], lag: Sequence[Sequence[int]]
    ) -> None:
        """Feed (row, branch) lanes all they have missed but the row's last token, and book it.

        Args:
            lag: see :meth:`lag`.
        """
        behind = sorted((pair for pair in pairs if lag[pair[0]][pair[1]] > 0), key=lambda p: lag[p[0]][p[1]])
        at_once = _PASS_TOKENS if self.bank.device.type == "cpu" else _PASS_TOKENS_ON_GPU
        while behind:
            width = lag[behind[-1][0]][behind[-1][1]]
            size = max(1, at_once // width)
            self._feed_missed(session, rows, session.pick(behind[-size:]), width)
            del behind[-size:]

    def _feed_missed(self, session: BankSession, rows: Rows, entries: Entries, width: int) -> None:
        shift = rows.shift[entries.rows, entries.branches]
        upto, fed = rows.starts(entries), rows.fed[entries.rows, entries.branches] + shift  # positions of the lanes
        # Aligned at the end: a lane that lags less is fed some tokens again, to the same effect.
        starts = (upto - width).clamp_min(0)
        positions = starts[:, None] + torch.arange(width, device=starts.device)  # [lanes, width]
        session.foresee(rows.reach(1))
        states = session.append(entries, rows.tokens_at(entries, positions), starts)
        missed = (positions >= fed[:, None]) & (positions < upto[:, None])
        missed &= positions >= (rows.n_prompt[entries.rows] + shift)[:, None] - 1  # what they say of the response
        following = rows.tokens_at(entries, positions + 1)
        if starts.device.type == "cpu":
            log_probs = torch.zeros(positions.shape, dtype=torch.float64)
            log_probs[missed] = self.log_probs_at(states, missed.nonzero(), following[missed])
        else:  # which is not asked where: most are
            place = torch.arange(missed.numel(), device=starts.device)
            places = torch.stack([place // width, place % width], dim=1)
            found = self.log_probs_at(states, places, following.flatten()).view(positions.shape)
            log_probs = torch.where(missed, found, 0.0)
        rows.log_probs[entries.rows, entries.branches] += log_probs.sum(1)
        if rows.token_log_probs is not None:
            in_response = positions + 1 - (rows.n_prompt[entries.rows] + shift)[:, None]
            past_end = torch.full_like(in_response, rows.longest_response)
            place = torch.where(missed, in_response, past_end)
            rows.book_tokens(entries.rows[:, None], place, entries.branches[:, None], log_probs)
        rows.fed[entries.rows, entries.branches] = upto - shift
