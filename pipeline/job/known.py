"""The kinds of judges, and what is known of each without loading one.

A new kind is a section in :mod:`pipeline.job.judge_fields`, a row here, and a loader in
:mod:`pipeline.judging.registry`; the job file's checks, ``mpg judge``, ``mpg plan`` and a run read this table.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from evaluation.items import is_independent, of_kinds
from evaluation.judges.own import OwnJudge
from personas import MBTI, ROLE_PLAY
from pipeline.job.judge_fields import (
    ClassifierJudge,
    EncoderJudge,
    Judges,
    LogRatioJudge,
    OpenAIJudge,
    PersonaMatchJudge,
)

if TYPE_CHECKING:
    from pipeline.job.model import Job

JudgeModel = (
    type[ClassifierJudge] | type[EncoderJudge] | type[PersonaMatchJudge] | type[LogRatioJudge] | type[OpenAIJudge]
)


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
    "encoder": JudgeKind(EncoderJudge, MBTI),
    "persona-match": JudgeKind(PersonaMatchJudge, ROLE_PLAY),
    "log-ratio": JudgeKind(LogRatioJudge, None),
    "openai": JudgeKind(OpenAIJudge, None, remote=True),
}


def is_remote(spec: Judges) -> TypeGuard[OpenAIJudge]:
    """Whether a judge is behind an endpoint."""
    return KINDS[spec.kind].remote


# No attribute has a judge beside its adapter.
NONE_OWN: Mapping[str, OwnJudge] = {}


@dataclass(frozen=True)
class Assignment:
    """A judge, and what it scores.

    Attributes:
        spec: its section of the job file.
        attributes: in the job's order.
        own: the judge beside the adapter of the one attribute, where it is that: kind ``classifier`` is the shipped
            classifier and all of these.
    """

    spec: Judges
    attributes: tuple[str, ...]
    own: OwnJudge | None = None

    @property
    def called(self) -> str:
        """What it is called in a graph or a sentence, different for each of a job's."""
        return self.spec.kind if self.own is None else f"{self.spec.kind} of {self.attributes[0]}"

    @property
    def counts(self) -> bool:
        """Whether its scores are averaged with others', and let texts pass."""
        return is_independent(self.spec.kind if self.own is None else self.own.name)


def assignments(
    specs: Sequence[Judges], attributes: Sequence[str], own: Mapping[str, OwnJudge] = NONE_OWN
) -> list[Assignment]:
    """Which judge scores what, known without loading one; those that know none of the attributes are left out.

    Args:
        own: attribute -> the judge beside its adapter. One that counts takes the place of the judges that ship,
            which know other adapters' poles by the same name; one that does not count stands beside them.
    """
    found = []
    for spec in specs:
        known = KINDS[spec.kind].attributes
        mine = own if isinstance(spec, ClassifierJudge) else NONE_OWN
        ships = isinstance(spec, ClassifierJudge | EncoderJudge)
        taken = {name for name, each in own.items() if each.counted} if ships else set()
        names = tuple(name for name in attributes if (known is None or name in known) and name not in taken)
        found += [Assignment(spec, names)] if names else []
        found += [Assignment(spec, (name,), mine[name]) for name in attributes if name in mine]
    return found


def known_to(spec: Judges, attributes: Sequence[str], own: Mapping[str, OwnJudge] = NONE_OWN) -> tuple[str, ...]:
    """The attributes that a judge can score, known without loading it; see :func:`assignments`."""
    known = {name for each in assignments([spec], attributes, own) for name in each.attributes}
    return tuple(name for name in attributes if name in known)


def choosing(job: Job) -> list[Judges]:
    """The judges that let texts pass where a job has ``accept``; of one that has none, all."""
    kinds = None if job.accept is None else job.accept.by
    return [spec for spec in job.judges if kinds is None or spec.kind in kinds]


def reporting(job: Job, labels: Iterable[str]) -> set[str]:
    """Of judges, by ``name@version``, those whose scores are reported: not those of ``accept.by``."""
    return of_kinds(labels, None if job.accept is None else job.accept.by, but=True)


def counted(specs: Sequence[Judges], attributes: Sequence[str], own: Mapping[str, OwnJudge] = NONE_OWN) -> list[str]:
    """The attributes that any judge knows whose scores count: not the models' own opinion, nor a poor judge's."""
    known = {name for each in assignments(specs, attributes, own) if each.counts for name in each.attributes}
    return [name for name in attributes if name in known]
