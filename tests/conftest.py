"""Fixtures shared by the tests: a tiny random Llama with two adapters, made once a session."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Processes share the cores, or OMP_NUM_THREADS where it is given: torch's threads wait by spinning, so that too
    # many take many times as long. Before torch is imported, which reads it once.
    given = os.environ.get("OMP_NUM_THREADS", "")
    shared = int(given) if given.isdecimal() and int(given) else len(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = str(max(1, shared // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))

from mpg import ModelBank
from pipeline.events import OURS
from tests.fakes import tiny_adapter, tiny_llama
from tests.once import unflushed

unflushed()

if "MPG_TEST_DEVICE" in os.environ:  # as `cuda`: banks of files lie there; a test that makes tensors for one may not
    _load, _where = ModelBank.load.__func__, {"device": os.environ["MPG_TEST_DEVICE"]}
    ModelBank.load = classmethod(lambda cls, *args, **options: _load(cls, *args, **_where | options))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A command called in this process sets handlers and levels for good: the next test's are none of its business."""
    root, ours = logging.getLogger(), [logging.getLogger(name) for name in OURS]
    levels, formatters = {each: each.level for each in (root, *ours)}, {each: each.formatter for each in root.handlers}
    yield
    logging.captureWarnings(False)
    for each, level in levels.items():
        each.setLevel(level)
    for each in list(root.handlers):
        if each in formatters:
            each.setFormatter(formatters[each])
        elif "_pytest" not in type(each).__module__:
            root.removeHandler(each)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama") / "base")


@pytest.fixture(scope="session")
def adapters(llama: Path) -> dict[str, Path]:
    return {
        name: tiny_adapter(llama, llama.parent / name, seed=seed, rank=rank)
        for name, seed, rank in (("x", 1, 2), ("y", 2, 3))
    }
