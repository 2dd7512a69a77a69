"""The real embedder and the shipped judge, loaded once."""

from __future__ import annotations

import pytest

from evaluation.features.embedding import SentenceEmbedder
from evaluation.judges.classifier import ClassifierJudge


@pytest.fixture(scope="session")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder()


@pytest.fixture(scope="session")
def judge(embedder: SentenceEmbedder) -> ClassifierJudge:
    return ClassifierJudge.load(embedder=embedder)
