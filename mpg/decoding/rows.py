"""The running rows of an engine: their tokens, random numbers, mixture weights and books, in tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from mpg.decoding.seeding import RowStream
from mpg.laws.bound import Window
from mpg.laws.layout import Layout
from mpg.laws.row_settings import RowSettings
from mpg.laws.target import TargetState, alphas_of
from mpg.models.states import Entries
from mpg.request import Completion, Request
from mpg.settings import DecoderSettings

# A position's own uniforms: for its draft (or its token, where nothing is drafted), for the test of
# that draft, for its replacement, for the component that `routing` draws there.
DRAFT, TEST, REPLACEMENT, ROUTE = range(4)


class Rows:
    """Rows 0..n-1. All tensors have a line per slot; only the first ``len(rows)`` mean anything.

    Args:
        settings: of each request that may come, by its index; they have much in common
            (:func:`mpg.settings.in_common`), which is read from the first.

    Attributes:
        settings_of: of each row; as the laws take them: :meth:`row_settings`.
        longest_response: tokens of the longest that any request may have.
        tokens: prompt and response, ``[slots, capacity]``.
        n_prompt, n_new: tokens of the prompt and of the response so far, ``[slots]``.
        alphas, log_weights: ``[slots, attributes]`` float64, the mixture's at the next position.
        log_probs: summed over the response, per branch ``[slots, branches]`` float64.
        token_log_probs: their terms, ``[slots, max_new_tokens + 1, branches]`` float64, the last position past the end;
            ``None``: nobody asked for them.
        own_prompts: what each branch reads before the response, ``[slots, branches, longest]``; ``None`` where
            every request has one prompt for all.
        shift: how much longer a branch's own prompt is than the row's, ``[slots, branches]``. A token at
            position p of the row stands at ``p + shift`` of the branch.
        fed: tokens each branch has been fed, in positions of the row, ``[slots, branches]``, where branches
            may lag behind.
        component: attribute that a horizon is decoded or drafted from, -1 where none is drawn, ``[slots]``.
    """

    def __init__(
        self,
        settings: Sequence[DecoderSettings],
        layout: Layout,
        *,
        slots: int,
        capacity: int,
        device: torch.device,
        longest_own_prompt: int = 0,
    ) -> None:
        self.settings, self.layout, self.device = settings[0], layout, device
        self._asked, self.settings_of = settings, list[DecoderSettings]()
        self._alike = all(own is settings[0] or own == settings[0] for own in settings)
        self._row_settings: RowSettings | None = None
        self.longest_response = max(own.max_new_tokens for own in settings)
        n, branches = len(layout.attributes), layout.n_branches + 1  # one more: the soup
        self.index: list[int] = []
        self.requests: list[Request] = []
        self.streams: list[RowStream] = []
        self.windows: list[Window] = []
        self.responses: list[list[Any]] = []  # whole responses tried, see mpg.decoding.rounds.whole

        def table(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        self.tokens = table(capacity)
        self.n_prompt, self.n_new, self.component = table(), table(), table()
        self.stopped = table(dtype=torch.bool)
        self.alphas = table(n, dtype=torch.float64)
        self.log_weights = table(n, dtype=torch.float64)
        self.log_probs = table(branches, dtype=torch.float64)
        terms = (self.longest_response + 1, branches)
        self.token_log_probs = table(*terms, dtype=torch.float64) if self.settings.token_log_ratios else None
        self.fed, self.shift = table(branches), table(branches)
        self.own_prompts = table(branches, longest_own_prompt) if longest_own_prompt else None
        self.uniforms = table(self.longest_response + 1, 4, dtype=torch.float64)  # the last: past the end
        self.n_chunks, self.n_tested, self.n_accepted, self.run = table(), table(), table(), table()
        self.tries, self.n_salvaged, self.n_fallbacks = table(), table(), table()
        self._tables = [value for value in vars(self).values() if isinstance(value, Tensor)]

    def __len__(self) -> int:
        return len(self.index)

    # ------------------------------------------------------------------ rows come and go

    def add(self, index: int, request: Request) -> None:
        slot = len(self)
        for table in self._tables:
            table[slot] = 0
        self.index.append(index)
        self.requests.append(request)
        self.settings_of.append(self._asked[index])
        self._forget()
        self.windows.append(Window(self.settings.window))
        self.responses.append([])
        # Positions have uniforms of their own; rounds of varying number take from a second stream.
        count = self.settings_of[slot].max_new_tokens
        self.uniforms[slot, :count] = torch.from_numpy(RowStream(request.seed).take(4 * count).reshape(count, 4))
        self.streams.append(RowStream(request.seed, stream=1))
        self.component[slot] = -1
        prompt = torch.tensor(list(request.prompt_ids), device=self.device)
        self.tokens[slot, : len(prompt)] = prompt
        self.n_prompt[slot] = len(prompt)
        if self.own_prompts is not None:
            for branch in range(self.layout.n_branches):
                own = torch.tensor(list(self.prompt_of(slot, branch)), device=self.device)
                self.own_prompts[slot, branch, : len(own)] = own
                self.shift[slot, branch] = len(own) - len(prompt)
        alphas = alphas_of(request.weights, self.layout.attributes, self.settings)
        self.alphas[slot] = alphas
        self.log_weights[slot] = alphas.log()

    def remove(self, slot: int) -> None:
        """Drop a row; the last one takes its place."""
        last = len(self) - 1
        for table in self._tables:
            table[slot] = table[last]
        for items in (self.index, self.requests, self.settings_of, self.streams, self.windows, self.responses):
            items[slot] = items[last]  # type: ignore[assignment]
            items.pop()
        self._forget()

    def _forget(self) -> None:
        """The rows are others: what they are decoded with is to be put together anew, unless all requests are alike."""
        self._row_settings = self._row_settings if self._alike else None

    # ------------------------------------------------------------------ what a round reads

    @property
    def every(self) -> Tensor:
        return torch.arange(len(self), device=self.device)

    def row_settings(self) -> RowSettings:
        """What the rows are decoded with; made on the host, once for each coming and going of rows."""
        if self._row_settings is None:
            mixed: dict[str, Any] = {} if self._alike else {"carried": [request.weights for request in self.requests]}
            settings = self.settings_of[:1] if self._alike else self.settings_of
            self._row_settings = RowSettings.of(settings, self.layout.attributes, device=self.device, **mixed)
        return self._row_settings

    def prompt_of(self, slot: int, branch: int) -> Sequence[int]:
        """What a branch of a row reads before the response."""
        return self.requests[slot].prompt_of(self.layout.owner(branch))

    def starts(self, entries: Entries) -> Tensor:
        """Position of each row's last token in each of the given lanes, ``[entries]``."""
        return self.n_cached()[entries.rows] + self.shift[entries.rows, entries.branches]

    def tokens_at(self, entries: Entries, positions: Tensor) -> Tensor:
        """Tokens of lanes at positions ``[entries, n]`` of the lanes themselves, prompts included.

        Past what is written, any tokens: where lanes are fed together, the shorter ones are padded with them.
        """
        rows, branches = entries.rows[:, None], entries.branches[:, None]
        if self.own_prompts is None:
            return self.tokens[rows, positions]
        in_row = positions - self.shift[rows, branches]
        own = self.own_prompts[rows, branches, positions.clamp_max(self.own_prompts.shape[2] - 1)]
        return torch.where(
            in_row < self.n_prompt[rows], own, self.tokens[rows, in_row.clamp(0, self.tokens.shape[1] - 1)]
        )

    def cached_lengths(self) -> list[list[int]]:
        """Tokens whose keys and values are kept, of every row and branch."""
        return (self.n_cached()[:, None] + self.shift[: len(self)]).tolist()

    def n_cached(self) -> Tensor:
        """Tokens whose keys and values are kept, all but the last one, ``[rows]``."""
        return (self.n_prompt + self.n_new - 1)[: len(self)]

    def last_tokens(self, entries: Entries) -> Tensor:
        """What each of the given lanes is to be fed next, ``[entries]``: its prompt's own end, then the row's text."""
        return self.tokens_at(entries, self.starts(entries)[:, None])[:, 0]

    def room(self) -> Tensor:
        """Tokens each row may still write, ``[rows]``."""
        return self.row_settings().max_new_tokens - self.n_new[: len(self)]

    def uniforms_at(self, offset: int, column: int) -> Tensor:
        """Uniforms of the position ``offset`` after the next one, ``[rows]``; past a row's end zeros."""
        position = (self.n_new[: len(self)] + offset).clamp_max(self.longest_response)
        return self.uniforms[self.every, position, column]

    def fresh_uniforms(self, count: int) -> Tensor:
        """The next uniforms of each row's second stream, ``[rows, count]``."""
        taken = [torch.from_numpy(stream.take(count)) for stream in self.streams]
        return torch.stack(taken).to(self.device)

    def fresh_uniforms_of_responses(self) -> Tensor:
        """Of each row's second stream as many as its longest response has tokens, ``[rows, longest]``; then zeros."""
        counts = [own.max_new_tokens for own in self.settings_of]
        taken = torch.zeros(len(self), max(counts), dtype=torch.float64)
        for row, (stream, count) in enumerate(zip(self.streams, counts, strict=True)):
            taken[row, :count] = torch.from_numpy(stream.take(count))
        return taken.to(self.device)

    def target_state(self, rows: Tensor) -> TargetState:
        return TargetState(self.alphas[rows], self.log_weights[rows])

    # ------------------------------------------------------------------ what a round writes

    def write(self, rows: Tensor, token: Tensor, eos_ids: Tensor) -> None:
        """One more token for each of ``rows``."""
        self.tokens[rows, self.n_prompt[rows] + self.n_new[rows]] = token
        self.n_new[rows] += 1
        self.stopped[rows] = torch.isin(token, eos_ids)

    def book_tokens(self, rows: Tensor, position: Tensor, branches: Tensor, log_probs: Tensor) -> None:
        """Note terms of ``log_probs``, where they are asked for; the arguments broadcast.

        A draft may be booked before it is known to be kept: what takes its position in the response is booked over it.

        Args:
            position: index within the response; what lies past the longest one is lost.
        """
        assert self.token_log_probs is not None
        place = position.clamp_max(self.longest_response)
        self.token_log_probs[rows, place, branches] = log_probs.double()

    def count_draft(self, rows: Tensor, accepted: Tensor) -> None:
        """Book a settled draft; a chunk ends at a rejection and after ``chunk_len`` drafts."""
        self.n_tested[rows] += 1
        self.n_accepted[rows] += accepted.long()
        self.n_chunks[rows] += (self.run[rows] == 0).long()
        run = self.run[rows] + 1
        self.run[rows] = torch.where(accepted & (run < self.settings.chunk_len), run, torch.zeros_like(run))

    def ended(self) -> Tensor:
        """``[rows]`` bool."""
        return self.stopped[: len(self)] | (self.room() <= 0)

    def response(self, slot: int) -> tuple[int, ...]:
        start = int(self.n_prompt[slot])
        return tuple(self.tokens[slot, start : start + int(self.n_new[slot])].tolist())

    def completion(self, slot: int) -> Completion:
        facts, request = self.settings.facts, self.requests[slot]
        reason: Literal["stop", "length"] = "stop" if self.stopped[slot] else "length"
        scored: Sequence[str] = tuple(request.weights) if facts.weighted else ()
        attributes = [(i, name) for i, name in enumerate(self.layout.attributes) if name in scored]
        log_probs, terms = self.log_probs[slot].cpu(), None
        log_ratios = self.layout.log_ratios(log_probs).tolist()
        if self.token_log_probs is not None:
            by_token = self.layout.log_ratios(self.token_log_probs[slot, : int(self.n_new[slot])].cpu())
            terms = {name: tuple(by_token[:, i].tolist()) for i, name in attributes}
        n_tested = int(self.n_tested[slot])
        return Completion(
            token_ids=self.response(slot),
            finish_reason=reason,
            log_ratios={name: log_ratios[i] for i, name in attributes},
            log_prob_reference=float(log_probs[0]),
            exact=facts.exact,
            acceptance_rate=int(self.n_accepted[slot]) / n_tested if n_tested else None,
            n_chunks=int(self.n_chunks[slot]),
            n_clipped=self.windows[slot].n_clipped,
            n_salvaged=int(self.n_salvaged[slot]),
            n_fallbacks=int(self.n_fallbacks[slot]),
            tv_bound=self._tv_bound(slot),
            token_log_ratios=terms,
        )

    def _tv_bound(self, slot: int) -> float | None:
        facts = self.settings.facts
        if facts.exact:
            return 0.0
        unbounded = facts.tv_bound_ends is not None and int(getattr(self, facts.tv_bound_ends)[slot]) > 0
        return None if unbounded else self.windows[slot].tv_bound
