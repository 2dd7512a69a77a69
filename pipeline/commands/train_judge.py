"""The judge that ``mpg train`` puts beside an adapter, see :mod:`evaluation.fit.own_judge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluation.judges.own import CARD_FILE
from personas.examples import Example
from personas.preferences import PreferencePair


def question_of(example: Example) -> str:
    """What a pair answers: its users' messages. Pairs are split, and their answers kept apart, by it."""
    return " ".join(message.content for message in example.messages if message.role == "user")


def fit_beside(
    folder: Path, name: str, train: Sequence[Example], held_out: Sequence[Example], about: Mapping[str, Any]
) -> str:
    """Fit a judge into an adapter's folder; a line for the report: what it is worth, or why there is none.

    Args:
        about: description and data, for the judge's card.
    """
    from evaluation.features.embedding import EmbeddingModelError, SentenceEmbedder
    from evaluation.fit.own_judge import NoJudge, fit_own_judge

    try:
        own = fit_own_judge(name, _pairs(train), _pairs(held_out), folder, embedder=SentenceEmbedder(), about=about)
    except (NoJudge, EmbeddingModelError) as error:
        return f"no judge of {name}: {error}; mpg train --judge-only adds one later"
    return f"a judge of {name} beside it ({CARD_FILE}): {own.worth}"


def _pairs(examples: Sequence[Example]) -> list[PreferencePair]:
    return [PreferencePair(question_of(each), each.chosen, each.rejected) for each in examples]
