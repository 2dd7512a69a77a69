"""The judge that ``mpg train`` puts beside an adapter, see :mod:`evaluation.fit.own_judge`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.judges.own import CARD_FILE
from personas.examples import Example
from personas.preferences import PreferencePair
from pipeline.job.adapters import ADAPTER_CARD
from pipeline.store.files import write_bytes

if TYPE_CHECKING:
    from evaluation.features.embedding import Embedder

logger = logging.getLogger(__name__)


def question_of(example: Example) -> str:
    """What a pair answers: its users' messages. Pairs are split, and their answers kept apart, by it."""
    return " ".join(message.content for message in example.messages if message.role == "user")


def _sentences() -> Embedder:
    from evaluation.features.embedding import SentenceEmbedder

    return SentenceEmbedder()


def _describe(folder: Path, name: str, about: Mapping[str, Any]) -> None:
    """Add what was said of an attribute to the card of an adapter that is there. Raises OSError."""
    card = folder / ADAPTER_CARD
    try:
        known = json.loads(card.read_text("utf-8"))
    except (OSError, ValueError):
        known = {}
    said = {field: about[field] for field in ("description", "opposite") if about.get(field)}
    if said and isinstance(known, dict):
        write_bytes((json.dumps({"name": name} | known | said, indent=2) + "\n").encode(), card)


@dataclass
class PairsJudge:
    """A judge that is to be fitted on an adapter's pairs.

    Attributes:
        name: of the attribute.
        train, held_out: no question in both.
        about: description and data, for the judge's card.
        embedder: loads what turns texts into vectors.
        line: for the report, once it was tried: what the judge is worth, or why there is none.
        fitted: whether there is one.
    """

    name: str
    train: Sequence[Example]
    held_out: Sequence[Example]
    about: Mapping[str, Any]
    embedder: Callable[[], Embedder] = _sentences
    line: str = ""
    fitted: bool = False

    def fit(self, folder: Path, *, describe: bool = False) -> None:
        """Fit it into an adapter's folder, if that can be.

        Args:
            describe: whether what is said of the attribute goes onto the adapter's card, as in training.
        """
        from evaluation.features.embedding import EmbeddingModelError
        from evaluation.fit.own_judge import NoJudge, fit_own_judge

        logger.info("%s: fitting a judge", self.name)
        train, held_out = (
            [PreferencePair(question_of(each), each.chosen, each.rejected) for each in side]
            for side in (self.train, self.held_out)
        )
        try:
            own = fit_own_judge(self.name, train, held_out, folder, embedder=self.embedder(), about=self.about)
        except (NoJudge, EmbeddingModelError, OSError) as error:
            why = " ".join(str(error).split())
            self.line = f"no judge of {self.name}: {why}; then mpg train --judge-only adds one"
            return
        if describe:
            _describe(folder, self.name, self.about)
        self.line, self.fitted = f"a judge of {self.name} beside it ({CARD_FILE}): {own.worth}", True
