"""Fixtures shared by the tests: a tiny random Llama with two adapters, made once a session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fakes import tiny_adapter, tiny_llama

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("llama") / "base")


@pytest.fixture(scope="session")
def adapters(llama: Path) -> dict[str, Path]:
    return {
        name: tiny_adapter(llama, llama.parent / name, seed=seed, rank=rank)
        for name, seed, rank in (("x", 1, 2), ("y", 2, 3))
    }
