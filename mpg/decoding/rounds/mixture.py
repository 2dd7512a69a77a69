"""``scr-exact`` of the sum with drafts from the sum itself.

A component i is drawn from the mixture's weights w (at every horizon, and after a rejection) and drafts a
chunk from ``q_i`` alone. Given the text, its drafts follow ``sum_i w_i q_i``, the target before truncation:
the weights w are the law of i given the text, drafts included. So all that the verification can reject is
what truncation cuts off; and the drafting branch's own pass is one that scoring the chunk needs anyway.
The other branches score it in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mpg.decoding.rounds.draft import ChunkRound
from mpg.decoding.rows import DRAFT, REPLACEMENT, TEST, Rows
from mpg.laws.drawing import draw
from mpg.laws.target import largest_or, log_component, mixture_law
from mpg.laws.verify import settle
from mpg.models.lanes import BankSession
from mpg.models.states import Block, States

# Up to so many lanes, all are fed every token at once: a pass over them takes hardly longer than one over
# the drafting lanes alone, both being bound by reading the weights. A GPU's 16-bit products are for as many lanes as
# it has operations for a byte read: 295 on an H100 (989 TFLOP/s, 3.35 TB/s).
_FEW_LANES, _FEW_LANES_ON_GPU = 64, 256


@dataclass
class _Drafted:
    """What a round drafted.

    Attributes:
        tokens: ``[rows, chunk]``.
        drafting, others: states of the lanes fed while drafting and of the rest, if any; position j
            judges draft j.
        log_probs: of the drafts under the lanes fed while drafting, ``[lanes, chunk]`` float64.
    """

    tokens: Tensor
    drafting: States
    others: States | None
    log_probs: Tensor

    @property
    def states(self) -> States:
        return self.drafting if self.others is None else self.drafting.joined(self.others)


class MixtureRound(ChunkRound):
    """A round drafts up to each row's horizon at most, since behind it another component drafts."""

    @property
    def tests(self) -> bool:
        """Whether drafts follow another law than the target: the sum that is neither cut nor greedy is theirs.

        Alike in all rows of a batch, see :func:`mpg.settings.in_common`.
        """
        return self.settings.truncates or self.settings.greedy

    def step(self, session: BankSession, rows: Rows) -> None:
        self.draw_components(rows)
        ends = self._ends(rows)
        every = session.every_lane()
        few = _FEW_LANES if self.bank.device.type == "cpu" else _FEW_LANES_ON_GPU
        together = self.draft_len is None and len(every) <= few
        drafted = self._draft(session, rows, 1 if together else self._length(ends), together=together)
        if self.bare and not self.tests:
            n = drafted.tokens.shape[1]
            counts = None if n == 1 else torch.minimum(ends, self.lengths(rows, drafted.tokens))
            self._keep_all(rows, drafted, counts)
            return
        states, alive = drafted.states, rows.every
        for j in range(drafted.tokens.shape[1]):
            accepted = self._settle(rows, states, drafted.tokens[:, j], None if j == 0 else alive, j)
            if j + 1 == drafted.tokens.shape[1]:
                break
            alive = alive[accepted & ~rows.ended()[alive] & (j + 1 < ends[alive])]
            if not len(alive):
                break

    def _ends(self, rows: Rows) -> Tensor:
        """Drafts that each row may have: to its horizon and its last position, ``[rows]``."""
        room, horizon = rows.room(), self.row_settings.horizon
        return room if horizon is None else torch.minimum(room, horizon - rows.n_new[: len(rows)] % horizon)

    def _length(self, ends: Tensor) -> int:
        """Drafts of this round: as many as half of the rows have a use for."""
        longest = self.draft_len or self.settings.chunk_len
        return min(longest, int(ends.sort(descending=True).values[(len(ends) - 1) // 2]))

    def _draft(self, session: BankSession, rows: Rows, n: int, *, together: bool) -> _Drafted:
        """Draft ``n`` tokens a row; ``together``: every lane is fed while drafting, so none is left to score."""
        every = session.every_lane()
        drafting = every if together else session.pick(self.component_lanes(rows.component[: len(rows)].tolist()))
        starts = rows.starts(drafting)
        fed = rows.last_tokens(drafting, starts)
        drafts, steps = [], []
        log_probs = torch.empty(len(drafting), n, dtype=torch.float64, device=fed.device)
        for j in range(n):
            session.foresee(rows.reach(j + 1), fresh=True)
            states = session.append(drafting, fed[:, None], starts + j if j else starts)
            drafts.append(self._draw(rows, states, rows.uniforms_at(j, DRAFT), log_probs[:, j]))
            steps.append(states)
            fed = drafts[-1][drafting.rows] if j + 1 < n else fed
        tokens, scored = torch.stack(drafts, dim=1), None
        if not together:
            taken = set(drafting.places.pairs)
            others = session.pick([lane for lane in every.places.pairs if lane not in taken])
            if len(others):
                scored = self.score(session, rows, others, tokens)
        return _Drafted(tokens, States.in_time(steps), scored, log_probs)

    def _draw(self, rows: Rows, states: States, uniforms: Tensor, log_probs: Tensor) -> Tensor:
        """A token of each row's component, ``[rows]``; its log-probability under each lane into ``log_probs``."""
        token = torch.empty_like(rows.every)
        for block in self.blocks(states):
            log_policies = self.log_policies(states, block, 0)
            law = self._components(block, log_policies, rows.component[block.at])
            law = largest_or(self.settings_of(block).greedy, law, law.exp_)
            token[block.at] = drawn = draw(law, uniforms[block.at])
            log_probs[block.entries] = log_policies.gather(1, drawn[block.entry_rows, None])[:, 0].double()
        return token

    def _components(self, block: Block, log_policies: Tensor, component: Tensor) -> Tensor:
        """``log q_i`` of the attribute that each of a block's rows has drawn, ``[n, vocab]``: new memory."""
        if self.bare:  # q_i = pi_i
            return log_policies[block.policy_lines.gather(1, component[:, None])[:, 0]]
        law, strengths = (
            log_policies.new_empty(len(block.rows), log_policies.shape[1]),
            self.settings_of(block).strengths,
        )
        for part in block.parts:
            mine, rows = component[part.rows] == part.attribute, part.rows
            if law.device.type == "cpu" and not bool(mine.any()):
                continue
            log_q = log_component(log_policies, part, strengths[part.attribute])
            law[rows] = torch.where(mine[:, None], log_q, law[rows])
        return law

    def _keep_all(self, rows: Rows, drafted: _Drafted, counts: Tensor | None) -> None:
        """Nothing is truncated: every draft is accepted, up to its chunk's end ``counts [rows]``; ``None``: all."""
        n, others, log_probs = drafted.tokens.shape[1], drafted.others, drafted.log_probs
        if others is not None:
            place = torch.arange(len(others) * n, device=log_probs.device)
            places = torch.stack([place // n, place % n], dim=1)  # (entry, position)
            scored = self.log_probs_at(others, places, drafted.tokens[others.rows].flatten())
            log_probs = torch.cat([log_probs, scored.view(len(others), n)])
        held, size, horizon = drafted.states.places, len(rows), self.row_settings.horizon
        row, branch = held.rows, held.branches
        if counts is None:
            total = log_probs[:, 0]
        else:
            kept = torch.arange(n, device=counts.device) < counts[row, None]  # [lanes, chunk]
            total = torch.where(kept, log_probs, 0.0).sum(1)
        rows.log_probs[row, branch] += total
        if rows.token_log_probs is not None:
            position = rows.n_new[row, None] + torch.arange(n, device=row.device)
            rows.book_tokens(row[:, None], position, branch[:, None], log_probs)
        lanes, mine, attribute = held.policies(self.bank.layout)  # q_i = pi_i
        rows.log_weights[mine, attribute] += total[lanes]
        updated = rows.log_weights[:size].log_softmax(-1)
        rows.write_chunk(drafted.tokens, counts, self.eos_ids)
        if horizon is not None:
            begins = (rows.n_new[:size] % horizon == 0)[:, None]
            updated = torch.where(begins, rows.alphas[:size].log(), updated)
        rows.log_weights[:size] = updated

    def _settle(self, rows: Rows, states: States, drafts: Tensor, alive: Tensor | None, j: int) -> Tensor:
        """Settle draft j of the rows alive (``None``: all); whether each is accepted, ``[alive]`` bool."""
        all_accepted = torch.ones_like(rows.every, dtype=torch.bool)
        uniforms = rows.all_uniforms_at(0)
        test, replacement = uniforms[:, TEST], uniforms[:, REPLACEMENT]
        for block in self.blocks(states, alive):
            log_policies = self.log_policies(states, block, j)
            token = drafts[block.at]
            log_q: list[Tensor] = []
            accepted = torch.ones_like(token, dtype=torch.bool)
            if self.tests:
                target, log_q = self.target(rows, block, log_policies)
                # Of greedy drafts, which follow another law, none but the target's one token passes, whatever q.
                law = mixture_law(log_q, block.parts, rows.log_weights[block.at])
                token, accepted = settle(target, law, token, test[block.at], replacement[block.at])
            self.keep(rows, block, log_policies, token, log_q)
            rows.count_draft(block.at, accepted)
            all_accepted[block.at] = accepted
            rows.component[block.at] = torch.where(accepted, rows.component[block.at], -1)
        return all_accepted if alive is None else all_accepted[alive]
