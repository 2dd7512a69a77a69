"""The second embedded judge: logistic regression on a sentence encoder's layers alone, one per dimension.

It sees no n-gram: of a text it reads the mean state of each layer of all-MiniLM-L6-v2, from the word embeddings to the
last. The classifier is one of n-grams (without its sentence embedding it says the same, docs/judging.md), so the two
read different things of a text. Fitted on the same pairs (``evaluation.fit.train_encoder``): what is wrong with these,
both have learned. The card beside the weights says what was measured, beside the classifier.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from evaluation.features.embedding import DIMENSION, MAX_TOKENS, MODEL_NAME, N_LAYERS, Embedder, LayerEmbedder
from evaluation.items import ENCODER
from evaluation.judges.poles import DIMENSIONS, PoleJudge
from evaluation.judges.weights_card import FORMAT, JudgeWeightsError, poles_of, read_card, sha256, write_card

SHIPPED = Path(__file__).parents[1] / "weights" / "mbti_encoder.safetensors"
SIZE = N_LAYERS * DIMENSION
# What the weights were fitted with; written on the card and compared when they are loaded.
RECIPE: dict[str, Any] = {"model": MODEL_NAME, "max_tokens": MAX_TOKENS, "layers": N_LAYERS}


@dataclass(frozen=True)
class EncoderModel:
    """One dimension's logistic regression, in the types in which it is stored."""

    coef: np.ndarray  # float32 [SIZE]
    intercept: float

    def logits(self, vectors: np.ndarray, /) -> np.ndarray:
        """Log odds of the first pole, float64 [texts], of vectors [texts, SIZE]."""
        # No matrix product: its last digits depend on how many texts are in it. A row's own sum does not.
        return np.asarray((vectors.astype(np.float64) * self.coef.astype(np.float64)).sum(axis=1) + self.intercept)

    def cooled(self, divisor: float) -> EncoderModel:
        """With its log odds divided."""
        return EncoderModel((self.coef.astype(np.float64) / divisor).astype(np.float32), self.intercept / divisor)


class EncoderJudge(PoleJudge):
    """See :class:`evaluation.judges.poles.PoleJudge`."""

    def __init__(
        self,
        models: Mapping[str, EncoderModel],
        embedder: Embedder,
        *,
        card: Mapping[str, Any],
        abstain: float = 0.0,
        poles: Mapping[str, Sequence[str]] = DIMENSIONS,
    ) -> None:
        """Take fitted models by dimension ("E/I", ...), and what embeds in all layers; ``load`` is the usual way in."""
        super().__init__({each: poles[each] for each in models}, card=card, abstain=abstain, name=ENCODER)
        self._models = dict(models)
        self._embedder = embedder

    @classmethod
    def load(
        cls, path: str | Path = SHIPPED, *, embedder: Embedder | None = None, abstain: float = 0.0
    ) -> EncoderJudge:
        """Read weights and card; by default the shipped ones and the embedded encoder.

        Raises:
            JudgeWeightsError: a file is missing, of another format, or fits its card not.
            embedding.EmbeddingModelError: the encoder's package is not installed.
        """
        models, card = read_weights(Path(path))
        return cls(models, embedder or LayerEmbedder(), card=card, abstain=abstain, poles=poles_of(card))

    def _log_odds(self, texts: Sequence[str], dimensions: Collection[str]) -> dict[str, np.ndarray]:
        vectors = self._embedder.embed(texts)
        return {dimension: self._models[dimension].logits(vectors) for dimension in dimensions}


def write_weights(path: Path, models: Mapping[str, EncoderModel], card: Mapping[str, Any]) -> dict[str, Any]:
    """Write the weights (safetensors) and their card (JSON); returns the card as written."""
    tensors: dict[str, np.ndarray] = {}
    for dimension, model in models.items():
        tensors[f"{dimension}.coef"] = model.coef
        tensors[f"{dimension}.intercept"] = np.array([model.intercept], dtype=np.float64)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(tensors))
    written = {"format": FORMAT, **card, "encoder": RECIPE, "sha256": sha256(path)}
    write_card(path, written)
    return written


def read_weights(path: Path) -> tuple[dict[str, EncoderModel], dict[str, Any]]:
    """Models by dimension, in the order of the card, and the card.

    Raises:
        JudgeWeightsError: a file is missing, damaged, of another format, or fits its card not.
    """
    card = read_card(path)
    if card.get("encoder") != RECIPE:
        raise JudgeWeightsError(f"{path} was fitted with another encoder, or is of another format")
    try:
        tensors = load_file(path)
        models = {dimension: _model(tensors, dimension) for dimension in poles_of(card)}
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise JudgeWeightsError(f"{path} is damaged ({' '.join(str(error).split())})") from error
    return models, card


def _model(tensors: Mapping[str, np.ndarray], dimension: str) -> EncoderModel:
    """One dimension's model. Raises KeyError, ValueError: a tensor is missing, or is not what it should be."""
    coef, intercept = (tensors[f"{dimension}.{name}"] for name in ("coef", "intercept"))
    for name, tensor, size in (("coef", coef, SIZE), ("intercept", intercept, 1)):
        if tensor.dtype.kind != "f" or tensor.shape != (size,) or not np.isfinite(tensor).all():
            raise ValueError(f"{dimension}.{name} is {tensor.dtype} {tensor.shape}, not finite numbers ({size},)")
    return EncoderModel(coef, float(intercept[0]))
