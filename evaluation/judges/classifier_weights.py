"""What the classifier judge is made of: features of texts, a regression a dimension, the weights file and its card."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from safetensors.numpy import load_file, save

from evaluation.features import embedding, ngrams
from evaluation.features.embedding import Embedder

SHIPPED = Path(__file__).parents[1] / "weights" / "mbti_classifier.safetensors"
# Dimension -> (pole whose probability is modelled, opposite pole).
DIMENSIONS = {"E/I": ("E", "I"), "S/N": ("S", "N"), "T/F": ("T", "F"), "J/P": ("J", "P")}
FORMAT = 1


class JudgeWeightsError(RuntimeError):
    """The weights and their card are missing, damaged or of another format."""


@dataclass(frozen=True)
class Features:
    """What one pass over the texts yields, shared by all dimensions; row ``r`` is text ``r``."""

    counts: sp.csr_matrix  # [texts, N_FEATURES]
    embeddings: np.ndarray  # float32 [texts, 384]

    @classmethod
    def of(cls, texts: Sequence[str], embedder: Embedder) -> Features:
        """Count and embed the texts."""
        return cls(ngrams.count(texts), embedder.embed(texts))

    def __getitem__(self, rows: np.ndarray) -> Features:
        return Features(self.counts[rows], self.embeddings[rows])


@dataclass(frozen=True)
class DimensionModel:
    """One dimension's logistic regression, in the types in which it is stored."""

    frequency: np.ndarray  # uint16 [N_FEATURES]: document frequencies in the fitting texts
    n_documents: int
    ngram_coef: np.ndarray  # float16 [N_FEATURES]: halves the file, moves no logit by 0.01
    embedding_coef: np.ndarray  # float32 [384]
    intercept: float

    def logits(self, features: Features) -> np.ndarray:
        """Log odds of the first pole: float64 [texts]."""
        weighted = ngrams.tfidf(features.counts, self.frequency, self.n_documents)  # [texts, N_FEATURES]
        from_ngrams = weighted @ self.ngram_coef.astype(np.float64)
        # No matrix product: its last digits depend on how many texts are in it. A row's own sum does not.
        from_meaning = (features.embeddings.astype(np.float64) * self.embedding_coef.astype(np.float64)).sum(axis=1)
        return np.asarray(from_ngrams + from_meaning + self.intercept)


def card_path(path: Path) -> Path:
    """The card beside a weights file: same name, ``.json``."""
    return path.with_suffix(".json")


def write_weights(path: Path, models: Mapping[str, DimensionModel], card: Mapping[str, Any]) -> dict[str, Any]:
    """Write the weights (safetensors) and their card (JSON); returns the card as written."""
    tensors: dict[str, np.ndarray] = {}
    for dimension, model in models.items():
        tensors[f"{dimension}.frequency"] = model.frequency
        tensors[f"{dimension}.ngram_coef"] = model.ngram_coef
        tensors[f"{dimension}.embedding_coef"] = model.embedding_coef
        tensors[f"{dimension}.intercept"] = np.array([model.intercept], dtype=np.float64)
        tensors[f"{dimension}.n_documents"] = np.array([model.n_documents], dtype=np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(tensors))
    written = {
        "format": FORMAT,
        **card,
        "ngrams": ngrams.RECIPE,
        "embedding": {"model": embedding.MODEL_NAME, "max_tokens": embedding.MAX_TOKENS},
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    card_path(path).write_text(json.dumps(written, indent=2, ensure_ascii=False) + "\n", "utf-8")
    return written


def read_weights(path: Path) -> tuple[dict[str, DimensionModel], dict[str, Any]]:
    """Models by dimension, and the card.

    Raises:
        JudgeWeightsError: a file is missing, of another format, or fits its card not.
    """
    if not path.is_file() or not card_path(path).is_file():
        raise JudgeWeightsError(f"{path} or its card {card_path(path).name} is missing")
    card = json.loads(card_path(path).read_text("utf-8"))
    if (card.get("format"), card.get("ngrams")) != (FORMAT, ngrams.RECIPE):
        raise JudgeWeightsError(f"{path} was fitted with other features, or is of another format")
    if card["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
        raise JudgeWeightsError(f"{path} is not the file that its card describes (SHA-256 differs)")
    tensors = load_file(path)
    models = {
        dimension: DimensionModel(
            frequency=tensors[f"{dimension}.frequency"],
            n_documents=int(tensors[f"{dimension}.n_documents"][0]),
            ngram_coef=tensors[f"{dimension}.ngram_coef"],
            embedding_coef=tensors[f"{dimension}.embedding_coef"],
            intercept=float(tensors[f"{dimension}.intercept"][0]),
        )
        for dimension in DIMENSIONS
    }
    return models, card
