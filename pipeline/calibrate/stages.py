"""The jobs of a calibration: each attribute alone at several strengths, the job's own personas, other prompts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpg.settings import TABLE
from personas import Persona
from personas.profiles import placeholders
from personas.weights import one_hot
from personas.words import show
from pipeline.compare.arms import weighed
from pipeline.job.adapters import own_judges
from pipeline.job.errors import Problem
from pipeline.job.known import counted
from pipeline.job.model import Job

# Three prompts a half: fewer give no interval.
LEAST_PROMPTS = 6
# Of the job's personas, evenly spread over them, that a calibration writes.
MOST_PERSONAS = 16
# Of a decoder whose personas all have strengths of their own, or that reads none: another of the job changes no text.
_NO_MATTER = {"strength": 1.0}
# Products share an exponent out by weight: a mixture bears more strength than an attribute alone.
SHARES = ("product", "pad")


@dataclass(frozen=True)
class Attributes:
    """Which attributes get a strength.

    Attributes:
        names: those that are calibrated, in the job's order.
        left: attribute -> why it keeps the strength that it has.
    """

    names: tuple[str, ...]
    left: dict[str, str]


def attributes_of(job: Job) -> Attributes:
    """Those that a persona weighs, that a judge whose scores count can judge without a persona's texts."""
    judged = counted(job.judges, job.attribute_names, own_judges(job))
    systems = {each.name: each.system for each in job.described_attributes() if each.system is not None}
    names, left = list[str](), dict[str, str]()
    for name in weighed(job):
        if name not in judged:
            left[name] = "no judge of the job whose scores count knows it"
        elif placeholders(systems.get(name, "")):
            left[name] = "it reads a persona's texts, and the reference alone has none to be judged by"
        else:
            names.append(name)
    return Attributes(tuple(names), left)


def problems_in(job: Job, n_prompts: int) -> Iterator[Problem]:
    """Why a job can't be calibrated, known before a model is loaded."""
    if not job.judges:
        yield Problem("judges", "none given, and strengths are chosen by what is judged; add e.g. {kind: classifier}")
        return
    reads = TABLE[job.decoder.name].text_depends_on
    if reads is not None and "strength" not in reads:
        yield Problem("decoder.name", f"{job.decoder.name!r} reads no strength; take scr-exact or mod")
    own = next((each for each in job.build_personas() if each.strengths), None)
    if job.personas.strengths:
        text = f"{show(list(job.personas.strengths))} overrule decoder.strength, which is to be chosen; remove them"
        yield Problem("personas.strengths", text)
    elif own is not None:
        text = f"{own.name!r} has strengths of its own, which overrule decoder.strength; remove them"
        yield Problem("personas", text)
    elif not attributes_of(job).names:
        why = "; ".join(f"{name}: {why}" for name, why in attributes_of(job).left.items())
        yield Problem("attributes", f"none can be calibrated ({why or 'no persona weighs any'}); give e.g. a judge")
    if n_prompts < LEAST_PROMPTS:
        text = f"{n_prompts}, of which the pilot and its check take three each; give {LEAST_PROMPTS} at least"
        yield Problem("prompts", text)


