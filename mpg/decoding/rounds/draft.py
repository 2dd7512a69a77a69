"""Drafting: a chunk is proposed by the reference, with its law, and scored under every branch in one pass.

What is kept of it is a verdict's, a pure function of :mod:`mpg.laws.verify`:

- :mod:`mpg.decoding.rounds.lossless` (``scr-exact``): token by token, each settled by speculative sampling
- :mod:`mpg.decoding.rounds.block` (``scr-exact`` with block verification): a chunk at a time, lossless as well
- :mod:`mpg.decoding.rounds.threshold` (``scr``, the paper's): a chunk is kept with probability ``min(1, R / M)``
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mpg.decoding.rounds.base import Round
from mpg.decoding.rows import Rows
from mpg.laws.drawing import draw
from mpg.models.lanes import BankSession
from mpg.models.states import Entries, States

# Drafts after which a device is asked whether all rows have ended: those that nobody has a use for cost less.
_LOOK_EVERY = 16


@dataclass
class Chunk:
    """What a round drafted.

    Attributes:
        tokens: ``[rows, chunk]``.
        laws: per position q ``[rows, vocab]``, where the round's verdict asks for it; else none.
        log_pi0: of the drafts, ``[rows, chunk]`` float64.
        states: of every lane, position j judging draft j.
    """

    tokens: Tensor
    laws: list[Tensor]
    log_pi0: Tensor
    states: States


class ChunkRound(Round):
    """Drafting and scoring."""

    truncated_drafts = True  # q is cut as the target is: lossless either way, and accepted more often
    keeps_draft_laws = True  # the verdict asks for q itself: a vocabulary of numbers a row and draft

    def __init__(self, *args: object, draft_len: int | None) -> None:
        super().__init__(*args, draft_len=draft_len)  # type: ignore[arg-type]
        self.overhang = self.settings.chunk_len

    def draft(self, session: BankSession, rows: Rows, uniforms: Tensor) -> Chunk:
        """Draft ``uniforms [rows, chunk]`` tokens a row, fewer if all end, and score them in one pass of the others."""
        entries, starts = session.references(), rows.n_cached()
        token = rows.last_tokens(entries)
        drafts, laws, log_pi0, steps = [], [], [], []
        room = rows.room()
        ended = torch.zeros(len(rows), dtype=torch.bool, device=token.device)
        for j in range(uniforms.shape[1]):
            session.foresee(rows.reach(j + 1), fresh=True)
            states = session.append(entries, token[:, None], starts + j)
            log_policies = self.normalised(
                states.logits(slice(None), 0), states.lane_among(rows.every)
            )  # [rows, vocab]
            law = self.proposal(log_policies, self.row_settings) if self.truncated_drafts else log_policies.exp()
            token = draw(law, uniforms[:, j])
            drafts.append(token)
            laws += [law] if self.keeps_draft_laws else []
            log_pi0.append(log_policies.gather(1, token[:, None])[:, 0].double())
            steps.append(states)
            ended |= torch.isin(token, self.eos_ids) | (j + 1 >= room)
            if (ended.device.type == "cpu" or j % _LOOK_EVERY == _LOOK_EVERY - 1) and ended.all():
                break
        tokens = torch.stack(drafts, dim=1)
        joined = States.in_time(steps).joined(self.score(session, rows, session.others(), tokens))
        return Chunk(tokens, laws, torch.stack(log_pi0, dim=1), joined)

    def score(self, session: BankSession, rows: Rows, entries: Entries, drafts: Tensor) -> States:
        """One pass of some lanes over ``drafts [rows, chunk]``: position j of its states judges draft j."""
        starts = rows.starts(entries)
        fed = torch.cat([rows.last_tokens(entries, starts)[:, None], drafts[entries.rows, :-1]], dim=1)
        session.foresee(rows.reach(drafts.shape[1]))
        return session.append(entries, fed, starts)

    def longest(self, lengths: Tensor, chunk: Chunk) -> int:
        """The most drafts up to an end of ``lengths [rows]``; on a device all, which costs less than to ask it."""
        return int(lengths.max()) if lengths.device.type == "cpu" else chunk.tokens.shape[1]

    def lengths(self, rows: Rows, tokens: Tensor) -> Tensor:
        """Drafts up to a chunk's end, which its EOS and the row's last position are, ``[rows]``."""
        n = tokens.shape[1]
        ends = torch.isin(tokens, self.eos_ids)
        to_eos = torch.where(ends.any(1), ends.long().argmax(1) + 1, n)
        return torch.minimum(to_eos, rows.room().clamp_max(n))
