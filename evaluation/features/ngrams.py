"""Hashed word and character n-grams with tf-idf: features that keep no vocabulary.

Hashing (Weinberger et al. 2009, arXiv 0902.2206) needs no dictionary, so the shipped weights
hold not one word of the texts that they were fitted on. Pure functions, stateless vectorizers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from sklearn.feature_extraction.text import HashingVectorizer

# Bucket counts: about 30,000 distinct word and 20,000 character n-grams occur in one dimension's
# answers; a larger table did not help the cross-validated accuracy on the train split.
N_WORD, N_CHAR = 2**15, 2**16
BLOCKS = ((0, N_WORD), (N_WORD, N_WORD + N_CHAR))  # each is scaled to length 1 of its own
N_FEATURES = N_WORD + N_CHAR
# What the weights were fitted with; written on the card and compared when they are loaded.
RECIPE: dict[str, Any] = {
    "words": {"ngram_range": [1, 2], "n_features": N_WORD, "token_pattern": r"(?u)\b\w+\b|[!?]"},
    "chars": {"analyzer": "char_wb", "ngram_range": [2, 5], "n_features": N_CHAR},
}


def _vectorizer(settings: dict[str, Any]) -> Any:
    keywords = settings | {"ngram_range": tuple(settings["ngram_range"])}
    return HashingVectorizer(alternate_sign=False, norm=None, dtype=np.float32, **keywords)


def count(texts: Sequence[str]) -> sp.csr_matrix:
    """Occurrences of hashed n-grams: float32 [len(texts), N_FEATURES], words first, then characters."""
    blocks = [_vectorizer(RECIPE[name]).transform(texts) for name in ("words", "chars")]
    return sp.csr_matrix(sp.hstack(blocks))


def document_frequency(counts: sp.csr_matrix) -> np.ndarray:
    """In how many rows each feature occurs: int64 [N_FEATURES]."""
    return np.asarray((counts > 0).sum(axis=0), dtype=np.int64).ravel()


def tfidf(counts: sp.csr_matrix, frequency: np.ndarray, n_documents: int) -> sp.csr_matrix:
    """Sublinear tf times smooth idf, each block's rows of length 1: float32 [rows, N_FEATURES].

    ``tf = 1 + log(count)``, ``idf = log((1 + n) / (1 + df)) + 1`` (the smoothed form of
    scikit-learn's TfidfTransformer). Rows without any n-gram of a block stay zero there.

    Args:
        counts: as ``count`` returns them, [rows, N_FEATURES].
        frequency: [N_FEATURES], of the fitting texts.
        n_documents: how many fitting texts there were.
    """
    if counts.shape[1] != N_FEATURES or frequency.shape != (N_FEATURES,):
        raise ValueError(f"{counts.shape[1]} features and {frequency.shape} frequencies, not {N_FEATURES}")
    idf = np.log((1.0 + n_documents) / (1.0 + frequency.astype(np.float64))) + 1.0  # [N_FEATURES]
    weighted = counts.astype(np.float64)  # a copy: the caller's counts stay as they are
    weighted.data = (1.0 + np.log(weighted.data)) * idf[weighted.indices]
    parts = []
    for start, stop in BLOCKS:
        block = weighted[:, start:stop]
        norms = np.sqrt(np.asarray(block.multiply(block).sum(axis=1)).ravel())  # [rows]
        parts.append(sp.diags(1.0 / np.where(norms > 0, norms, 1.0)) @ block)
    return sp.csr_matrix(sp.hstack(parts), dtype=np.float32)
