"""Cells of any settings share batches, and what becomes of a cell does not depend on the cells beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mpg.decoding.engine import Engine
from pipeline.decode.bank import ProcessBank
from pipeline.decode.cells import decode_cells
from pipeline.job.load import load_job
from pipeline.plan.cells import PlannedCell
from pipeline.plan.plan import Plan

GRID = ("personas={kind: one-hot, strengths: [0.5, 1, 2, 4]}", "judges=[]", "decoder.top_p=1.0")


def decoded(handle: ProcessBank, cells: list[PlannedCell], plan: Plan) -> dict[str, Any]:
    return {cell.row_id: row for cell, row in decode_cells(handle, cells, plan.sources)}


def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each round that an engine runs from now on."""
    seen: list[int] = []
    right = Engine._step

    def counted(self: Engine, session: Any, rows: Any, queue: Any, slots: int) -> Any:
        ended = right(self, session, rows, queue, slots)
        if ended is not None:
            seen.append(len(rows) + len(ended))
        return ended

    monkeypatch.setattr(Engine, "_step", counted)
    return seen


@pytest.mark.parametrize("name", ["scr-exact", "mod", "routing"])
def test_a_grid_over_strengths_is_decoded_in_full_batches(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    plan = Plan.of(load_job(job_file, [*GRID, f"decoder.name={name}"]))
    cells, handle = list(plan.cells()), ProcessBank(plan.sources, threads=1, batch_size=24)
    by_strength: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        by_strength.setdefault(repr(sorted(cell.decoder.strength.values())), []).append(cell)  # type: ignore[union-attr]
    assert len(cells) == 24 and len(by_strength) == 4
    seen = steps(monkeypatch)
    together = decoded(handle, cells, plan)
    n_together, first = len(seen), seen[0]
    seen.clear()
    apart: dict[str, Any] = {}
    for group in by_strength.values():
        apart |= decoded(handle, group, plan)
    assert first == 24 and n_together <= len(seen) / 2
    assert together.keys() == apart.keys()
    for row_id, row in together.items():
        books = ("log_prob_reference", "log_ratios")
        assert {k: v for k, v in row.items() if k not in books} == {
            k: v for k, v in apart[row_id].items() if k not in books
        }
        assert row["log_prob_reference"] == pytest.approx(apart[row_id]["log_prob_reference"], abs=1e-4)
        assert row["log_ratios"] == pytest.approx(apart[row_id]["log_ratios"], abs=1e-4)
