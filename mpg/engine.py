"""The engine: drafts, verifies and keeps chunks for many rows at once.

A round, for all rows in the slots together: the reference drafts a chunk token by token; one pass
scores it under every branch; the decoder's verdict keeps part of it; the caches are rolled back to
what was kept, which is a matter of where the next round starts to write. A row that has ended leaves
its slot to the next request at once. Random numbers come from each row's own stream, a fixed count a
round, so a text does not depend on its batch-mates or on the order of arrival.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from mpg.bank import BankSession, ModelBank, States
from mpg.logspace import draw, log_policy, truncate
from mpg.rows import Rows
from mpg.settings import Completion, DecoderSettings, Request, check_request
from mpg.target import follow, log_components, log_product, log_ratios, mixture
from mpg.threshold import RatioAlarm
from mpg.verify import accept_token, accepted_prefix, residual

DEFAULT_BATCH_SIZE = 32


def decode(
    bank: ModelBank,
    requests: Iterable[Request],
    settings: DecoderSettings,
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_done: Callable[[int, Completion], None] | None = None,
) -> Iterator[Completion]:
    """Decode requests, several rows at a time; completions come in the order of the requests.

    Args:
        batch_size: rows decoded together. It changes speed and memory, never a text (in float32).
        on_done: called with (index, completion) as soon as a row ends, in the order of ending.

    Raises:
        ValueError: a request that can't be decoded, named by its index, before any is decoded.
    """
    pending = list(requests)
    for index, request in enumerate(pending):
        try:
            check_request(request, bank.attributes, settings)
        except ValueError as error:
            raise ValueError(f"request {index}: {error}") from None
    waiting: dict[int, Completion] = {}
    following = 0
    for index, completion in Engine(bank, settings, batch_size=batch_size).run(pending):
        if on_done is not None:
            on_done(index, completion)
        waiting[index] = completion
        while following in waiting:
            yield waiting.pop(following)
            following += 1


class Engine:
    """Continuous batching over a bank for one setting."""

    def __init__(self, bank: ModelBank, settings: DecoderSettings, *, batch_size: int = DEFAULT_BATCH_SIZE) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} must be at least 1")
        self.bank, self.settings, self.batch_size = bank, settings, batch_size
        self.strengths = [settings.strength_of(a) for a in bank.attributes]
        self.alarm = RatioAlarm()
        self._round = {"reference": self._reference, "scr-exact": self._lossless, "scr": self._threshold}[settings.name]

    def run(self, requests: list[Request]) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) in the order in which rows end."""
        if not requests:
            return
        longest = max(len(request.prompt_ids) for request in requests)
        # A chunk drafted at the very end of the longest row still has to fit.
        capacity = longest + self.settings.max_new_tokens + self.settings.chunk_len + 1
        slots = min(self.batch_size, len(requests))
        session = self.bank.session(slots, capacity)
        rows = Rows(self.settings, self.bank.attributes, self.bank.device)
        queue = iter(enumerate(requests))
        while (ended := self._step(session, rows, queue, slots)) is not None:
            yield from ended
        self.alarm.check()

    @torch.inference_mode()  # here and not around the loop: a suspended generator would leave it on for its caller
    def _step(
        self, session: BankSession, rows: Rows, queue: Iterator[tuple[int, Request]], slots: int
    ) -> list[tuple[int, Completion]] | None:
        """One round; the rows that ended in it, or ``None`` when nothing is left to do."""
        self._admit(session, rows, queue, slots)
        if not rows:
            return None
        self._round(session, rows)
        ended = []
        for slot in reversed(range(len(rows))):
            if rows.is_done(rows.rows[slot]):
                ended.append((rows.rows[slot].index, rows.completion(slot)))
                last = len(rows) - 1
                if slot != last:
                    session.copy(last, slot)
                    rows.move(last, slot)
                rows.drop_last()
        return ended

    def _admit(self, session: BankSession, rows: Rows, queue: Iterator[tuple[int, Request]], slots: int) -> None:
        """Fill free slots. Each distinct prompt runs once, all but its last token; other rows copy its cache."""
        entries = list(itertools.islice(queue, slots - len(rows)))
        slot_of = {tuple(row.request.prompt_ids): slot for slot, row in enumerate(rows.rows)}
        first: dict[tuple[int, ...], tuple[int, Request]] = {}
        repeated = []
        for entry in entries:
            prompt = tuple(entry[1].prompt_ids)
            if prompt in slot_of or prompt in first:
                repeated.append(entry)
            else:
                first[prompt] = entry
        start = len(rows)
        for prompt, entry in first.items():
            slot_of[prompt] = len(rows)
            rows.add(*entry)
        self._prefill(session, list(first), start)
        for entry in repeated:
            # A running row's prompt lies untouched before what it has written since.
            session.copy(slot_of[tuple(entry[1].prompt_ids)], len(rows))
            rows.add(*entry)

    def _prefill(self, session: BankSession, prompts: Sequence[tuple[int, ...]], start: int) -> None:
        """Run prompts, all but their last tokens, in the slots from ``start`` on."""
        width = max((len(prompt) - 1 for prompt in prompts), default=0)
        if width == 0:
            return
        # Padding on the right is written over by the row's own next tokens before it can be seen.
        padded = [[*prompt[:-1], *[0] * (width + 1 - len(prompt))] for prompt in prompts]
        tokens = torch.tensor(padded, device=self.bank.device)  # [prompts, width]
        starts = torch.zeros(len(prompts), dtype=torch.long, device=self.bank.device)
        slots = slice(start, start + len(prompts))
        session.append(slots, tokens, starts, reference_only=self.settings.name == "reference")

    # ------------------------------------------------------------------ the parts of a round

    def _draft(
        self, session: BankSession, rows: Rows, uniforms: Tensor, *, truncated: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Draft a chunk from the reference.

        Args:
            uniforms: ``[rows, chunk]``.
            truncated: whether the draft law q is cut by top-k/top-p as the target is (any q is
                lossless; the cut one is accepted more often) or is ``pi_0`` itself.

        Returns:
            drafts ``[rows, chunk]``; per position, q ``[rows, vocab]`` and ``log pi_0`` of the draft
            ``[rows]``.
        """
        token, starts = rows.last_tokens(), rows.starts()
        drafts, laws, log_probs = [], [], []
        for j in range(uniforms.shape[1]):
            states = session.append(slice(0, len(rows)), token[:, None], starts + j, reference_only=True)
            log_pi0 = log_policy(states.logits(slice(None), 0)[0], self.settings.temperature)  # [rows, vocab]
            law = log_pi0.exp()
            if truncated:
                law = self._truncate(law)
            token = draw(law, uniforms[:, j])
            drafts.append(token)
            laws.append(law)
            log_probs.append(log_pi0.gather(1, token[:, None])[:, 0])
        return torch.stack(drafts, dim=1), laws, log_probs

    def _score(self, session: BankSession, rows: Rows, drafts: Tensor) -> States:
        """One pass of every branch over the last kept token and the chunk."""
        tokens = torch.cat([rows.last_tokens()[:, None], drafts], dim=1)  # [rows, 1 + chunk]
        return session.append(slice(0, len(rows)), tokens, rows.starts())

    def _truncate(self, law: Tensor) -> Tensor:
        if not self.settings.truncates:
            return law
        return truncate(law, top_k=self.settings.top_k, top_p=self.settings.top_p)

    def _target(self, log_policies: Tensor, alphas: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor | None]:
        """Target law ``[rows, vocab]`` and, for the sum, the components ``[attributes, rows, vocab]``."""
        layout = self.bank.layout
        if self.settings.aggregate == "product":
            return self._truncate(log_product(log_policies, layout, alphas, self.strengths).exp()), None
        log_q = log_components(log_policies, layout, self.strengths)
        return self._truncate(mixture(log_q, log_weights)), log_q

    def _room(self, rows: Rows) -> Tensor:
        """Tokens each row may still write, ``[rows]``."""
        return self.settings.max_new_tokens - rows.offsets()

    # ------------------------------------------------------------------ decoders

    def _reference(self, session: BankSession, rows: Rows) -> None:
        """Tokens of ``pi_0``: a chunk of drafts, all kept."""
        chunk = self.settings.chunk_len
        drafts, _, log_probs = self._draft(session, rows, rows.uniforms(chunk), truncated=True)
        for slot, row in enumerate(rows.rows):
            kept = self._until_end(drafts[slot].tolist(), self.settings.max_new_tokens - len(row.tokens))
            rows.extend(row, kept, self.bank.eos_ids)
            row.n_chunks += 1
            rows.log_prob_reference[slot] += sum(float(log_probs[j][slot]) for j in range(len(kept)))

    def _lossless(self, session: BankSession, rows: Rows) -> None:
        """Speculative sampling of the target (Leviathan et al. 2023; Chen et al. 2023)."""
        chunk, temperature = self.settings.chunk_len, self.settings.temperature
        uniforms = rows.uniforms(2 * chunk + 1)  # chunk drafts, chunk tests, one replacement or bonus
        drafts, laws, _ = self._draft(session, rows, uniforms[:, :chunk], truncated=True)
        states = self._score(session, rows, drafts)
        offsets, room, log_alphas = rows.offsets(), self._room(rows), rows.log_alphas
        kept: list[list[int]] = [[] for _ in rows.rows]
        alive = torch.arange(len(rows), device=self.bank.device)
        for j in range(chunk + 1):
            log_policies = log_policy(states.logits(alive, j), temperature)  # [branches, alive, vocab]
            target, log_q = self._target(log_policies, rows.alphas[alive], rows.log_weights[alive])
            if j < chunk:
                draft, law = drafts[alive, j], laws[j][alive]
                wanted, proposed = (p.gather(1, draft[:, None])[:, 0] for p in (target, law))
                accepted = accept_token(wanted, proposed, uniforms[alive, chunk + j])
                token = draft.clone()
                rejected = (~accepted).nonzero()[:, 0]
                if len(rejected):
                    rest = residual(target[rejected], law[rejected])
                    token[rejected] = draw(rest, uniforms[alive[rejected], 2 * chunk])
            else:
                accepted = torch.zeros_like(alive, dtype=torch.bool)
                token = draw(target, uniforms[alive, 2 * chunk])

            ratios, log_pi0 = self._picked(log_policies, token)
            rows.log_ratios[alive] += ratios
            rows.log_prob_reference[alive] += log_pi0
            rows.log_weights[alive] = self._followed(
                rows.log_weights[alive], log_alphas[alive], log_q, token, offsets[alive] + j
            )
            ended = (j + 1 >= room[alive]).tolist()
            for i, (slot, t, ok) in enumerate(zip(alive.tolist(), token.tolist(), accepted.tolist(), strict=True)):
                kept[slot].append(t)
                rows.rows[slot].n_tested += j < chunk
                rows.rows[slot].n_accepted += ok
                ended[i] = ended[i] or not ok or t in self.bank.eos_ids
            alive = alive[~torch.tensor(ended, device=alive.device)]
            if not len(alive):
                break
        for slot, row in enumerate(rows.rows):
            rows.extend(row, kept[slot], self.bank.eos_ids)
            row.n_chunks += 1

    def _threshold(self, session: BankSession, rows: Rows) -> None:
        """The paper's chunk-level rejection: keep a chunk with probability ``min(1, R / M)``."""
        chunk, temperature = self.settings.chunk_len, self.settings.temperature
        uniforms = rows.uniforms(chunk + 2)  # chunk drafts, one test, one fallback token
        drafts, _, log_pi0 = self._draft(session, rows, uniforms[:, :chunk], truncated=False)
        states = self._score(session, rows, drafts)
        n, device = len(rows), self.bank.device
        offsets, log_alphas = rows.offsets(), rows.log_alphas
        # A chunk ends at its EOS and at the row's last position; what was drafted behind is no part of it.
        ends = [
            len(self._until_end(drafts[slot].tolist(), room)) for slot, room in enumerate(self._room(rows).tolist())
        ]
        lengths = torch.tensor(ends, device=device)
        log_weights = [rows.log_weights]
        log_r = torch.zeros(n, dtype=torch.float64, device=device)
        prefix_log_r, prefix_ratios, prefix_log_pi0 = [], [torch.zeros_like(rows.log_ratios)], [torch.zeros_like(log_r)]
        fallback = torch.zeros(n, dtype=torch.long, device=device)
        first_policies: Tensor | None = None
        first_q: Tensor | None = None
        every = torch.arange(n, device=device)
        for j in range(max(ends)):
            log_policies = log_policy(states.logits(every, j), temperature)  # [branches, rows, vocab]
            target, log_q = self._target(log_policies, rows.alphas, log_weights[-1])
            if j == 0:
                fallback, first_policies, first_q = draw(target, uniforms[:, chunk + 1]), log_policies, log_q
            inside = j < lengths  # [rows]
            token = drafts[:, j]
            log_target = target.gather(1, token[:, None])[:, 0].log()
            log_r = torch.where(inside, log_r + log_target.double() - log_pi0[j].double(), log_r)
            prefix_log_r.append(log_r)
            ratios, pi0 = self._picked(log_policies, token)
            prefix_ratios.append(prefix_ratios[-1] + ratios)
            prefix_log_pi0.append(prefix_log_pi0[-1] + pi0)
            log_weights.append(self._followed(log_weights[-1], log_alphas, log_q, token, offsets + j))
        assert first_policies is not None
        bounds = torch.tensor([math.log(row.window.bound) for row in rows.rows], dtype=torch.float64, device=device)
        keep = accepted_prefix(
            torch.stack(prefix_log_r, dim=1), bounds, uniforms[:, chunk].log(), salvage=self.settings.salvage
        )
        keep = torch.minimum(keep, lengths)
        fallback_ratios, fallback_pi0 = self._picked(first_policies, fallback)
        fallback_weights = self._followed(log_weights[0], log_alphas, first_q, fallback, offsets)
        next_weights = rows.log_weights.clone()
        for slot, row in enumerate(rows.rows):
            ratio = math.exp(float(log_r[slot]))
            row.window.record(ratio)
            self.alarm.record(ratio)
            row.n_chunks += 1
            row.n_tested += 1
            m = int(keep[slot])
            if m:
                row.tries = 0
                row.n_accepted += m == ends[slot]
                row.n_salvaged += m < ends[slot]
                rows.extend(row, drafts[slot, :m].tolist(), self.bank.eos_ids)
                rows.log_ratios[slot] += prefix_ratios[m][slot]
                rows.log_prob_reference[slot] += prefix_log_pi0[m][slot]
                next_weights[slot] = log_weights[m][slot]
                continue
            row.tries += 1
            if row.tries >= self.settings.max_tries:
                # One token of the target itself: a restart has no memory, so this adds no bias.
                row.tries = 0
                row.n_fallbacks += 1
                rows.extend(row, [int(fallback[slot])], self.bank.eos_ids)
                rows.log_ratios[slot] += fallback_ratios[slot]
                rows.log_prob_reference[slot] += fallback_pi0[slot]
                next_weights[slot] = fallback_weights[slot]
        rows.log_weights = next_weights

    def _picked(self, log_policies: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """``log r_i`` ``[rows, attributes]`` and ``log pi_0`` ``[rows]`` of one token a row, float64."""
        picked = log_policies.gather(2, token[None, :, None].expand(len(log_policies), -1, 1))  # [branches, rows, 1]
        return log_ratios(picked, self.bank.layout)[:, :, 0].T.double(), picked[0, :, 0].double()

    def _followed(
        self, log_weights: Tensor, log_alphas: Tensor, log_q: Tensor | None, token: Tensor, position: Tensor
    ) -> Tensor:
        """The mixture's weights after one token a row; the product has none to follow."""
        if log_q is None:
            return log_weights
        log_q_token = log_q.gather(2, token[None, :, None].expand(len(log_q), -1, 1))[:, :, 0].T
        return follow(log_weights, log_alphas, log_q_token, position, self.settings.horizon)

    def _until_end(self, tokens: list[int], room: int) -> list[int]:
        """Tokens up to the first EOS and at most ``room`` of them."""
        for i, token in enumerate(tokens[:room]):
            if token in self.bank.eos_ids:
                return tokens[: i + 1]
        return tokens[:room]
