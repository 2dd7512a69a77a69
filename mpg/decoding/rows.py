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
from mpg.models.sending import moved
from mpg.models.states import Entries
from mpg.request import Completion, Request
from mpg.settings import UNTOLD, DecoderSettings

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
        lengths: of each row, ``n_new`` and ``stopped`` as the host last saw them, see :meth:`look`.
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
        self.lengths: list[tuple[int, bool]] = []
        self._longest_prompts: list[int] = []  # of each row, over its branches
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
        self._slots = torch.arange(slots, device=device)

    def __len__(self) -> int:
        return len(self.index)

    # ------------------------------------------------------------------ rows come and go

    def add(self, index: int, request: Request) -> None:
        slot = len(self)
        for table in self._tables:
            table[slot] = 0
        self.index.append(index)
        self.requests.append(request)
        self.lengths.append((0, False))
        self._longest_prompts.append(max(len(own) for own in (request.prompt_ids, *request.prompts.values())))
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
            for branch in range(self.layout.n_branches + 1):
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
        lists: list[list[Any]] = [self.index, self.requests, self.settings_of, self.streams, self.windows]
        for items in (*lists, self.responses, self.lengths, self._longest_prompts):
            items[slot] = items[last]
            items.pop()
        self._forget()

    def _forget(self) -> None:
        """The rows are others: what they are decoded with is to be put together anew, unless all requests are alike."""
        self._row_settings = self._row_settings if self._alike else None

    # ------------------------------------------------------------------ what a round reads

    @property
    def every(self) -> Tensor:
        return self._slots[: len(self)]

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
        starts = self.n_cached()[entries.rows]
        return starts if self.own_prompts is None else starts + self.shift[entries.rows, entries.branches]

    def reach(self, n: int) -> int:
        """A position that no branch reaches with ``n`` tokens from its row's last on: what the host knows of it.

        It holds for what is fed until rows are written, and again after :meth:`look`.
        """
        ends = zip(self._longest_prompts, self.lengths, strict=True)
        return max(prompt + n_new for prompt, (n_new, _) in ends) - 1 + n

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

    def last_tokens(self, entries: Entries, starts: Tensor | None = None) -> Tensor:
        """What each of the given lanes is to be fed next, ``[entries]``: its prompt's own end, then the row's text.

        Args:
            starts: of :meth:`starts`, where it is at hand.
        """
        starts = self.starts(entries) if starts is None else starts
        return self.tokens_at(entries, starts[:, None])[:, 0]

    def room(self) -> Tensor:
        """Tokens each row may still write, ``[rows]``."""
        return self.row_settings().max_new_tokens - self.n_new[: len(self)]

    def uniforms_at(self, offset: int, column: int) -> Tensor:
        """Uniforms of the position ``offset`` after the next one, ``[rows]``; past a row's end zeros."""
        return self.all_uniforms_at(offset)[:, column]

    def all_uniforms_at(self, offset: int) -> Tensor:
        """Of every column, ``[rows, 4]``."""
        position = self.n_new[: len(self)]
        if offset:
            position = (position + offset).clamp_max(self.longest_response)
        return self.uniforms[self.every, position]

    def fresh_uniforms(self, count: int) -> Tensor:
        """The next uniforms of each row's second stream, ``[rows, count]``."""
        taken = [torch.from_numpy(stream.take(count)) for stream in self.streams]
        return moved(torch.stack(taken), self.device)

    def fresh_uniforms_of_responses(self) -> Tensor:
        """Of each row's second stream as many as its longest response has tokens, ``[rows, longest]``; then zeros."""
        counts = [own.max_new_tokens for own in self.settings_of]
        taken = torch.zeros(len(self), max(counts), dtype=torch.float64)
        for row, (stream, count) in enumerate(zip(self.streams, counts, strict=True)):
            taken[row, :count] = torch.from_numpy(stream.take(count))
        return moved(taken, self.device)

    def target_state(self, rows: Tensor | slice) -> TargetState:
        return TargetState(self.alphas[rows], self.log_weights[rows])

    # ------------------------------------------------------------------ what a round writes

    def write(self, rows: Tensor | slice, token: Tensor, eos_ids: Tensor) -> None:
        """One more token for each of ``rows``."""
        place = self.n_prompt[rows] + self.n_new[rows]
        self.tokens[self._slots[rows], place] = token
        _add(self.n_new, rows, 1)
        self.stopped[rows] = torch.isin(token, eos_ids)

    def write_prefix(self, tokens: Tensor, counts: Tensor, eos_ids: Tensor) -> None:
        """The first ``counts [rows]`` of some drafts ``[rows, chunk]``."""
        size, steps = len(self), torch.arange(tokens.shape[1], device=tokens.device)
        place = (self.n_prompt[:size] + self.n_new[:size])[:, None] + steps
        rows = self.every[:, None]
        self.tokens[rows, place] = torch.where(steps < counts[:, None], tokens, self.tokens[rows, place])
        last = tokens.gather(1, (counts[:, None] - 1).clamp_min(0))[:, 0]
        self.stopped[:size] = torch.where(counts > 0, torch.isin(last, eos_ids), self.stopped[:size])
        self.n_new[:size].add_(counts)

    def write_chunk(self, tokens: Tensor, counts: Tensor | None, eos_ids: Tensor) -> None:
        """The same of drafts that were all accepted, with their counts; ``None``: of a chunk of one, which is kept."""
        size, length = len(self), self.settings.chunk_len
        before, every = self.run[:size], slice(0, size)
        if counts is None:
            self.write(every, tokens[:, 0], eos_ids)
            self.count_draft(every, torch.ones_like(self.stopped[:size]))
            return
        self.write_prefix(tokens, counts, eos_ids)
        for table in (self.n_tested, self.n_accepted):
            table[:size].add_(counts)
        # A chunk ends after `chunk_len` drafts: as many begin as multiples of it lie in `run .. run + counts - 1`.
        self.n_chunks[:size].add_((before + counts + length - 1) // length - (before + length - 1) // length)
        self.run[:size] = (before + counts) % length

    def book_tokens(self, rows: Tensor, position: Tensor, branches: Tensor, log_probs: Tensor) -> None:
        """Note terms of ``log_probs``, where they are asked for; the arguments broadcast.

        A draft may be booked before it is known to be kept: what takes its position in the response is booked over it.

        Args:
            position: index within the response; what lies past the longest one is lost.
        """
        assert self.token_log_probs is not None
        place = position.clamp_max(self.longest_response)
        self.token_log_probs[rows, place, branches] = log_probs.double()

    def count_draft(self, rows: Tensor | slice, accepted: Tensor) -> None:
        """Book a settled draft; a chunk ends at a rejection and after ``chunk_len`` drafts."""
        _add(self.n_tested, rows, 1)
        _add(self.n_accepted, rows, accepted)
        before = self.run[rows]
        _add(self.n_chunks, rows, before == 0)
        self.run[rows] = (before + 1) % self.settings.chunk_len * accepted

    def look(self, broken: Tensor | None) -> bool:
        """Bring ``lengths`` up to date, once a round: what a round has to wait for a device for.

        Args:
            broken: ``[1]`` bool, looked at on the way; it is the answer.
        """
        n = len(self)
        flags = [self.n_new[:n], self.stopped[:n], *([] if broken is None else [broken])]
        seen = torch.cat(flags).tolist()
        self.lengths = [(seen[row], bool(seen[n + row])) for row in range(n)]
        return bool(sum(seen[2 * n :]))

    def slots_ended(self) -> list[int]:
        """Of the rows as they were last looked at."""
        each = enumerate(zip(self.lengths, self.settings_of, strict=True))
        return [slot for slot, ((n_new, stopped), own) in each if stopped or n_new >= own.max_new_tokens]

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
        n_tested, untold = int(self.n_tested[slot]), self.layout.untold
        return Completion(
            token_ids=self.response(slot),
            finish_reason=reason,
            log_ratios={name: log_ratios[i] for i, name in attributes},
            log_prob_reference=float(log_probs[0]),
            log_prob_untold=float(log_probs[untold]) if untold is not None and UNTOLD in request.prompts else None,
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


def _add(table: Tensor, rows: Tensor | slice, more: Tensor | int) -> None:
    """``table[rows] += more`` in place, no row twice."""
    if isinstance(rows, slice):
        table[rows].add_(more)
    else:
        table[rows] += more
