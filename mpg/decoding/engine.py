"""The engine: many rows at once, each in a slot that the next request takes as soon as it ends.

What happens in a round is the decoder's own (``mpg.decoding.rounds``); here rows come and go. Random numbers come from
each row's own streams, so a text does not depend on its batch-mates or on the order of arrival.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch

from mpg.decoding.groups import first_of, groups_of
from mpg.decoding.rounds.base import Round
from mpg.decoding.rounds.block import BlockRound
from mpg.decoding.rounds.direct import DirectRound
from mpg.decoding.rounds.lossless import LosslessRound
from mpg.decoding.rounds.mixture import MixtureRound
from mpg.decoding.rounds.routing import RoutingRound
from mpg.decoding.rounds.steered import SoupRound, SteeredRound
from mpg.decoding.rounds.threshold import ThresholdRound
from mpg.decoding.rounds.whole import BestOfN, SequenceRejection
from mpg.decoding.rows import Rows
from mpg.laws.bound import RatioAlarm
from mpg.laws.logspace import NotNumbersError
from mpg.models.bank import ModelBank
from mpg.models.invocation import activation
from mpg.models.lanes import BankSession
from mpg.request import Completion, Request
from mpg.settings import TABLE, DecoderFacts, DecoderSettings, drafter_of, settings_of_each

DEFAULT_BATCH_SIZE = 32
# Prompt tokens fed in one pass, all lanes together: bounds the memory of its activations, and a CPU
# runs 1024 faster than 4096 (they stay nearer to its caches); a GPU is as quick with many at once as with few.
_PREFILL_TOKENS, _PREFILL_TOKENS_ON_GPU = 1024, 16384


def speculative_round(bank: ModelBank, settings: DecoderSettings, alarm: RatioAlarm, *, draft_len: int | None) -> Round:
    """Of ``scr-exact``: who drafts, and how much is judged at a time, are settings of it."""
    kind: type[Round] = BlockRound if settings.verification == "block" else LosslessRound
    if drafter_of(settings) == "mixture":
        kind = MixtureRound
    return kind(bank, settings, alarm, draft_len=draft_len)


def routing_round(bank: ModelBank, settings: DecoderSettings, alarm: RatioAlarm, *, draft_len: int | None) -> Round:
    """Of ``routing``: what is greedy draws no attribute, and takes the largest token of the sum of all."""
    kind: type[Round] = DirectRound if settings.greedy else RoutingRound
    return kind(bank, settings, alarm, draft_len=draft_len)


# What makes a decoder's round: called with (bank, settings, alarm, draft_len=).
ROUNDS: dict[str, Callable[..., Round]] = {
    "reference": DirectRound,
    "prompting": SteeredRound,
    "soup": SoupRound,
    "routing": routing_round,
    "single": DirectRound,
    "mod": DirectRound,
    "pad": DirectRound,
    "drift": DirectRound,
    "scr-exact": speculative_round,
    "scr": ThresholdRound,
    "sequence-rejection": SequenceRejection,
    "best-of-n": BestOfN,
}


@contextlib.contextmanager
def added_decoder(facts: DecoderFacts, round_: Callable[..., Round]) -> Iterator[None]:
    """One decoder more for the length of a ``with`` block: a row of the table and its round.

    For experiments and tests; a decoder that is here to stay has its row in :mod:`mpg.settings` and its line above.

    Raises:
        ValueError: the name is another decoder's.
    """
    if facts.name in TABLE:
        raise ValueError(f"decoder {facts.name!r} is there already; give it another name")
    TABLE[facts.name], ROUNDS[facts.name] = facts, round_
    try:
        yield
    finally:
        del TABLE[facts.name], ROUNDS[facts.name]


def decode(
    bank: ModelBank,
    requests: Iterable[Request],
    settings: DecoderSettings | Sequence[DecoderSettings],
    *,
    batch_size: int = DEFAULT_BATCH_SIZE,
    draft_len: int | None = None,
    on_done: Callable[[int, Completion], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Iterator[Completion]:
    """Decode requests, several rows at a time; completions come in the order of the requests.

    Args:
        settings: one for all, or one for each request. Those that differ in temperature, top-k, top-p, strength,
            horizon and length alone share batches (:func:`mpg.settings.in_common`); others are decoded one group after
            the other.
        batch_size: rows decoded together. It changes speed and memory, never a text (in float32).
        draft_len: tokens that ``scr-exact`` drafts a round, at most ``chunk_len``; ``None``: what is
            fastest. Likewise.
        on_done: called with (index, completion) as soon as a row ends, in the order of ending.
        stop: asked before a row is taken in; once it says yes, the rows in flight are the last completions. Of several
            groups' those are yielded that no undecoded request comes before; ``on_done`` is told of all.

    Raises:
        ValueError: a request that can't be decoded, named by its index, or another number of settings than of requests,
            before any is decoded.
        FloatingPointError: a model's logits are not numbers; it names the request and the attribute
            (:mod:`mpg.decoding.resilient` goes on without the row).
    """
    pending = list(requests)
    each = settings_of_each(settings, len(pending))
    groups = [
        (indices, Engine(bank, [each[i] for i in indices] or settings, batch_size=batch_size, draft_len=draft_len))
        for indices in groups_of(bank, pending, each) or ([[]] if isinstance(settings, DecoderSettings) else [])
    ]
    waiting: dict[int, Completion] = {}
    following = 0
    while groups and (stop is None or not stop()):
        indices, engine = groups.pop(0)  # whose working memory goes with it
        for index, completion in _of_group(engine, pending, indices, stop):
            if on_done is not None:
                on_done(index, completion)
            waiting[index] = completion
            while following in waiting:
                yield waiting.pop(following)
                following += 1


def _of_group(
    engine: Engine, requests: Sequence[Request], indices: Sequence[int], stop: Callable[[], bool] | None
) -> Iterator[tuple[int, Completion]]:
    """What an engine makes of some of the requests, by their own indices."""
    try:
        for place, completion in engine.run([requests[i] for i in indices], stop):
            yield indices[place], completion
    except NotNumbersError as error:
        error.request = indices[error.request]
        raise


class Engine:
    """Continuous batching over a bank, for one setting or for some that go together, one for each request of a run.

    Raises:
        ValueError: no settings, or some that do not go together (:func:`decode` takes any), a batch size below 1, a
            draft length out of range, a decoder that the bank's models can't serve.
    """

    def __init__(
        self,
        bank: ModelBank,
        settings: DecoderSettings | Sequence[DecoderSettings],
        *,
        batch_size: int = DEFAULT_BATCH_SIZE,
        draft_len: int | None = None,
    ) -> None:
        one_each, settings = settings, settings if isinstance(settings, DecoderSettings) else first_of(bank, settings)
        if batch_size < 1:
            raise ValueError(f"batch_size: {batch_size} must be at least 1")
        if draft_len is not None and not 1 <= draft_len <= settings.chunk_len:
            raise ValueError(f"draft_len: {draft_len} must be in 1..{settings.chunk_len} (chunk_len)")
        self.bank, self.settings, self.batch_size = bank, settings, batch_size
        self._one_each, self._each = one_each, [settings]  # of the requests of a run
        self.alarm = RatioAlarm()
        self.round = ROUNDS[settings.name](bank, settings, self.alarm, draft_len=draft_len)
        self._shared: list[int] = []  # per branch, tokens that all of its prompts begin with

    def run(self, requests: list[Request], stop: Callable[[], bool] | None = None) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) in the order in which rows end; see :func:`decode`.

        Raises:
            ValueError: another number of settings than of requests.
        """
        self._each = settings_of_each(self._one_each, len(requests))
        if not requests:
            return
        longest_response = max(own.max_new_tokens for own in self._each)
        longest_own = max((len(own) for request in requests for own in request.prompts.values()), default=0)
        longest = max(longest_own, *(len(request.prompt_ids) for request in requests))
        slots = min(self.batch_size, len(requests))
        # A chat template's own words begin every prompt: they run once a branch.
        self._shared = self._common_lengths(requests)
        # A chunk drafted at the very end of the longest row still has to fit, and a prompt padded to another's width.
        capacity = max(longest + longest_response + self.round.overhang, self._padded_to(requests))
        session = self.bank.session(
            slots,
            capacity,
            needs=[self.round.branches(request) for request in requests],
            one_prompt=not longest_own,
        )
        rows = Rows(
            self._each,
            self.bank.layout,
            slots=slots,
            capacity=capacity,
            device=self.bank.device,
            longest_own_prompt=longest if longest_own else 0,
        )
        queue = itertools.takewhile(lambda _: stop is None or not stop(), enumerate(requests))
        while (ended := self._step(session, rows, queue, slots)) is not None:
            yield from ended
        session.close()  # not after an error: a NaN in its cache would outlive it
        self.alarm.check()

    @torch.inference_mode()  # here and not around the loop: a suspended generator would leave it on for its caller
    def _step(
        self, session: BankSession, rows: Rows, queue: Iterator[tuple[int, Request]], slots: int
    ) -> list[tuple[int, Completion]] | None:
        """One round; the rows that ended in it, or ``None`` when nothing is left to do."""
        self._admit(session, rows, queue, slots)
        if not len(rows):
            return None
        self.round.row_settings = rows.row_settings()
        try:
            self.round.step(session, rows)
            slots_ended = rows.ended().nonzero()[:, 0].tolist()
            if not slots_ended:
                return []
            self.round.finish(session, rows, slots_ended)
        except NotNumbersError as error:
            error.request = rows.index[error.slot]
            raise
        ended, lengths = [], rows.cached_lengths()
        for slot in reversed(slots_ended):
            ended.append((rows.index[slot], rows.completion(slot)))
            session.remove_row(slot, lengths)
            rows.remove(slot)
            lengths[slot] = lengths[-1]
            lengths.pop()
        return ended

    def _admit(self, session: BankSession, rows: Rows, queue: Iterator[tuple[int, Request]], slots: int) -> None:
        """Fill free slots. A prompt, and what all prompts begin with, runs once a branch; other rows copy it."""
        first_new = len(rows)
        for index, request in itertools.islice(queue, slots - len(rows)):
            session.add_row(
                self.round.branches(request),
                self.round.soup(request, self._each[index]),
                prompt_of=request.prompt_of,
                max_new_tokens=self._each[index].max_new_tokens,
            )
            rows.add(index, request)
        if len(rows) == first_new:
            return
        # What a running row holds lies untouched before what it has written since its prompt.
        holders: dict[tuple[tuple[int, ...], int], int] = {}
        any_holder: dict[int, int] = {}
        first, fresh, copies = [], [], []
        for row in range(len(rows)):
            for branch in session.branches_of(row):
                if branch == session.soup:  # soups differ by their weights: each runs its own prompt
                    fresh += [(row, branch, 0)] if row >= first_new else []
                    continue
                holder = holders.setdefault((tuple(rows.prompt_of(row, branch)), branch), row)
                if row < first_new:
                    any_holder.setdefault(branch, row)
                elif holder != row:
                    copies.append((branch, holder, row, len(rows.prompt_of(row, branch)) - 1))
                elif branch not in any_holder:
                    any_holder[branch] = row
                    first.append((row, branch, 0))
                else:
                    fresh.append((row, branch, self._shared[branch]))
        self._prefill(session, rows, first)
        for row, branch, shared in fresh:
            if shared:
                session.copy(branch, any_holder[branch], row, shared)
        self._prefill(session, rows, fresh)
        for branch, source, target, length in copies:
            session.copy(branch, source, target, length)
        new = slice(first_new, len(rows))
        rows.fed[new] = rows.n_prompt[new, None] - 1

    def _prefill(self, session: BankSession, rows: Rows, lanes: Sequence[tuple[int, int, int]]) -> None:
        """Run the prompts of (row, branch, first position) lanes, all but their last tokens."""
        left = [(len(rows.prompt_of(row, branch)) - 1 - first, row, branch, first) for row, branch, first in lanes]
        ordered = sorted(lane for lane in left if lane[0] > 0)
        at_once = _PREFILL_TOKENS if self.bank.device.type == "cpu" else _PREFILL_TOKENS_ON_GPU
        while ordered:
            size = max(1, at_once // (ordered[-1][0] + 1))
            group = ordered[-size:]
            del ordered[-size:]
            start = {(row, branch): first for _, row, branch, first in group}
            entries = session.pick(list(start))
            lanes_in_order = zip(entries.rows.tolist(), entries.branches.tolist(), strict=True)
            starts = torch.tensor([start[lane] for lane in lanes_in_order], device=self.bank.device)
            width = group[-1][0]
            # Padding on the right is written over by the row's own next tokens before it can be seen.
            positions = starts[:, None] + torch.arange(width, device=starts.device)
            session.append(entries, rows.tokens_at(entries, positions), starts)

    def _padded_to(self, requests: Sequence[Request]) -> int:
        """How far a pass over prompts may reach: from where the latest of its lanes begins, as wide as its longest."""
        layout = self.bank.layout
        owners = [layout.owner(branch) for branch in range(layout.n_branches)]
        longest = {name: max(len(request.prompt_of(name)) for request in requests) for name in {None, *owners}}
        widths = [longest[name] - shared for name, shared in zip(owners, self._shared, strict=True)]
        if self.settings.facts.soup:  # it runs its prompt from the beginning
            widths.append(longest[None])
        return max(self._shared) + max(widths)

    def _common_lengths(self, requests: Sequence[Request]) -> list[int]:
        layout = self.bank.layout
        names = {name for request in requests for name in request.prompts}
        lengths = {
            name: _common_length([request.prompt_of(name) for request in requests]) for name in (None, *sorted(names))
        }
        shared = [lengths.get(layout.owner(branch), lengths[None]) for branch in range(layout.n_branches)]
        for branch, invocation in enumerate(self.bank.branch_invocations[: layout.n_branches]):
            if invocation:  # before its adapter is on, and no further: from there on, what a token reads may differ
                name = layout.owner(branch)
                on_from = [
                    activation(name, request.prompt_of(name), invocation)
                    for request in requests
                    if branch in self.round.branches(request)
                ]
                shared[branch] = min([shared[branch], *on_from])
        for branch, positions in enumerate(self.bank.branch_positions[: layout.n_branches]):
            if positions is not None:  # what all prompts begin with is read with different frequencies
                # Here the room is alike in all, see mpg.decoding.groups.
                room, name = self.settings.max_new_tokens, layout.owner(branch)
                if len({positions.frequencies(len(request.prompt_of(name)) + room) for request in requests}) > 1:
                    shared[branch] = 0
        return shared


def _common_length(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with, their last ones left out."""
    first = min(prompts, key=len)
    for i, token in enumerate(first[:-1]):
        if any(prompt[i] != token for prompt in prompts):
            return i
    return len(first) - 1
