"""Hashed tf-idf against scikit-learn's own, and its edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfTransformer

from evaluation.features import ngrams

TEXTS = ["I plan the day. I plan the night!", "We wander off, who knows where?", "plan b"]


def test_tfidf_is_scikit_learns_per_block() -> None:
    counts = ngrams.count(TEXTS)
    ours = ngrams.tfidf(counts, ngrams.document_frequency(counts), len(TEXTS))
    for start, stop in ngrams.BLOCKS:
        theirs = TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, start:stop])
        np.testing.assert_allclose(ours[:, start:stop].toarray(), theirs.toarray(), atol=1e-6)


def test_a_text_without_ngrams_is_a_zero_row_and_counts_stay_untouched() -> None:
    counts = ngrams.count(["", *TEXTS])
    before = counts.copy()
    weighted = ngrams.tfidf(counts, ngrams.document_frequency(counts), 4)
    assert weighted[0].nnz == 0 and np.isfinite(weighted.data).all()
    assert (counts != before).nnz == 0


def test_frequencies_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="frequencies"):
        ngrams.tfidf(ngrams.count(TEXTS), np.zeros(3, dtype=np.int64), 3)
