"""Decoding that loses no row to another: what fails is found out and set aside, what does not fit is tried smaller.

:func:`mpg.decode` ends at the first error. Here a row whose models do not give numbers fails alone, and a batch that
does not fit into memory is halved; everything else is decoded as if nothing had happened (a row's text does not
depend on its batch-mates, see :mod:`mpg.decoding.engine`).
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from mpg.decoding.engine import DEFAULT_BATCH_SIZE, decode
from mpg.decoding.groups import groups_of
from mpg.decoding.memory import rows_that_fit
from mpg.laws.logspace import NotNumbersError
from mpg.models.bank import ModelBank
from mpg.request import Completion, Request
from mpg.settings import DecoderSettings, settings_of_each

logger = logging.getLogger(__name__)

NOT_FINITE, OUT_OF_MEMORY = "not_finite", "out_of_memory"
_NO_MEMORY = ("out of memory", "can't allocate memory", "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(frozen=True)
class Failure:
    """A row that can't be decoded: ``reason`` is a word, ``message`` says why."""

    reason: str
    message: str


# Full batches that must have fitted at a size before a larger one is tried.
GROWS_AFTER = 8


@dataclass
class BatchSize:
    """How many rows are decoded together: halved when they do not fit, grown when they have fitted for a while.

    It never swings: a size that rows did not fit at is not tried again in this process, nor a larger one, and what is
    tried between it and the last that fitted halves their distance. (Where one row alone was too large, the sizes that
    failed because of it are not held against the others.)

    Attributes:
        now: rows; never more than ``wanted``.
        on_change: called with a new size.
        free: memory for rows, in bytes, asked before the first ones; ``None``, or where it says so: begin with ``now``.
        failed: the smallest size that did not fit; ``None``: there was none.
    """

    wanted: int = DEFAULT_BATCH_SIZE
    now: int = 0
    on_change: Callable[[int], None] | None = None
    free: Callable[[], int | None] | None = None
    failed: int | None = field(default=None, init=False)
    _before: int | None = field(default=None, init=False)  # `failed`, before what one row may be to blame for
    _fitted: int = field(default=0, init=False)  # the largest that a full batch has come out of, below `failed`
    _rows: int = field(default=0, init=False)  # that have come out of full batches of this size

    def __post_init__(self) -> None:
        if self.wanted < 1:
            raise ValueError(f"batch_size: {self.wanted} must be at least 1")
        self.now = min(self.now or self.wanted, self.wanted)

    def begin(self, rows_in: Callable[[int], int]) -> None:
        """Before the first rows: no more than fit into the memory that is free.

        Args:
            rows_in: rows that fit into so many bytes.
        """
        free, self.free = None if self.free is None else self.free(), None
        if free is not None and (rows := rows_in(free)) < self.now:
            self._set(rows, "of the memory that is free")

    def set(self, size: int) -> None:
        """So many rows from now on, since more do not fit."""
        self._set(size, "out of memory")

    def failed_at(self, size: int) -> None:
        """So many rows together did not fit."""
        self.failed = size if self.failed is None else min(size, self.failed)
        if self._fitted >= size:  # of shorter rows
            self._fitted = 0
        self.set(max(size // 2, self._fitted))

    def fitted_at(self, size: int, rows: int) -> None:
        """So many rows came out of batches of a size, and nothing failed: it may grow."""
        if size < self.now:
            return
        self._before, self._fitted = self.failed, max(self._fitted, size)
        self._rows += rows
        above = self.wanted if self.failed is None else min(self.wanted, (self.now + self.failed) // 2)
        larger = min(2 * self.now, above)
        if self._rows >= GROWS_AFTER * self.now and larger > self.now:
            self._set(larger, f"{self._rows} rows have fitted", logging.INFO)

    def was_one_row(self, fitted: int) -> None:
        """What failed last was one row alone: the others go on with ``fitted``, which rows have come out of."""
        self.failed = self._before
        if fitted > self.now:
            self.set(fitted)

    def _set(self, size: int, why: str, level: int = logging.WARNING) -> None:
        said = {"event": "batch_size", "rows": size, "before": self.now}  # for logs that are read by programs
        logger.log(level, "%s: batches of %d rows from now on", why, size, extra={"mpg": said})
        self.now, self._rows = size, 0
        if self.on_change is not None:
            self.on_change(size)


def decode_each(
    bank: ModelBank,
    requests: Sequence[Request],
    settings: DecoderSettings | Sequence[DecoderSettings],
    batch_size: BatchSize,
    *,
    stop: Callable[[], bool] | None = None,
    on_done: Callable[[int], None] | None = None,
) -> Iterator[tuple[int, Completion | Failure]]:
    """Decode every request, or say why it can't be; (index, what became of it), in no particular order.

    Args:
        settings: one for all, or one for each request, see :func:`mpg.decode`.
        batch_size: is halved where rows do not fit into memory, and grown where they do.
        stop: asked before rows are taken in; once it says yes, the rows in flight are the last ones.
        on_done: called with an index as soon as its row has ended, before it is yielded.

    Raises:
        ValueError: a request that is not well-formed, see :func:`mpg.decode`.
    """
    each = settings_of_each(settings, len(requests))
    batch_size.begin(lambda free: rows_that_fit(bank, requests, each, free))
    waiting = groups_of(bank, requests, each)  # of one group the rows in flight are the first: see _after
    fitted = 0  # the largest batch that rows have come out of
    while waiting and not (stop is not None and stop()):
        indices = waiting.pop(0)
        size = min(batch_size.now, len(indices))
        done, error = _attempt(bank, requests, indices, each, batch_size.now, stop, on_done)
        yield from done.items()
        if done:
            fitted = max(fitted, size)
        if error is None:
            batch_size.fitted_at(size, len(done))
        if error is not None:
            left = [i for i in indices if i not in done]
            again, failure = _after(error, left, batch_size, fitted)
            waiting[:0] = again
            if failure is not None:
                if on_done is not None:
                    on_done(left[0])
                yield left[0], failure


def _attempt(
    bank: ModelBank,
    requests: Sequence[Request],
    indices: Sequence[int],
    settings: Sequence[DecoderSettings],
    batch_size: int,
    stop: Callable[[], bool] | None,
    on_done: Callable[[int], None] | None,
) -> tuple[dict[int, Completion], Exception | None]:
    """Decode some of the requests, as far as it goes; what ended, by index, and the error that ended it."""
    done: dict[int, Completion] = {}

    def keep(place: int, completion: Completion) -> None:
        done[indices[place]] = completion
        if on_done is not None:
            on_done(indices[place])

    try:
        asked, own = [requests[i] for i in indices], [settings[i] for i in indices]
        for _ in decode(bank, asked, own, batch_size=batch_size, on_done=keep, stop=stop):
            pass
    except (FloatingPointError, RuntimeError, MemoryError) as error:
        if not isinstance(error, FloatingPointError) and not is_out_of_memory(error):
            raise
        return done, error.with_traceback(None)  # its frames hold the memory
    return done, None


def _after(
    error: Exception, left: list[int], batch_size: BatchSize, fitted: int
) -> tuple[list[list[int]], Failure | None]:
    """What is tried next of the requests left, and why the first of them failed if it is to blame alone.

    Args:
        fitted: the largest batch that rows have come out of.
    """
    # Rows are taken in by their order: those in flight, the cause among them, are the first of what is left.
    flying, rest = left[: batch_size.now], left[batch_size.now :]
    if isinstance(error, FloatingPointError):
        if len(flying) > 1:
            half = len(flying) // 2
            return [flying[:half], flying[half:]] + ([rest] if rest else []), None
        reason = NOT_FINITE
    else:
        give_memory_back()
        if len(flying) > 1:
            batch_size.failed_at(len(flying))
            return [left], None
        reason = OUT_OF_MEMORY
        batch_size.was_one_row(fitted)
    said = error.why if isinstance(error, NotNumbersError) else str(error)  # the request's number was of this try
    failure = Failure(reason, " ".join(said.split()) or type(error).__name__)
    return ([left[1:]] if left[1:] else []), failure


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of a GPU or of the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)


def give_memory_back() -> None:
    """What nobody refers to any more is free again: of this process, and for other processes of a device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
