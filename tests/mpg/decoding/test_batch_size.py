"""Batches begin with what memory holds, shrink where they must, grow where they may, and never swing."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.decoding.memory import bytes_of_token, free_bytes, rows_that_fit
from mpg.decoding.resilient import GROWS_AFTER, BatchSize, Failure, decode_each
from mpg.models.cache import LaneCache
from tests.fakes import tiny_adapter, tiny_llama
from tests.mpg.decoding.test_resilient import SETTINGS, bank, requests, texts


class Memory:
    """Holds so many rows at a time."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, tokens: Tensor) -> None:
        if len(tokens) > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")


class Noted(BatchSize):
    """Remembers what failed."""

    def __init__(self, wanted: int, changes: list[int]) -> None:
        super().__init__(wanted, on_change=changes.append)
        self.failures: list[int] = []

    def failed_at(self, size: int) -> None:
        self.failures.append(size)
        super().failed_at(size)


@pytest.mark.parametrize(("holds", "wanted"), [(11, 32), (1, 8), (7, 8), (32, 32), (24, 32)])
def test_a_batch_grows_to_what_fits_and_stays_there(holds: int, wanted: int) -> None:
    memory, changes = Memory(holds), list[int]()
    size = Noted(wanted, changes)
    asked = requests(GROWS_AFTER * wanted)
    wanted_texts = {i: c.token_ids for i, c in enumerate(decode(bank(), asked, SETTINGS, batch_size=wanted))}
    small = bank(memory)
    for _ in range(8):
        assert texts(dict(decode_each(small, asked, SETTINGS, size))) == wanted_texts
    assert size.now == min(holds, wanted)
    # A size that did not fit, and any above it, is never tried again: each failure is of a smaller one.
    assert sorted(set(size.failures), reverse=True) == size.failures, size.failures
    before = list(size.failures), list(changes)
    for _ in range(4):
        dict(decode_each(small, asked, SETTINGS, size))
    assert (size.failures, changes) == before


def test_what_is_remembered_is_where_the_next_process_begins_and_it_may_grow(caplog: pytest.LogCaptureFixture) -> None:
    size = BatchSize(8, now=2)
    with caplog.at_level(logging.INFO, "mpg"):
        for _ in range(3):
            dict(decode_each(bank(), requests(4 * GROWS_AFTER), SETTINGS, size))
    assert size.now == 8 and "rows have fitted: batches of 4 rows from now on" in caplog.text
    dict(decode_each(bank(), requests(4 * GROWS_AFTER), SETTINGS, size))
    assert size.now == 8  # never more than the job says


def test_batches_that_were_not_full_say_nothing() -> None:
    size = BatchSize(8, now=4)
    for _ in range(3 * GROWS_AFTER):
        dict(decode_each(bank(), requests(3), SETTINGS, size))
    assert size.now == 4


def test_one_row_that_is_too_large_keeps_no_other_batch_small() -> None:
    def never(tokens: Tensor) -> None:
        if bool((tokens[:, 0] == 2).any()):
            raise torch.OutOfMemoryError("CUDA out of memory.")

    asked = requests(GROWS_AFTER * 8)
    asked[0] = Request([2, 1], {"a": 1.0}, seed=0)  # the first: no batch has fitted before it
    size, small = BatchSize(8), bank(never)
    found = dict(decode_each(small, asked, SETTINGS, size))
    assert isinstance(found[0], Failure) and len(texts(found)) == len(asked) - 1
    for _ in range(5):
        dict(decode_each(small, asked[1:], SETTINGS, size))
    assert size.now == 8


# --------------------------------------------------------------------------- what memory holds


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> ModelBank:
    folder = tmp_path_factory.mktemp("llama")
    base = tiny_llama(folder / "base")
    return ModelBank.load(base, {name: tiny_adapter(base, folder / name, seed=i) for i, name in enumerate("EJ", 1)})


def asked(n: int = 6, prompt: int = 9) -> list[Request]:
    return [Request([1 + i] * prompt, {"E": 0.5, "J": 0.5}, seed=i) for i in range(n)]


def stored(cache: LaneCache) -> int:
    return sum(each.numel() * each.element_size() for each in (*cache._keys, *cache._values))


def test_a_token_takes_what_a_cache_keeps_of_it(llama: ModelBank) -> None:
    settings = DecoderSettings(max_new_tokens=8, chunk_len=4, horizon=4)
    list(decode(llama, asked(), settings, batch_size=6))
    backbone = llama.backbones[0]
    cache, trunk = backbone._spare  # type: ignore[attr-defined]
    assert trunk is None and stored(cache) == cache.lanes * cache.capacity * bytes_of_token(backbone)


def test_rows_follow_from_the_memory_that_is_free(llama: ModelBank) -> None:
    settings = DecoderSettings(max_new_tokens=50, chunk_len=4)
    cache = 64 * (3 + 1) * bytes_of_token(llama.backbones[0])  # 9 + 50 + 4 + 1 positions
    a_row = 1.25 * cache + 4 * llama.vocab_size * 4
    fixed = 6 * 4 * 64 * 2**20 + 16384 * (4 * 32 + 2 * 48) * 4

    def rows(free: float, prompt: int = 9) -> int:
        return rows_that_fit(llama, asked(prompt=prompt), [settings] * 6, int(free))

    assert rows(0) == 1 == rows((fixed + 1.9 * a_row) / 0.9)
    assert rows((fixed + 7.5 * a_row) / 0.9) == 7
    assert rows((fixed + 7.5 * a_row) / 0.9, prompt=10) == 3  # a width of 128
    assert free_bytes(llama) is None


def test_a_batch_begins_with_what_fits_and_never_above_the_jobs(llama: ModelBank) -> None:
    settings, free = DecoderSettings(max_new_tokens=6, chunk_len=2), 2**40
    looked: list[int] = []

    def look() -> int:
        looked.append(1)
        return free

    roomy = BatchSize(4, free=look)
    found = dict(decode_each(llama, asked(), settings, roomy))
    assert roomy.now == 4 and len(looked) == 1
    dict(decode_each(llama, asked(), settings, roomy))
    assert len(looked) == 1  # once, before the first rows
    free = 2**20
    changes: list[int] = []
    narrow = BatchSize(4, free=look, on_change=changes.append)
    assert texts(dict(decode_each(llama, asked(), settings, narrow))) == texts(found)
    assert changes == [1] and narrow.now == 1 and narrow.failed is None
    for _ in range(GROWS_AFTER):  # an estimate is no bound
        dict(decode_each(llama, asked(16), settings, narrow))
    assert narrow.now == 4


def test_the_processor_is_not_asked(llama: ModelBank) -> None:
    size = BatchSize(4, free=lambda: free_bytes(llama))
    dict(decode_each(llama, asked(), DecoderSettings(max_new_tokens=4, chunk_len=2), size))
    assert size.now == 4
