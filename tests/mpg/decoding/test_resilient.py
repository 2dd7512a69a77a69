"""One bad row costs itself alone; what does not fit is tried smaller; a stop ends with the rows in flight."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mpg import Completion, DecoderSettings, FunctionModel, ModelBank, Request, decode
from mpg.decoding.resilient import BatchSize, Failure, decode_each, is_out_of_memory
from tests.fakes import tabular_model

BAD = 3  # a prompt that ends so makes the models emit NaN
SETTINGS = DecoderSettings(max_new_tokens=6, chunk_len=2)


def bank(before: Callable[[Tensor], None] | None = None) -> ModelBank:
    """Two attributes over four tokens; ``before`` sees every pass's tokens ``[lanes, length]``."""

    def model(seed: int) -> FunctionModel:
        inner = tabular_model(seed, vocab_size=4)

        def fn(tokens: Tensor) -> Tensor:
            if before is not None:
                before(tokens)
            logits = inner.fn(tokens).clone()
            logits[(tokens[:, 0] == BAD)] = torch.nan
            return logits

        return FunctionModel(fn, vocab_size=4, eos_id=0)

    return ModelBank.from_functions(reference=model(0), attributes={"a": model(1), "b": model(2)})


def requests(n: int, bad: tuple[int, ...] = ()) -> list[Request]:
    return [Request([BAD if i in bad else 1, 1 + i % 2], {"a": 0.5, "b": 0.5}, seed=i) for i in range(n)]


def texts(found: dict[int, Completion | Failure]) -> dict[int, tuple[int, ...]]:
    return {i: each.token_ids for i, each in found.items() if isinstance(each, Completion)}


@pytest.mark.parametrize("bad", [(), (0,), (4,), (10,), (2, 3, 9), tuple(range(11))])
@pytest.mark.parametrize("size", [1, 4, 32])
@pytest.mark.parametrize("name", ["scr-exact", "routing", "scr"])
def test_a_row_without_numbers_fails_alone(name: str, size: int, bad: tuple[int, ...]) -> None:
    settings = DecoderSettings(name=name, max_new_tokens=6, chunk_len=2)
    undisturbed = list(decode(bank(), requests(11), settings, batch_size=4))
    ended: list[int] = []
    found = dict(decode_each(bank(), requests(11, bad), settings, BatchSize(size), on_done=ended.append))
    assert sorted(found) == sorted(ended) == list(range(11))
    assert {i for i, each in found.items() if isinstance(each, Failure)} == set(bad)
    assert {each.reason for each in found.values() if isinstance(each, Failure)} <= {"not_finite"}
    assert texts(found) == {i: c.token_ids for i, c in enumerate(undisturbed) if i not in bad}


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_a_batch_that_does_not_fit_is_halved_and_the_size_remembered(error: Exception) -> None:
    seen: list[int] = []

    def small(tokens: Tensor) -> None:
        seen.append(len(tokens))
        if len(tokens) > 3:
            raise error

    changes: list[int] = []
    size = BatchSize(16, on_change=changes.append)
    found = dict(decode_each(bank(small), requests(11), SETTINGS, size))
    assert size.now == 2 and changes == [5, 2]  # half of the eleven in flight, and so on
    assert texts(found) == {i: c.token_ids for i, c in enumerate(decode(bank(), requests(11), SETTINGS))}
    seen.clear()
    assert len(dict(decode_each(bank(small), requests(5), SETTINGS, size))) == 5
    assert max(seen) <= 3  # nothing is tried again that did not fit
    assert BatchSize(16, now=2).now == 2 and BatchSize(1, now=2).now == 1


def test_a_row_that_does_not_fit_alone_is_set_aside() -> None:
    def never(tokens: Tensor) -> None:
        if bool((tokens[:, 0] == 2).any()):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    asked = requests(5)
    asked[2] = Request([2, 1], {"a": 1.0}, seed=2)
    size = BatchSize(4)
    found = dict(decode_each(bank(never), asked, SETTINGS, size))
    failure = found[2]
    assert isinstance(failure, Failure) and failure.reason == "out_of_memory"
    assert len(texts(found)) == 4
    assert size.now == 2  # that rows had come out of: the others' batches are not 1 for it


def test_other_errors_are_not_swallowed() -> None:
    def broken(tokens: Tensor) -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        dict(decode_each(bank(broken), requests(2), SETTINGS, BatchSize(2)))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


def test_a_stop_ends_with_the_rows_in_flight() -> None:
    undisturbed = list(decode(bank(), requests(40), SETTINGS, batch_size=4))
    ended: list[int] = []
    stopped = decode_each(
        bank(), requests(40), SETTINGS, BatchSize(4), stop=lambda: len(ended) >= 10, on_done=ended.append
    )
    found = dict(stopped)
    assert 10 <= len(found) <= 14 and sorted(found) == list(range(len(found)))
    assert texts(found) == {i: undisturbed[i].token_ids for i in found}
    assert not dict(decode_each(bank(), requests(4), SETTINGS, BatchSize(4), stop=lambda: True))
