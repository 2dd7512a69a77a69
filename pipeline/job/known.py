"""The kinds of judges, and what is known of each without loading one.

A new kind is a section in :mod:`pipeline.job.fields`, a row here, and a loader in :mod:`pipeline.judging.registry`;
the job file's checks, ``mpg judge``, ``mpg plan`` and a run read this table.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from evaluation.items import is_independent
from personas import MBTI, ROLE_PLAY
from pipeline.job.fields import ClassifierJudge, Judges, LogRatioJudge, OpenAIJudge, PersonaMatchJudge

JudgeModel = type[ClassifierJudge] | type[PersonaMatchJudge] | type[LogRatioJudge] | type[OpenAIJudge]


@dataclass(frozen=True)
class JudgeKind:
    """What is known of a kind of judge.

    Attributes:
        model: its section of the job file.
        attributes: what it can score; ``None``: whatever the job describes.
        remote: whether it is behind an endpoint: one process asks it, with a budget, after the rows are written.
    """

    model: JudgeModel
    attributes: Collection[str] | None
    remote: bool = False


KINDS: Mapping[str, JudgeKind] = {
    "classifier": JudgeKind(ClassifierJudge, MBTI),
    "persona-match": JudgeKind(PersonaMatchJudge, ROLE_PLAY),
    "log-ratio": JudgeKind(LogRatioJudge, None),
    "openai": JudgeKind(OpenAIJudge, None, remote=True),
}


def is_remote(spec: Judges) -> TypeGuard[OpenAIJudge]:
    """Whether a judge is behind an endpoint."""
    return KINDS[spec.kind].remote


def known_to(spec: Judges, attributes: Sequence[str]) -> tuple[str, ...]:
    """The attributes that a judge can score, known without loading it."""
    known = KINDS[spec.kind].attributes
    return tuple(name for name in attributes if known is None or name in known)


def counted(specs: Sequence[Judges], attributes: Sequence[str]) -> list[str]:
    """The attributes that any judge knows whose scores count: not the models' own opinion."""
    return [a for a in attributes if any(is_independent(spec.kind) and known_to(spec, [a]) for spec in specs)]
