"""The embedded judge: logistic regression on n-grams and sentence embeddings, one per dimension.

It is independent of the model that generates (it reads text only), needs no network and takes
milliseconds a text. It was fitted on answers of MBTI preference pairs (``evaluation.fit.train_classifier``),
so its score is "reads like an answer of that pole in that data", not a psychological measurement.
The card beside the weights says what was measured.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.features.embedding import Embedder, SentenceEmbedder
from evaluation.items import SHIPPED as SHIPPED_NAME
from evaluation.judges.classifier_weights import SHIPPED, DimensionModel, Features, read_weights
from evaluation.judges.own import OwnJudge
from evaluation.judges.poles import DIMENSIONS, PoleJudge
from evaluation.judges.weights_card import poles_of


class ClassifierJudge(PoleJudge):
    """See :class:`evaluation.judges.poles.PoleJudge`."""

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
        """Take fitted models by dimension ("E/I", ...); ``load`` and ``beside_adapter`` are the usual ways in."""
        super().__init__({each: poles[each] for each in models}, card=card, abstain=abstain, name=name)
        self._models = dict(models)
        self._embedder = embedder

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

    def _log_odds(self, texts: Sequence[str], dimensions: Collection[str]) -> dict[str, np.ndarray]:
        features = Features.of(texts, self._embedder)
        return {dimension: self._models[dimension].logits(features) for dimension in dimensions}
