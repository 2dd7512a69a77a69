"""The arms of a comparison: one task under one method at one strength, each a job of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.compare.model import Comparison, Method, Selection, Task
from pipeline.compare.overlay import from_base, lay_over
from pipeline.compare.people import NOBODY, each_as, read_people
from pipeline.job.model import Job
from pipeline.store.copies import here
from pipeline.store.files import exists
from pipeline.store.places import joined


@dataclass(frozen=True)
class Curve:
    """A method with all but its strength settled.

    Attributes:
        horizon: where the method has several; ``"none"``: it is never reset.
        attribute: that has all the weight, of method ``single``.
    """

    method: str
    horizon: int | str | None = None
    attribute: str | None = None

    @property
    def label(self) -> str:
        """``scr h8``, ``single E``."""
        parts = [self.method]
        if self.horizon is not None:
            parts.append(f"h{self.horizon}")
        if self.attribute is not None:
            parts.append(self.attribute)
        return " ".join(parts)


def point_label(curve: str, strength: float | None) -> str:
    """``scr h8 x2``; strengths that differ have names that do."""
    return curve if strength is None else f"{curve} x{strength:.15g}"


@dataclass(frozen=True)
class Point:
    """A curve at one of its strengths; ``None``: the decoder's own, or it has none."""

    curve: Curve
    strength: float | None = None

    @property
    def label(self) -> str:
        """See :func:`point_label`."""
        return point_label(self.curve.label, self.strength)

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self.label.replace(" ", "-")


@dataclass(frozen=True)
class Arm:
    """What is written and measured at once."""

    task: str
    point: Point

    @property
    def label(self) -> str:
        return f"{self.task}: {self.point.label}"

    @property
    def folder(self) -> str:
        """Where it lies in its stage's folder."""
        return f"{self.task}/{self.point.folder}"


@dataclass(frozen=True)
class Stage:
    """On what an arm writes: so many of its task's prompts after the first ``skip``, each ``samples`` times."""

    name: str
    skip: int
    limit: int
    samples: int


def points_of(method: Method, attributes: tuple[str, ...], personas: Collection[str] | None = None) -> Iterator[Point]:
    """All points of a method, curve by curve; none of one that is not scored, or lacks a model of any persona.

    Args:
        attributes: of the task, that any persona weighs. personas: of the task, see :func:`personas_of`; ``None``:
            whoever they are.
    """
    if method.not_scored is not None or (method.models and not set(personas or ()) <= set(method.models)):
        return
    horizons: tuple[int | str | None, ...] = tuple("none" if h is None else h for h in method.horizons) or (None,)
    alone: tuple[str | None, ...] = attributes if method.one_attribute else (None,)
    for horizon in horizons:
        for attribute in alone:
            for strength in method.strengths or (None,):
                yield Point(Curve(method.name, horizon, attribute), strength)


def weighed(job: Job) -> tuple[str, ...]:
    """The attributes that any persona of a job weighs, in the job's order."""
    personas = job.build_personas()
    return tuple(name for name in job.attribute_names if any(name in persona.active for persona in personas))


def personas_of(comparison: Comparison, task: Task) -> tuple[str, ...]:
    """Names of a task's personas, whoever writes as them. Raises PersonaError: they can't be read."""
    alone = task.model_copy(update={"people": None})
    return tuple(persona.name for persona in job_of(comparison, alone).build_personas())


def job_of(comparison: Comparison, task: Task, point: Point | None = None, stage: Stage | None = None) -> Job:
    """The job of an arm; of a task alone, as the base's decoder would write it to all its prompts.

    Where a table of people is missing, somebody stands for them, see :data:`pipeline.compare.people.NOBODY`.

    Raises:
        KeyError: the arm is none of the comparison's. PersonaError: people can't be read; or personas, where the method
            is ``single`` or has models, or there are people.
    """
    base = comparison.job
    data = base.model_dump(mode="json")
    if "aggregate" not in base.decoder.model_fields_set:  # unsaid by an arm, too: see pipeline.plan.defaults
        del data["decoder"]["aggregate"]
        if "horizon" not in base.decoder.model_fields_set:  # else it would be one that somebody has given
            del data["decoder"]["horizon"]
    data["personas"] = task.personas.model_dump(mode="json")
    data["prompts"] = task.prompts.model_dump(mode="json")
    for section, names in ((data["personas"], ("file",)), (data["prompts"], ("file", "dataset"))):
        for name in names:
            if section.get(name):
                section[name] = from_base(comparison, section[name], may_be_an_id=name == "dataset")
    data |= {"name": f"{comparison.name}-{task.name}", "samples_per_cell": 1}
    if task.people is not None:
        place, limit = joined(comparison.folder, task.people.file), task.people.limit
        people = read_people(here(place), limit) if exists(place) else [NOBODY]
        personas = _validated(comparison, data).build_personas()
        data["personas"] = {"kind": "explicit", "weights": each_as(personas, people)}
    if point is not None:
        method, curve = comparison.method(point.curve.method), point.curve
        alone = method.one_attribute or bool(method.models)
        lay_over(data, comparison, method, curve.attribute, job_of(comparison, task) if alone else None)
        if point.strength is not None:
            data["decoder"]["strength"] = point.strength
        if curve.horizon is not None:
            data["decoder"]["horizon"] = None if curve.horizon == "none" else curve.horizon
        if method.accept is not None:
            data["accept"] = _accept(method.accept, 1)
    if stage is not None:
        arm = Arm(task.name, point or Point(Curve("base")))
        samples = stage.samples if data["decoder"]["temperature"] else 1  # greedy: the same again
        data["prompts"] |= {"skip": task.prompts.skip + stage.skip, "limit": stage.limit}
        data |= {
            "name": f"{comparison.name}-{stage.name}-{arm.folder.replace('/', '-')}",
            "samples_per_cell": samples,
            "output": str(comparison.output_folder / stage.name / arm.folder),
        }
        if point is not None and method.accept is not None:
            data |= {"samples_per_cell": 1, "accept": _accept(method.accept, samples)}
    return _validated(comparison, data)


def _accept(selection: Selection, kept: int) -> dict[str, Any]:
    """A job's, of so many texts that are to be kept of each prompt and persona."""
    chosen = selection.model_dump(mode="json")
    return chosen | {"rows_per_cell": kept, "max_candidates": kept * selection.max_candidates}


def _validated(comparison: Comparison, data: dict[str, Any]) -> Job:
    context = {"folder": comparison.job.folder, "shipped": comparison.job.shipped}
    return Job.model_validate(data, context=context)
