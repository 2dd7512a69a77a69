"""The reference's texts held against personas: they were written as nobody, and judges of role-play read a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.features.embedding import Embedder
from evaluation.items import Item
from evaluation.judges.persona_match import STOCK, PersonaMatchJudge
from personas import Persona
from pipeline.job.judge_fields import PersonaMatchJudge as PersonaMatchSection
from pipeline.job.model import Job


def scores_as(
    job: Job, persona: Persona, rows: Sequence[Mapping[str, Any]], embedder: Embedder | None
) -> dict[str, list[float | None]]:
    """What ``persona-match`` gives texts as a persona's: attribute -> one each a row.

    Args:
        rows: ``row_id``, ``response``. embedder: of sentences.

    Returns:
        nothing where the job has no such judge, the persona weighs nothing that it knows, or there is no embedder.
        (Judges behind endpoints are not asked: of them these texts stay unscored.)
    """
    names = [name for name in persona.active if name in STOCK]
    if not names or embedder is None or not any(isinstance(spec, PersonaMatchSection) for spec in job.judges):
        return {}
    said, like = persona.profile, persona.personality
    items = [Item(row["row_id"], row["response"], profile=said, personality=like) for row in rows]
    given = PersonaMatchJudge(embedder).judge(items, names)
    return {name: [score.score for score in scores] for name, scores in given.items()}
