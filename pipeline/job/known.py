"""What judges know of which attributes, without loading one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from personas import MBTI, ROLE_PLAY
from pipeline.job.fields import Judges


def known_to(spec: Judges, attributes: Sequence[str]) -> tuple[str, ...]:
    """The attributes that a judge can score, known without loading it."""
    known: dict[str, Mapping[str, Any]] = {"classifier": MBTI, "persona-match": ROLE_PLAY}
    return tuple(name for name in attributes if spec.kind not in known or name in known[spec.kind])


def counted(specs: Sequence[Judges], attributes: Sequence[str]) -> list[str]:
    """The attributes that any judge knows whose scores count: not the models' own opinion."""
    return [a for a in attributes if any(spec.kind != "log-ratio" and known_to(spec, [a]) for spec in specs)]
