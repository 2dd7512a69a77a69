"""The embedded judge of role-play: is a text nearer to its own persona than to other people?

The score of a text is the share of :mod:`evaluation.judges.stock_personas` whose profile (or personality) is less like
it than the persona's own, by cosine similarity of sentence embeddings: 0.5 is chance, 1 is nearer to its own than
to anybody's. It reads topic and mood, no facts: a text that says the wrong age scores no lower.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from evaluation.features.embedding import MODEL_NAME, Embedder, SentenceEmbedder
from evaluation.items import Item
from evaluation.judges.stock_personas import PERSONALITIES, PROFILES
from evaluation.scores import Score, Status

STOCK: Mapping[str, tuple[str, ...]] = {"profile": PROFILES, "personality": PERSONALITIES}


class PersonaMatchJudge:
    """Scores ``profile`` and ``personality``.

    Args:
        embedder: of sentences; the embedded model if ``None``.

    Raises:
        embedding.EmbeddingModelError: the sentence model's package is not installed.
    """

    name = "persona-match"

    def __init__(self, embedder: Embedder | None = None) -> None:
        self._embedder = embedder or SentenceEmbedder()

    @cached_property
    def version(self) -> str:
        """Changes with the stock of other people and the sentence model."""
        return "1+" + hashlib.sha256(repr((sorted(STOCK.items()), MODEL_NAME)).encode()).hexdigest()[:8]

    def knows(self, attribute: str) -> bool:
        return attribute in STOCK

    def judge(self, items: Sequence[Item], attributes: Sequence[str]) -> dict[str, list[Score]]:
        """See :class:`evaluation.items.Judge`.

        A text without words, or without a persona's text to hold it against, is unscored (``failed``).

        Raises:
            ValueError: an attribute that is not role-play.
        """
        unknown = [attribute for attribute in attributes if attribute not in STOCK]
        if unknown:
            raise ValueError(f"the judge {self.name!r} knows {' and '.join(STOCK)}, not {unknown[0]!r}")
        if not items:
            return {name: [] for name in attributes}
        texts = self._vectors([item.text for item in items])  # [items, dim]
        return {name: self._scores(items, texts, name) for name in attributes}

    def _scores(self, items: Sequence[Item], texts: np.ndarray, attribute: str) -> list[Score]:
        own = [getattr(item, attribute) for item in items]
        vectors, others = self._vectors(own), self._vectors(STOCK[attribute])
        nearness = (texts * vectors).sum(axis=1)  # [items]
        share = (texts @ others.T < nearness[:, None]).mean(axis=1)
        scores = []
        for item, persona, value in zip(items, own, share.tolist(), strict=True):
            if not any(map(str.isalnum, item.text)):
                scores.append(Score(None, Status.FAILED, "the text has no words"))
            elif not persona:
                scores.append(Score(None, Status.FAILED, f"the row has no {attribute}"))
            else:
                scores.append(Score(value, Status.OK))
        return scores

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        """``[texts, dim]``; equal texts are embedded once."""
        distinct = list(dict.fromkeys(texts))
        rows = dict(zip(distinct, self._embedder.embed(distinct), strict=True))
        return np.stack([rows[text] for text in texts])
