"""Planned cells decoded into rows, each for itself: what a worker, a pilot and a verification all do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from mpg.request import Completion, Request
from pipeline.decode.machine import passes_of
from pipeline.decode.requests import RejectedCell, request_of
from pipeline.decode.rows import to_row
from pipeline.plan.cells import PlannedCell, Sources

if TYPE_CHECKING:
    from mpg.decoding.resilient import Failure
    from pipeline.decode.bank import ProcessBank


def decode_cells(
    handle: ProcessBank,
    cells: Iterable[PlannedCell],
    sources: Sources,
    *,
    stop: Callable[[], bool] | None = None,
    on_done: Callable[[], object] | None = None,
) -> Iterator[tuple[PlannedCell, dict[str, Any] | Failure]]:
    """Every cell with its row, or with why it has none; in no particular order.

    Args:
        stop: once it says yes, the cells in flight are the last ones.
        on_done: called for each cell as soon as it has ended.
    """
    from mpg.decoding.resilient import Failure, decode_each

    def done(index: int = 0) -> None:
        if on_done is not None:
            on_done()

    asked: list[tuple[PlannedCell, Request]] = []
    for cell in cells:
        try:
            request = request_of(handle.bank, cell)
        except RejectedCell as error:
            done()
            yield cell, Failure(error.reason, str(error))
        else:
            asked.append((cell, request))
    bank, size = handle.bank, handle.batch_size
    # Settings are rows' own: a grid over strengths or temperatures shares its batches.
    requests, settings = [request for _, request in asked], [cell.decoder for cell, _ in asked]
    with passes_of(handle.threads):
        for index, outcome in decode_each(bank, requests, settings, size, stop=stop, on_done=done):
            cell = asked[index][0]
            yield cell, to_row(bank, cell, outcome, sources) if isinstance(outcome, Completion) else outcome
