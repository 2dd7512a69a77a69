"""The judges that a job or a command may name, and a generation row as they see it. No Beam here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.items import Item, Judge
from personas import MBTI, ROLE_PLAY
from pipeline.job_fields import ClassifierJudge, Judges, LogRatioJudge, PersonaMatchJudge

# Of a generation row, what judges see.
COLUMNS = ("row_id", "prompt", "profile", "personality", "response", "attributes", "log_ratios", "n_tokens")


class JudgeError(RuntimeError):
    """A judge that can't be loaded on this machine."""


def known_to(spec: Judges, attributes: Sequence[str]) -> tuple[str, ...]:
    """The attributes that a judge can score, known without loading it."""
    known: dict[str, Mapping[str, Any]] = {"classifier": MBTI, "persona-match": ROLE_PLAY}
    return tuple(name for name in attributes if spec.kind not in known or name in known[spec.kind])


def load_judge(spec: Judges) -> Judge:
    """The judge of a job's ``judges`` entry.

    Raises:
        JudgeError: its weights or the package it needs are missing.
    """
    from evaluation.classifier_judge import ClassifierJudge as Classifier
    from evaluation.classifier_judge import JudgeWeightsError
    from evaluation.embedding import EmbeddingModelError
    from evaluation.log_ratio_judge import LogRatioJudge as LogRatio
    from evaluation.persona_match import PersonaMatchJudge as PersonaMatch

    try:
        match spec:
            case ClassifierJudge(abstain=abstain):
                return Classifier.load(abstain=abstain)
            case PersonaMatchJudge():
                return PersonaMatch()
            case LogRatioJudge():
                return LogRatio()
    except (JudgeWeightsError, EmbeddingModelError) as error:
        raise JudgeError(f"judges: {spec.kind}: {error}") from error


def item_of(row: Mapping[str, Any]) -> Item:
    """A generation row as judges see it."""
    asked = [message["content"] for message in row["prompt"] if message["role"] == "user"]
    n = row["n_tokens"] or 1
    return Item(
        key=row["row_id"],
        text=row["response"],
        prompt=asked[-1] if asked else "",
        profile=row["profile"] or "",
        personality=row["personality"] or "",
        log_ratios={a: ratio / n for a, ratio in zip(row["attributes"], row["log_ratios"], strict=True)},
    )
