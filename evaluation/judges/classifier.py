"""The embedded judge: logistic regression on n-grams and sentence embeddings, one per dimension.

It is independent of the model that generates (it reads text only), needs no network and takes
milliseconds a text. It was fitted on answers of MBTI preference pairs (``evaluation.fit.train_classifier``),
so its score is "reads like an answer of that pole in that data", not a psychological measurement.
The card beside the weights says what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.features.embedding import Embedder, SentenceEmbedder
from evaluation.items import SHIPPED as SHIPPED_NAME
from evaluation.items import Item
from evaluation.judges.classifier_weights import DIMENSIONS, SHIPPED, DimensionModel, Features, read_weights
from evaluation.judges.own import OwnJudge
from evaluation.judges.weights_card import poles_of
from evaluation.scores import Score, Status


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probability of log odds, without overflow at either end."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


class ClassifierJudge:
    """Scores how far a text carries an attribute: an MBTI pole or one's own; opposite poles add up to 1."""

    def __init__(
        self,
        models: Mapping[str, DimensionModel],
        embedder: Embedder,
        *,
        card: Mapping[str, Any],
        abstain: float = 0.0,
        poles: Mapping[str, Sequence[str]] = DIMENSIONS,
        name: str = SHIPPED_NAME,
    ) -> None:
        """Take fitted models by dimension ("E/I", ...); ``load`` and ``beside_adapter`` are the usual ways in.

        Args:
            abstain: scores nearer to 0.5 than this are withheld.
            poles: dimension -> the attribute whose probability is modelled, and its opposite if that has a name.
            name: part of every judgment.
        """
        self.name = name
        self._abstain = abstain
        self._models = dict(models)
        self._embedder = embedder
        self.card = dict(card)
        self._where = {
            pole: (dimension, sign)
            for dimension in self._models
            for pole, sign in zip(poles[dimension], (1.0, -1.0), strict=False)
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
        return cls(models, embedder or SentenceEmbedder(), card=card, abstain=abstain, poles=poles_of(card))

    @classmethod
    def beside_adapter(
        cls, own: OwnJudge, attribute: str, *, embedder: Embedder | None = None, abstain: float = 0.0
    ) -> ClassifierJudge:
        """The judge in an adapter's folder; its version names the attribute that a job calls it by, and its fit.

        Raises:
            JudgeWeightsError, embedding.EmbeddingModelError: see :meth:`load`.
        """
        models, card = read_weights(own.weights)
        (model,) = models.values()
        return cls(
            {attribute: model},
            embedder or SentenceEmbedder(),
            card=card | {"version": f"{attribute}+{card['version']}"},
            abstain=abstain,
            poles={attribute: (attribute,)},
            name=own.name,
        )

    @property
    def version(self) -> str:
        """The card's version and the head of the weights' SHA-256: another fit, another version."""
        band = f"+abstain{self._abstain:g}" if self._abstain else ""
        return f"{self.card['version']}+{self.card['sha256'][:8]}{band}"

    @property
    def attributes(self) -> tuple[str, ...]:
        """What can be asked for: of the shipped judge, E I S N T F J P."""
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
