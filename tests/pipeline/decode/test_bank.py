"""Batch sizes that fitted are remembered by device, and a damaged memory is no obstacle."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.decode.bank import ProcessBank, remember_size, remembered_sizes
from pipeline.job.load import load_job
from pipeline.plan.sources import resolve_sources


def test_sizes_are_kept_by_device(tmp_path: Path) -> None:
    memory = tmp_path / "batch-sizes.json"
    assert remembered_sizes(memory) == {}
    remember_size(memory, "cpu", 8)
    remember_size(memory, "H200", 64)
    remember_size(memory, "cpu", 4)
    assert remembered_sizes(memory) == {"cpu": 4, "H200": 64}


@pytest.mark.parametrize("content", ["", "[1]", '{"cpu": "many"}', "{"])
def test_a_damaged_memory_is_none(tmp_path: Path, content: str) -> None:
    memory = tmp_path / "batch-sizes.json"
    memory.write_text(content)
    assert remembered_sizes(memory) == {}


def test_a_process_begins_with_the_size_that_fitted_before(job_file: Path) -> None:
    sources, memory = resolve_sources(load_job(job_file)), job_file.parent / "batch-sizes.json"
    handle = ProcessBank(sources, threads=1, batch_size=32, memory=memory)
    assert handle.batch_size.now == 32
    device = str(handle.bank.device)
    handle.batch_size.set(16)
    assert remembered_sizes(memory)[device] == 16
    assert ProcessBank(sources, threads=1, batch_size=32, memory=memory).batch_size.now == 16
    assert ProcessBank(sources, threads=1, batch_size=8, memory=memory).batch_size.now == 8
