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
from mpg.models.states import States

# Up to so many lanes, all are fed every token at once: a pass over them takes hardly longer than one over
# the drafting lanes alone, both being bound by reading the weights.
_FEW_LANES = 64


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
        together = self.draft_len is None and len(every) <= _FEW_LANES
        drafted = self._draft(session, rows, 1 if together else self._length(ends), together=together)
        if self.bare and not self.tests:
            self._keep_all(rows, drafted, torch.minimum(ends, self.lengths(rows, drafted.tokens)))
            return
        alive, states = rows.every, drafted.states
        for j in range(drafted.tokens.shape[1]):
            accepted = self._settle(rows, states, drafted.tokens[:, j], alive, j)
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
        pairs, every = self.component_lanes(rows), session.every_lane()
        drafting = every if together else session.pick(pairs)
        starts, fed = rows.starts(drafting), rows.last_tokens(drafting)
        drafts, steps = [], []
        log_probs = torch.empty(len(drafting), n, dtype=torch.float64, device=fed.device)
        for j in range(n):
            states = session.append(drafting, fed[:, None], starts + j)
            drafts.append(self._draw(rows, states, rows.uniforms_at(j, DRAFT), log_probs[:, j]))
            steps.append(states)
            fed = drafts[-1][drafting.rows]
        tokens, scored = torch.stack(drafts, dim=1), None
        if not together:
            taken = set(pairs)
            lanes = zip(every.rows.tolist(), every.branches.tolist(), strict=True)
            others = session.pick([lane for lane in lanes if lane not in taken])
            if len(others):
                scored = self.score(session, rows, others, tokens)
        return _Drafted(tokens, States.in_time(steps), scored, log_probs)

    def _draw(self, rows: Rows, states: States, uniforms: Tensor, log_probs: Tensor) -> Tensor:
        """A token of each row's component, ``[rows]``; its log-probability under each lane into ``log_probs``."""
        component, token = rows.component[: len(rows)], torch.zeros_like(rows.every)
        for block in self.blocks(states, rows.every):
            log_policies = self.log_policies(states, block, 0)
            law, own = log_policies.new_empty(len(block.rows), log_policies.shape[1]), self.settings_of(block)
            for part in block.parts:
                mine = component[block.rows[part.rows]] == part.attribute
                if mine.any():
                    law[part.rows[mine]] = log_component(log_policies, part, own.strengths[part.attribute])[mine]
            law = largest_or(own.greedy, law, law.exp_)
            token[block.rows] = draw(law, uniforms[block.rows])
            drawn = token[block.rows][block.entry_rows]
            log_probs[block.entries] = log_policies.gather(1, drawn[:, None])[:, 0].double()
        return token

    def _keep_all(self, rows: Rows, drafted: _Drafted, counts: Tensor) -> None:
        """Nothing is truncated: every draft is accepted, up to its chunk's end ``counts [rows]``."""
        n, others, log_probs = drafted.tokens.shape[1], drafted.others, drafted.log_probs
        if others is not None:
            places = torch.ones(len(others), n, device=counts.device).nonzero()  # (entry, position)
            scored = self.log_probs_at(others, places, drafted.tokens[others.rows].flatten())
            log_probs = torch.cat([log_probs, scored.view(len(others), n)])
        row, branch = drafted.states.rows, drafted.states.branches
        kept = torch.arange(n, device=counts.device) < counts[row, None]  # [lanes, chunk]
        total = torch.where(kept, log_probs, 0.0).sum(1)
        rows.log_probs[row, branch] += total
        if rows.token_log_probs is not None:
            position = rows.n_new[row, None] + torch.arange(n, device=counts.device)
            rows.book_tokens(row[:, None], position, branch[:, None], log_probs)
        for attribute, policy in enumerate(self.bank.layout.policy):  # q_i = pi_i
            mine = branch == policy
            rows.log_weights[row[mine], attribute] += total[mine]
        size, horizon = len(rows), self.row_settings.horizon
        rows.log_weights[:size] = rows.log_weights[:size].log_softmax(-1)
        for j in range(int(counts.max())):
            alive = (counts > j).nonzero()[:, 0]
            rows.write(alive, drafted.tokens[alive, j], self.eos_ids)
            rows.count_draft(alive, torch.ones_like(alive, dtype=torch.bool))
        if horizon is not None:
            begins = (rows.n_new[:size] % horizon == 0)[:, None]
            rows.log_weights[:size] = torch.where(begins, rows.alphas[:size].log(), rows.log_weights[:size])

    def _settle(self, rows: Rows, states: States, drafts: Tensor, alive: Tensor, j: int) -> Tensor:
        """Settle draft j of the rows alive; whether each is accepted, ``[alive]`` bool."""
        all_accepted = torch.ones(len(rows), dtype=torch.bool, device=alive.device)
        test, replacement = rows.uniforms_at(0, TEST), rows.uniforms_at(0, REPLACEMENT)
        for block in self.blocks(states, alive):
            log_policies = self.log_policies(states, block, j)
            token = drafts[block.rows]
            log_q: list[Tensor] = []
            accepted = torch.ones_like(token, dtype=torch.bool)
            if self.tests:
                target, log_q = self.target(rows, block, log_policies)
                # Of greedy drafts, which follow another law, none but the target's one token passes, whatever q.
                law = mixture_law(log_q, block.parts, rows.log_weights[block.rows])
                token, accepted = settle(target, law, token, test[block.rows], replacement[block.rows])
            self.keep(rows, block, log_policies, token, log_q)
            rows.count_draft(block.rows, accepted)
            all_accepted[block.rows] = accepted
            rows.component[block.rows[~accepted]] = -1
        return all_accepted[alive]
