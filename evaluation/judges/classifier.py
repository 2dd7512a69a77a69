"""The embedded judge: logistic regression on n-grams and sentence embeddings, one per dimension.

It is independent of the model that generates (it reads text only), needs no network and takes
milliseconds a text. It was fitted on answers of MBTI preference pairs (``evaluation.fit.train_classifier``),
so its score is "reads like an answer of that pole in that data", not a psychological measurement.
The card beside the weights says what was measured.
"""

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
from evaluation.items import Item
from evaluation.scores import Score, Status

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
        from_meaning = features.embeddings.astype(np.float64) @ self.embedding_coef.astype(np.float64)
        return np.asarray(from_ngrams + from_meaning + self.intercept)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probability of log odds, without overflow at either end."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


class ClassifierJudge:
    """Scores how far a text carries an MBTI pole; opposite poles of one text add up to 1."""

    name = "classifier"

    def __init__(
        self,
        models: Mapping[str, DimensionModel],
        embedder: Embedder,
        *,
        card: Mapping[str, Any],
        abstain: float = 0.0,
    ) -> None:
        """Take fitted models by dimension ("E/I", ...); ``load`` is the usual way in.

        ``abstain``: scores nearer to 0.5 than this are withheld.
        """
        self._abstain = abstain
        self._models = dict(models)
        self._embedder = embedder
        self.card = dict(card)
        self._where = {
            pole: (dimension, sign)
            for dimension in self._models
            for pole, sign in zip(DIMENSIONS[dimension], (1.0, -1.0), strict=True)
        }

    @classmethod
    def load(
        cls, path: str | Path = SHIPPED, *, embedder: Embedder | None = None, abstain: float = 0.0
    ) -> ClassifierJudge:
        """Read weights and card; by default the shipped ones and the embedded sentence model.

        Raises:
            JudgeWeightsError: a file is missing, of another format, or fits its card not.
            embedding.EmbeddingModelError: the sentence model's package is not installed.
        """
        models, card = read_weights(Path(path))
        return cls(models, embedder or embedding.SentenceEmbedder(), card=card, abstain=abstain)

    @property
    def version(self) -> str:
        """The card's version and the head of the weights' SHA-256: another fit, another version."""
        band = f"+abstain{self._abstain:g}" if self._abstain else ""
        return f"{self.card['version']}+{self.card['sha256'][:8]}{band}"

    @property
    def attributes(self) -> tuple[str, ...]:
        """The poles that can be asked for: E I S N T F J P."""
        return tuple(self._where)

    def knows(self, attribute: str) -> bool:
        """See :class:`evaluation.items.Judge`."""
        return attribute in self._where

    def judge(self, items: Sequence[Item], attributes: Sequence[str]) -> dict[str, list[Score]]:
        """See :class:`evaluation.items.Judge`; of an item the text alone is read."""
        return self.score_many([item.text for item in items], attributes)

    def score(self, texts: Sequence[str], attribute: str) -> list[Score]:
        """One score a text, in order.

        Raises:
            ValueError: an attribute that this judge does not know.
        """
        return self.score_many(texts, [attribute])[attribute]

    def score_many(self, texts: Sequence[str], attributes: Sequence[str]) -> dict[str, list[Score]]:
        """Scores of every attribute, each list in the order of ``texts``, from one embedding pass.

        A text without a letter or digit has nothing to judge: it is unscored (``failed``), never
        0.5. The embedding reads the first 256 tokens, the n-grams the whole text.

        Raises:
            TypeError: a single string in the place of a sequence.
            ValueError: an attribute that this judge does not know; raised before any work.
        """
        if isinstance(texts, str) or isinstance(attributes, str):
            raise TypeError("texts and attributes are sequences of strings, not one string")
        unknown = [attribute for attribute in attributes if attribute not in self._where]
        if unknown:
            raise ValueError(
                f"the judge {self.name!r} does not know {', '.join(map(repr, unknown))}; "
                f"it knows {' '.join(self.attributes)}"
            )
        judged = [row for row, text in enumerate(texts) if any(map(str.isalnum, text))]
        logits: dict[str, np.ndarray] = {}
        if judged and attributes:
            features = Features.of([texts[row] for row in judged], self._embedder)
            wanted = {self._where[attribute][0] for attribute in attributes}
            logits = {dimension: self._models[dimension].logits(features) for dimension in wanted}
        result: dict[str, list[Score]] = {}
        for attribute in attributes:
            dimension, sign = self._where[attribute]
            scores = [Score(None, Status.FAILED, "the text has no words") for _ in texts]
            probabilities = sigmoid(sign * logits[dimension]) if judged else np.empty(0)
            for row, probability in zip(judged, probabilities, strict=True):
                scores[row] = self._verdict(float(probability))
            result[attribute] = scores
        return result

    def _verdict(self, probability: float) -> Score:
        if abs(probability - 0.5) < self._abstain:
            return Score(None, Status.REFUSED, f"undecided: {probability:.3f} is within {self._abstain:g} of 0.5")
        return Score(probability, Status.OK)


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