@dataclass(frozen=True)
class Size:
    """Prompts of the pilot, and of the check after them; texts that a persona writes to each prompt."""

    pilot: int
    check: int
    samples: int
    check_samples: int

    @classmethod
    def of(cls, job: Job, n_prompts: int, texts: int) -> Size:
        """So many texts of each persona, on as many prompts as there are; of a greedy decoder one to each."""
        pilot = min(n_prompts // 2, texts)
        check = min(n_prompts - pilot, texts)
        greedy = job.decoder.temperature == 0
        return cls(pilot, check, *(1 if greedy else -(-texts // n) for n in (pilot, check)))


@dataclass(frozen=True)
class Stages:
    """The jobs, each into a folder that names what it writes: other settings never meet another's texts."""

    job: Job
    names: tuple[str, ...]
    size: Size
    output: Path

    def pilot(self, grid: Sequence[float]) -> Job:
        """Each attribute alone at each strength, and the reference; their names: see :func:`alone`."""
        entries = [
            _entry(replace(persona, name=alone(name, strength)), {name: strength})
            for name, persona in self._alone()
            for strength in grid
        ]
        return self._stage("pilot", entries, _NO_MATTER, check=False)

    def prompting(self) -> Job:
        """The reference told of each attribute alone."""
        entries = [_entry(persona) for _, persona in self._alone()]
        return self._stage("prompting", entries, {"name": "prompting", "tell": "none"} | _NO_MATTER, check=False)

    def mixed(self, strengths: Mapping[str, float], multiplied: Collection[str], factors: Sequence[float]) -> Job:
        """The job's personas at multiples of some attributes' strengths; their names: see :func:`times`."""
        entries = [
            _entry(
                replace(persona, name=times(persona.name, factor)),
                {name: strengths[name] * (factor if name in multiplied else 1.0) for name in persona.active},
            )
            for persona in self.personas()
            for factor in factors
        ]
        return self._stage("mixed", entries, _NO_MATTER, check=False)

    def check(self, stage: str, strengths: dict[str, float]) -> Job:
        """The job's personas, on other prompts."""
        return self._stage(stage, [_entry(each) for each in self.personas()], {"strength": strengths}, check=True)

    def personas(self) -> list[Persona]:
        """Of the job, without the control; of many some, evenly spread."""
        all_of_them = [each for each in self.job.build_personas() if not each.is_control]
        n = min(len(all_of_them), MOST_PERSONAS)
        return [all_of_them[i * len(all_of_them) // n] for i in range(n)]

    @property
    def factors(self) -> tuple[float, ...]:
        """Multiples at which mixtures are tried; none where a strength means the same in a mixture as alone."""
        facts = TABLE[self.job.decoder.name]
        shares = facts.soup or (facts.target or self.job.decoder.aggregate) in SHARES
        most = max(max(each.active.values()) for each in self.personas())
        if not shares or most >= 1:
            return ()
        return tuple(dict.fromkeys(round(each, 2) for each in (1.0, math.sqrt(1 / most), 1 / most)))

    def _alone(self) -> Iterator[tuple[str, Persona]]:
        """Each attribute with a persona of it alone; told, where anybody reads texts, as its first persona is."""
        for name, persona in zip(self.names, one_hot(self.names), strict=True):
            first = next(each for each in self.job.build_personas() if name in each.active)
            yield name, replace(persona, profile=first.profile, personality=first.personality)

    def _stage(self, stage: str, entries: list[dict[str, Any]], decoder: Mapping[str, Any], *, check: bool) -> Job:
        size, prompts = self.size, self.job.prompts.model_dump(mode="json")
        prompts |= {
            "skip": self.job.prompts.skip + (size.pilot if check else 0),
            "limit": size.check if check else size.pilot,
        }
        settings = self.job.decoder.model_dump(mode="json") | {"token_log_ratios": False, **decoder}
        found = self.job.changed(
            name=f"{self.job.name}-{stage}",
            personas={"kind": "explicit", "weights": entries, "control": True},
            prompts=prompts,
            decoder=settings,
            samples_per_cell=size.check_samples if check else size.samples,
            accept=None,
            split=None,
            deadline=None,
        )
        return found.changed(output=str(self.output / f"{stage}-{found.work_hash()[:8]}"))


def alone(name: str, strength: float) -> str:
    """Name of a pilot's persona."""
    return f"{name} x{strength:.15g}"


def times(name: str, factor: float) -> str:
    """Name of a persona at a multiple of strengths."""
    return f"{name} times {factor:.15g}"


def _entry(persona: Persona, strengths: dict[str, float] | None = None) -> dict[str, Any]:
    """As a job file has explicit personas."""
    texts = {name: text or None for name, text in persona.texts.items()}
    return {"name": persona.name, "weights": persona.active, "strengths": strengths or {}, **texts}
