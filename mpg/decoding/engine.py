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
from mpg.decoding.prompts import Prompts
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
from mpg.models.lanes import BankSession
from mpg.request import Completion, Request
from mpg.settings import TABLE, DecoderFacts, DecoderSettings, drafter_of, settings_of_each

DEFAULT_BATCH_SIZE = 32


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
        self.bank, self.settings, self.batch_size = bank.under(settings), settings, batch_size
        self._one_each, self._each = one_each, [settings]  # of the requests of a run
        self.alarm = RatioAlarm()
        self.round = ROUNDS[settings.name](self.bank, settings, self.alarm, draft_len=draft_len)

    def run(self, requests: list[Request], stop: Callable[[], bool] | None = None) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) in the order in which rows end; see :func:`decode`.

        Raises:
            ValueError: another number of settings than of requests.
        """
        self._each = settings_of_each(self._one_each, len(requests))
        if not requests:
            return
        longest_response = max(own.max_new_tokens for own in self._each)
        slots = min(self.batch_size, len(requests))
        # Where positions depend on how long a row may become, a run's rows may all become as long.
        prompts = self._prompts = Prompts(self.bank, self.round, requests, max_new_tokens=longest_response, slots=slots)
        session = self.bank.session(
            slots,
            prompts.capacity,
            needs=[self.round.branches(request) for request in requests],
            one_prompt=not prompts.longest_own,
        )
        rows = Rows(
            self._each,
            self.bank.layout,
            slots=slots,
            capacity=prompts.capacity,
            device=self.bank.device,
            longest_own_prompt=prompts.longest if prompts.longest_own else 0,
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
            if rows.look(self.round.broken()):
                self.round.look()
            self.round.seen()
            slots_ended = rows.slots_ended()
            if not slots_ended:
                return []
            self.round.finish(session, rows, slots_ended)
            self.round.look()
        except NotNumbersError as error:
            error.request = rows.index[error.slot]
            raise
        ended, lengths = [], rows.cached_lengths()
        for slot in reversed(slots_ended):
            ended.append((rows.index[slot], rows.completion(slot)))
            self._prompts.leave(session, rows, slot)
            session.remove_row(slot, lengths)
            rows.remove(slot)
            lengths[slot] = lengths[-1]
            lengths.pop()
        return ended

    def _admit(self, session: BankSession, rows: Rows, queue: Iterator[tuple[int, Request]], slots: int) -> None:
        """Fill free slots."""
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
        self._prompts.admit(session, rows, first_new)
        new = slice(first_new, len(rows))
        rows.fed[new] = rows.n_prompt[new, None] - 1
