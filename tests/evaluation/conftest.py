"""The real embedder and the shipped judge, loaded once."""

from __future__ import annotations

import pytest

from evaluation.classifier_judge import ClassifierJudge
from evaluation.embedding import SentenceEmbedder


@pytest.fixture(scope="session")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder()


@pytest.fixture(scope="session")
def judge(embedder: SentenceEmbedder) -> ClassifierJudge:
    return ClassifierJudge.load(embedder=embedder)
