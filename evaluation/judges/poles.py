"""What embedded judges of poles have in common: they read text alone, and opposite poles add up to 1."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.items import Item
from evaluation.scores import Score, Status

# Dimension -> (pole whose probability is modelled, opposite pole).
DIMENSIONS = {"E/I": ("E", "I"), "S/N": ("S", "N"), "T/F": ("T", "F"), "J/P": ("J", "P")}


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probability of log odds, without overflow at either end."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * logits)))


class PoleJudge(ABC):
    """Scores how far a text carries an attribute: an MBTI pole or one's own; opposite poles add up to 1.

    Args:
        poles: dimension -> the attribute whose probability is modelled, and its opposite if that has a name.
        card: of the weights, with ``version`` and ``sha256`` where they were read.
        abstain: scores nearer to 0.5 than this are withheld.
        name: part of every judgment.
    """

    def __init__(
        self, poles: Mapping[str, Sequence[str]], *, card: Mapping[str, Any], abstain: float, name: str
    ) -> None:
        self.name = name
        self.card = dict(card)
        self._abstain = abstain
        self._where = {
            pole: (dimension, sign)
            for dimension, both in poles.items()
            for pole, sign in zip(both, (1.0, -1.0), strict=False)
        }

    @abstractmethod
    def _log_odds(self, texts: Sequence[str], dimensions: Collection[str]) -> dict[str, np.ndarray]:
        """Of the first pole of each dimension: float64 [texts]; a text's own, whatever its company."""

    @property
    def version(self) -> str:
        """The card's version and the head of the weights' SHA-256: another fit, another version."""
        band = f"+abstain{self._abstain:g}" if self._abstain else ""
        return f"{self.card['version']}+{self.card['sha256'][:8]}{band}"

    @property
    def attributes(self) -> tuple[str, ...]:
        """What can be asked for: of a shipped judge, E I S N T F J P."""
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
        """Scores of every attribute, each list in the order of ``texts``, from one pass over them.

        A text without a letter or digit has nothing to judge: it is unscored (``failed``), never
        0.5. Embeddings read the first 256 tokens, n-grams the whole text.

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
            wanted = {self._where[attribute][0] for attribute in attributes}
            logits = self._log_odds([texts[row] for row in judged], wanted)
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
