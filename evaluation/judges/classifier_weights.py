"""What the classifier judge is made of: features of texts, a regression a dimension, the weights file and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from evaluation.features import embedding, ngrams
from evaluation.features.embedding import DIMENSION, Embedder
from evaluation.judges.weights_card import FORMAT, JudgeWeightsError, poles_of, read_card, sha256, write_card
from evaluation.judges.weights_card import card_path as card_path

SHIPPED = Path(__file__).parents[1] / "weights" / "mbti_classifier.safetensors"
# Of each dimension in a weights file: its tensors with their types; shapes follow from the features.
_TENSORS = {"frequency": "u", "n_documents": "i", "ngram_coef": "f", "embedding_coef": "f", "intercept": "f"}


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

    def cooled(self, divisor: float) -> DimensionModel:
        """With its log odds divided."""
        return replace(
            self,
            ngram_coef=(self.ngram_coef.astype(np.float64) / divisor).astype(np.float16),
            embedding_coef=(self.embedding_coef.astype(np.float64) / divisor).astype(np.float32),
            intercept=self.intercept / divisor,
        )


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
        "sha256": sha256(path),
    }
    write_card(path, written)
    return written


def read_weights(path: Path) -> tuple[dict[str, DimensionModel], dict[str, Any]]:
    """Models by dimension, in the order of the card, and the card.

    Raises:
        JudgeWeightsError: a file is missing, damaged, of another format, or fits its card not.
    """
    card = read_card(path)
    if card.get("ngrams") != ngrams.RECIPE:
        raise JudgeWeightsError(f"{path} was fitted with other features, or is of another format")
    try:
        tensors = load_file(path)
        models = {dimension: _model(tensors, dimension) for dimension in poles_of(card)}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise JudgeWeightsError(f"{path} is damaged ({' '.join(str(error).split())})") from error
    return models, card


def _model(tensors: Mapping[str, np.ndarray], dimension: str) -> DimensionModel:
    """One dimension's model. Raises KeyError, ValueError: a tensor is missing, or is not what it should be."""
    found = {name: tensors[f"{dimension}.{name}"] for name in _TENSORS}
    shapes = {"frequency": (ngrams.N_FEATURES,), "ngram_coef": (ngrams.N_FEATURES,), "embedding_coef": (DIMENSION,)}
    for name, tensor in found.items():
        wanted = shapes.get(name, (1,))
        if tensor.dtype.kind != _TENSORS[name] or tensor.shape != wanted or not np.isfinite(tensor).all():
            raise ValueError(f"{dimension}.{name} is {tensor.dtype} {tensor.shape}, not finite numbers {wanted}")
    return DimensionModel(
        frequency=found["frequency"],
        n_documents=int(found["n_documents"][0]),
        ngram_coef=found["ngram_coef"],
        embedding_coef=found["embedding_coef"],
        intercept=float(found["intercept"][0]),
    )
