"""``scr``, the paper's: a chunk is kept with probability ``min(1, R / M)``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mpg.decoding.rounds.draft import Chunk
from mpg.decoding.rounds.walk import Walk, WalkingRound
from mpg.decoding.rows import Rows
from mpg.laws.drawing import draw
from mpg.laws.verify import accepted_prefix
from mpg.models.lanes import BankSession
from mpg.models.sending import sent


class ThresholdRound(WalkingRound):
    """``scr``: chunk-level rejection with an online bound; approximate, with the books of its bias."""

    truncated_drafts = False  # R is measured against pi_0 itself
    keeps_draft_laws = False

    def step(self, session: BankSession, rows: Rows) -> None:
        n = self.settings.chunk_len
        uniforms = rows.fresh_uniforms(n + 2)  # drafts, one test, one fallback token
        chunk = self.draft(session, rows, uniforms[:, :n])
        lengths = self.lengths(rows, chunk.tokens)
        walk = self.walk(rows, chunk, self.longest(lengths, chunk), n_laws=1)  # for fallbacks
        log_r = self.log_prefix_ratios(chunk, walk, lengths)  # [rows, longest]
        bounds = sent([math.log(w.bound) for w in rows.windows], log_r.device, torch.float64)
        counts = accepted_prefix(log_r, bounds, uniforms[:, n].log(), salvage=self.settings.salvage)
        counts = torch.minimum(counts, lengths)
        self.keep_prefix(rows, chunk, walk, counts)
        size = len(rows)
        rows.n_tested[:size] += 1
        rows.n_accepted[:size] += (counts == lengths).long()
        rows.n_salvaged[:size] += ((counts > 0) & (counts < lengths)).long()
        rows.tries[:size] = torch.where(counts > 0, 0, rows.tries[:size] + 1)
        given_up = rows.tries[:size] >= self.settings.max_tries
        ratios, flags = torch.stack([log_r[:, -1].exp(), given_up.double()]).tolist()
        self.record(rows, ratios)
        if any(flags):
            tired = sent([row for row, flag in enumerate(flags) if flag], log_r.device)
            # One token of the target itself: a restart has no memory, so this adds no bias.
            rows.tries[tired] = 0
            rows.n_fallbacks[tired] += 1
            token = draw(walk.laws[0], uniforms[:, n + 1])
            for block in self.blocks(chunk.states, tired):
                log_policies = self.log_policies(chunk.states, block, 0)
                _, log_q = self.target(rows, block, log_policies)
                self.keep(rows, block, log_policies, token[block.rows], log_q)

    def log_prefix_ratios(self, chunk: Chunk, walk: Walk, lengths: Tensor) -> Tensor:
        """``log R_m`` of the prefixes, ``[rows, longest]``; past a chunk's end its own."""
        steps = walk.log_target.T - chunk.log_pi0[:, : len(walk.log_target)]
        inside = torch.arange(steps.shape[1], device=steps.device) < lengths[:, None]
        return torch.where(inside, steps, 0.0).cumsum(1)

    def record(self, rows: Rows, ratios: Sequence[float]) -> None:
        """Book the chunks' ratios: each row's window and the alarm on their mean."""
        rows.n_chunks[: len(rows)] += 1
        for window, ratio in zip(rows.windows, ratios, strict=True):
            window.record(ratio)
            self.alarm.record(ratio)
