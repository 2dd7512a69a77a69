"""Speculation: a chunk is drafted from the reference, scored under every branch in one pass, and judged.

- :class:`LosslessRound` (``scr-exact``): token by token, each settled by speculative sampling
- :class:`BlockRound` (``scr-exact`` with block verification): a chunk at a time, lossless as well
- :class:`ThresholdRound` (``scr``, the paper's): a chunk is kept with probability ``min(1, R / M)``
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mpg.decoding.rounds.base import Round
from mpg.decoding.rows import DRAFT, REPLACEMENT, TEST, Rows
from mpg.laws.drawing import draw
from mpg.laws.verify import accepted_prefix, block_scales, block_thresholds, longest, passes, residual, settle
from mpg.models.lanes import BankSession
from mpg.models.states import Entries, States


@dataclass
class Chunk:
    """What a round drafted.

    Attributes:
        tokens: ``[rows, chunk]``.
        laws: per position q ``[rows, vocab]``.
        log_pi0: of the drafts, ``[rows, chunk]`` float64.
        states: of every lane, position j judging draft j.
    """

    tokens: Tensor
    laws: list[Tensor]
    log_pi0: Tensor
    states: States


@dataclass
class Walk:
    """A chunk's drafts under the target, and the books after each prefix (0..chunk drafts).

    Attributes:
        log_target: of the drafts, ``[rows, chunk]`` float64.
        laws: per position T ``[rows, vocab]``.
        log_weights: the mixture's, per prefix ``[rows, attributes]``.
        log_probs: summed over the prefix, ``[rows, branches]`` each.
    """

    log_target: list[Tensor] = field(default_factory=list)
    laws: list[Tensor] = field(default_factory=list)
    log_weights: list[Tensor] = field(default_factory=list)
    log_probs: list[Tensor] = field(default_factory=list)


class ChunkRound(Round):
    """Drafting and scoring."""

    truncated_drafts = True  # q is cut as the target is: lossless either way, and accepted more often

    def draft(self, session: BankSession, rows: Rows, uniforms: Tensor) -> Chunk:
        """Draft ``uniforms [rows, chunk]`` tokens a row, fewer if all end, and score them in one pass of the others."""
        entries, starts = session.references(), rows.n_cached()
        token = rows.last_tokens(entries)
        drafts, laws, log_pi0, steps = [], [], [], []
        room = rows.room()
        ended = torch.zeros(len(rows), dtype=torch.bool, device=token.device)
        for j in range(uniforms.shape[1]):
            states = session.append(entries, token[:, None], starts + j)
            logits = states.logits(slice(None), 0)
            log_policies = self.workspace.log_policy(logits, self.settings.temperature)  # [rows, vocab]
            law = log_policies.exp()
            law = self.cut(law) if self.truncated_drafts else law
            token = draw(law, uniforms[:, j])
            drafts.append(token)
            laws.append(law)
            log_pi0.append(log_policies.gather(1, token[:, None])[:, 0].double())
            steps.append(states)
            ended |= torch.isin(token, self.eos_ids) | (j + 1 >= room)
            if ended.all():
                break
        tokens = torch.stack(drafts, dim=1)
        joined = States.in_time(steps).joined(self.score(session, rows, session.others(), tokens))
        return Chunk(tokens, laws, torch.stack(log_pi0, dim=1), joined)

    def score(self, session: BankSession, rows: Rows, entries: Entries, drafts: Tensor) -> States:
        """One pass of some lanes over ``drafts [rows, chunk]``: position j of its states judges draft j."""
        fed = torch.cat([rows.last_tokens(entries)[:, None], drafts[entries.rows, :-1]], dim=1)
        return session.append(entries, fed, rows.starts(entries))

    def walk(self, rows: Rows, chunk: Chunk, n: int, *, keep_laws: bool) -> Walk:
        """Follow the first ``n`` drafts of every row under the target, whatever is kept of them later."""
        walk = Walk(log_weights=[rows.log_weights[: len(rows)].clone()])
        walk.log_probs.append(torch.zeros_like(rows.log_probs[: len(rows)]))
        before = rows.log_weights[: len(rows)].clone()
        for j in range(n):
            token = chunk.tokens[:, j]
            log_target = torch.empty(len(rows), dtype=torch.float64, device=token.device)
            law = torch.empty_like(chunk.laws[j])
            log_probs, log_weights = walk.log_probs[-1].clone(), walk.log_weights[-1].clone()
            rows.log_weights[: len(rows)] = log_weights
            for block in self.blocks(chunk.states, rows.every):
                log_policies = self.log_policies(chunk.states, block, j)
                target, log_q = self.target(rows, block, log_policies)
                mine = token[block.rows]
                law[block.rows] = target
                log_target[block.rows] = target.gather(1, mine[:, None])[:, 0].double().log()
                picked = log_policies.gather(1, mine[block.entry_rows, None])[:, 0]
                log_probs[block.rows[block.entry_rows], block.branches] += picked.double()
                position = rows.n_new[block.rows] + j
                log_weights[block.rows] = self.weights_after(rows, block, log_policies, mine, position, log_q)
            walk.log_target.append(log_target)
            walk.log_weights.append(log_weights)
            walk.log_probs.append(log_probs)
            if keep_laws or j == 0:
                walk.laws.append(law)
        rows.log_weights[: len(rows)] = before
        return walk

    def lengths(self, rows: Rows, tokens: Tensor) -> Tensor:
        """Drafts up to a chunk's end, which its EOS and the row's last position are, ``[rows]``."""
        n = tokens.shape[1]
        ends = torch.isin(tokens, self.eos_ids)
        to_eos = torch.where(ends.any(1), ends.long().argmax(1) + 1, n)
        return torch.minimum(to_eos, rows.room().clamp_max(n))

    def keep_prefix(self, rows: Rows, chunk: Chunk, walk: Walk, counts: Tensor) -> None:
        """Write the first ``counts [rows]`` drafts of every row, with their books."""
        every = rows.every
        rows.log_probs[: len(rows)] += torch.stack(walk.log_probs)[counts, every]
        rows.log_weights[: len(rows)] = torch.stack(walk.log_weights)[counts, every]
        for j in range(int(counts.max())):
            mine = every[counts > j]
            rows.write(mine, chunk.tokens[mine, j], self.eos_ids)


class LosslessRound(ChunkRound):
    """``scr-exact``: speculative sampling of the target, every position settled by its own uniforms."""

    def __init__(self, *args: object, draft_len: int | None) -> None:
        super().__init__(*args, draft_len=draft_len)  # type: ignore[arg-type]
        self.overhang = self.settings.chunk_len

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
            if chunk is None:
                law = self.cut(log_policies[: len(block.rows)].exp())
                draft = draw(law, at)
            else:
                law, draft = chunk.laws[j][block.rows], chunk.tokens[block.rows, j]
            token, accepted = settle(target, law, draft, test, replacement)
            self.keep(rows, block, log_policies, token, log_q)
            rows.count_draft(block.rows, accepted)
            going[block.rows] = accepted
        going &= ~rows.ended()
        return going[alive]


class BlockRound(ChunkRound):
    """``scr-exact`` with block verification (Sun et al. 2024): a chunk of ``chunk_len`` is judged as a whole."""

    def __init__(self, *args: object, draft_len: int | None) -> None:
        super().__init__(*args, draft_len=draft_len)  # type: ignore[arg-type]
        self.overhang = self.settings.chunk_len

    def step(self, session: BankSession, rows: Rows) -> None:
        n = self.draft_len or self.settings.chunk_len
        uniforms = rows.fresh_uniforms(2 * n + 1)  # drafts, tests, one replacement
        chunk = self.draft(session, rows, uniforms[:, :n])
        lengths = self.lengths(rows, chunk.tokens)
        width = int(lengths.max())
        walk = self.walk(rows, chunk, width, keep_laws=True)
        laws, drafts = chunk.laws[:width], chunk.tokens.T
        log_draft = [q.gather(1, x[:, None])[:, 0].double().log() for q, x in zip(laws, drafts, strict=False)]
        scales = block_scales(torch.stack(walk.log_target, dim=1), torch.stack(log_draft, dim=1))
        scaled = [p[:, None] * law for p, law in zip(scales.unbind(1), walk.laws, strict=False)]  # p_i T
        rest = torch.stack([(law - q).clamp_min(0).sum(-1) for law, q in zip(scaled, laws, strict=True)], dim=1)
        thresholds = block_thresholds(scales, rest, lengths)
        counts = longest(passes(thresholds, uniforms[:, n : n + width]))
        self.keep_prefix(rows, chunk, walk, counts)
        rows.n_chunks[: len(rows)] += 1
        rows.n_tested[: len(rows)] += torch.minimum(counts + 1, lengths)
        rows.n_accepted[: len(rows)] += counts
        replaced = (counts < lengths).nonzero()[:, 0]
        for j in counts[replaced].unique().tolist():
            mine = replaced[counts[replaced] == j]
            law = residual(scaled[j][mine], laws[j][mine].to(scales))
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


class ThresholdRound(ChunkRound):
    """``scr``: chunk-level rejection with an online bound; approximate, with the books of its bias."""

    truncated_drafts = False  # R is measured against pi_0 itself

    def __init__(self, *args: object, draft_len: int | None) -> None:
        super().__init__(*args, draft_len=draft_len)  # type: ignore[arg-type]
        self.overhang = self.settings.chunk_len

    def step(self, session: BankSession, rows: Rows) -> None:
        n = self.settings.chunk_len
        uniforms = rows.fresh_uniforms(n + 2)  # drafts, one test, one fallback token
        chunk = self.draft(session, rows, uniforms[:, :n])
        lengths = self.lengths(rows, chunk.tokens)
        walk = self.walk(rows, chunk, int(lengths.max()), keep_laws=False)
        log_r = self.log_prefix_ratios(chunk, walk, lengths)  # [rows, longest]
        bounds = torch.tensor([math.log(w.bound) for w in rows.windows], dtype=torch.float64, device=log_r.device)
        counts = accepted_prefix(log_r, bounds, uniforms[:, n].log(), salvage=self.settings.salvage)
        counts = torch.minimum(counts, lengths)
        self.record(rows, log_r[:, -1])
        self.keep_prefix(rows, chunk, walk, counts)
        size = len(rows)
        rows.n_tested[:size] += 1
        rows.n_accepted[:size] += (counts == lengths).long()
        rows.n_salvaged[:size] += ((counts > 0) & (counts < lengths)).long()
        rows.tries[:size] = torch.where(counts > 0, 0, rows.tries[:size] + 1)
        tired = (rows.tries[:size] >= self.settings.max_tries).nonzero()[:, 0]
        if len(tired):
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
        steps = torch.stack(walk.log_target, dim=1) - chunk.log_pi0[:, : len(walk.log_target)]
        inside = torch.arange(steps.shape[1], device=steps.device) < lengths[:, None]
        return torch.where(inside, steps, 0.0).cumsum(1)

    def record(self, rows: Rows, log_r: Tensor) -> None:
        """Book the chunks' ratios: each row's window and the alarm on their mean."""
        rows.n_chunks[: len(rows)] += 1
        for window, ratio in zip(rows.windows, log_r.exp().tolist(), strict=True):
            window.record(ratio)
            self.alarm.record(ratio)
