"""Logistic regression on the answers of pairs, and its cross-validation by question.

What was tried and moved the train split's cross-validated accuracy by no more than its noise (0.015): other n-gram
ranges, naive-Bayes weights (Wang and Manning 2012), pair differences as further examples, the encoder's lower layers,
maximum pooling.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from evaluation.features import ngrams
from evaluation.fit.measure import Measure
from evaluation.judges.classifier_weights import DimensionModel, Features
from evaluation.statistics.calibration import temperature
from personas.preferences import PreferencePair

N_FOLDS = 5
# The three blocks have length 1, 1 and this. Train-split cross-validation is flat from 0 to 0.3 and falls
# from 0.5 on; 0.3 gains where few words are shared (options of mbti_mcqa.json, T/F: .76 -> .89).
EMBEDDING_SCALE = 0.3
CANDIDATE_C = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


class Model(Protocol):
    """One dimension's regression, in the types in which it is stored."""

    def logits(self, features: Any, /) -> np.ndarray:
        """Log odds of the first pole: float64 [texts]."""
        ...

    def cooled(self, divisor: float) -> Self:
        """With its log odds divided."""
        ...


M = TypeVar("M", bound=Model)


class Fit(Protocol):
    """Fits a model to features of answers, all chosen before all rejected; ``c``: inverse regularisation."""

    def __call__(self, features: Any, /, *, c: float) -> Model: ...


@dataclass(frozen=True)
class Answers:
    """Both answers of every pair: row ``p`` is pair ``p``'s chosen, row ``n_pairs + p`` its rejected."""

    features: Any  # of the judge's own kind, a row an answer, taken by indices
    groups: list[str]  # [n_pairs]: the question, normalised

    @property
    def n_pairs(self) -> int:
        return len(self.groups)

    def rows(self, pairs: np.ndarray) -> np.ndarray:
        """Rows of both answers of these pairs, all chosen before all rejected: [2 * len(pairs)]."""
        return np.concatenate([pairs, pairs + self.n_pairs])


def prepare(pairs: Sequence[PreferencePair], vectors: Mapping[str, np.ndarray]) -> Answers:
    """Features of the pairs' answers; ``vectors`` holds each answer's embedding [384]."""
    texts = texts_of(pairs)
    return Answers(Features(ngrams.count(texts), np.stack([vectors[text] for text in texts])), questions_of(pairs))


def texts_of(pairs: Sequence[PreferencePair]) -> list[str]:
    """All chosen answers, then all rejected ones."""
    return [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]


def questions_of(pairs: Sequence[PreferencePair]) -> list[str]:
    """Normalised; pairs of one question belong together."""
    return [" ".join(pair.question.lower().split()) for pair in pairs]


def fit(features: Features, *, c: float) -> DimensionModel:
    """L2-regularised logistic regression on [2 * pairs] answers, all chosen before all rejected.

    Args:
        features: of the fitting answers; document frequencies and the embeddings' mean are theirs.
        c: inverse regularisation, as in scikit-learn.
    """
    n_documents = features.counts.shape[0]
    frequency = ngrams.document_frequency(features.counts)
    mean = features.embeddings.mean(axis=0)  # [384]
    dense = sp.csr_matrix((features.embeddings - mean) * EMBEDDING_SCALE)
    weighted = ngrams.tfidf(features.counts, frequency, n_documents)
    inputs = sp.csr_matrix(sp.hstack([weighted, dense]), dtype=np.float64)
    labels = np.repeat([1, 0], n_documents // 2)
    fitted = LogisticRegression(C=c, solver="liblinear", max_iter=1000).fit(inputs, labels)
    coef = fitted.coef_[0]  # [N_FEATURES + 384]
    embedding_coef = coef[ngrams.N_FEATURES :] * EMBEDDING_SCALE
    return DimensionModel(
        frequency=frequency.astype(np.uint16),
        n_documents=n_documents,
        ngram_coef=coef[: ngrams.N_FEATURES].astype(np.float16),
        embedding_coef=embedding_coef.astype(np.float32),
        intercept=float(fitted.intercept_[0] - mean @ embedding_coef),  # centring, folded in
    )


def folds(groups: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(fitted, measured) pair indices of each fold; a question stands in one fold only."""
    yield from GroupKFold(n_splits=N_FOLDS).split(np.zeros(len(groups)), groups=groups)


def cross_validate(answers: Answers, *, c: float, by: Fit = fit) -> Measure:
    """Measure every pair by a model that has not seen its question."""
    return Measure.of(cross_validated_logits(answers, c=c, by=by))


def cross_validated_logits(answers: Answers, *, c: float, by: Fit = fit) -> np.ndarray:
    """Log odds of every answer by a model that has not seen its question: [2 * pairs], all chosen first."""
    logits = np.zeros(2 * answers.n_pairs)
    for fitted, measured in folds(answers.groups):
        model = by(answers.features[answers.rows(fitted)], c=c)
        rows = answers.rows(measured)
        logits[rows] = model.logits(answers.features[rows])
    return logits


def calibrated(model: M, answers: Answers, *, c: float, cautious: bool = False, by: Fit = fit) -> tuple[M, float]:
    """The model with its log odds divided by the temperature that cross-validation asks for, and that temperature.

    Args:
        cautious: see :func:`evaluation.statistics.calibration.temperature`.
    """
    labels = np.repeat([1, 0], answers.n_pairs)
    divisor = temperature(cross_validated_logits(answers, c=c, by=by), labels, cautious=cautious)
    return model.cooled(divisor), divisor


def choose_c(train: Answers, candidates: Sequence[float] | None = None, *, by: Fit = fit) -> float:
    """The regularisation of least cross-validated log loss: it makes the probabilities honest as well."""
    return min(candidates or CANDIDATE_C, key=lambda c: cross_validate(train, c=c, by=by).log_loss)
