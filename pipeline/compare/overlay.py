"""What a method has otherwise than the base: its decoder, system message, adapters, or one model for each persona."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from personas import Persona
from pipeline.compare.model import SINGLE, Comparison, Method
from pipeline.compare.people import named_without
from pipeline.job.fields import AttributeSpec
from pipeline.job.model import Job
from pipeline.store.files import exists
from pipeline.store.places import is_url, joined

# What an attribute is, whichever adapter speaks for it: judges grade by it, and all methods are judged alike.
_SAID = ("description", "opposite")
_PLACES = ("adapter", "reference")


def lay_over(
    data: dict[str, Any], comparison: Comparison, method: Method, attribute: str | None, task: Job | None
) -> None:
    """Put a method's settings over the base's.

    Args:
        data: fields of the base's job, changed in place. attribute: that has all weight, of method ``single``.
        task: the task's job; needed of that, and where the method has models.
    """
    data["decoder"] |= method.settings()
    if method.system is not None:
        data["model"]["system"] = method.system
    for entry in method.attributes:
        at = [each["name"] for each in data["attributes"]].index(entry.name)
        data["attributes"][at] = _other(comparison, entry, data["attributes"][at])
    if method.decoder.name == SINGLE:
        data["decoder"] |= {"name": "routing", "horizon": None}
    if task is None:
        return
    personas = task.build_personas()
    if method.models:
        data["attributes"] += _models(comparison, method, task)
        weights = [_explicit(each, model_attribute(method, _own(method, each))) for each in personas]
    else:
        weights = [_explicit(each, str(attribute)) for each in _different(personas)]
    data["personas"] = {"kind": "explicit", "weights": weights}


def model_attribute(method: Method, persona: str) -> str:
    """What a persona's model is called among attributes: ``model-1-ENTJ``."""
    number = list(method.models).index(persona) + 1
    return f"model-{number}-{re.sub('[^A-Za-z0-9_-]', '-', persona)}"


def _other(comparison: Comparison, entry: AttributeSpec, base: Mapping[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = entry.model_dump(mode="json", exclude_none=True)
    for name in _PLACES:
        if name in given:
            given[name] = from_base(comparison, given[name], may_be_an_id=True)
    return {name: base[name] for name in _SAID if base.get(name) is not None} | given


def _models(comparison: Comparison, method: Method, task: Job) -> list[dict[str, Any]]:
    """An attribute for each model, those of other tasks' personas too: one load serves all tasks."""
    like = {each.name: each.description for each in task.described_attributes()}
    asked: dict[str, list[str]] = {}
    for persona in task.build_personas():
        asked[_own(method, persona)] = [like[name] for name in persona.active if like[name]]
    return [
        {
            "name": model_attribute(method, name),
            "adapter": from_base(comparison, place, may_be_an_id=True),
            "description": " ".join(asked.get(name, [])) or f"As {name}.",
        }
        for name, place in method.models.items()
    ]


def _own(method: Method, persona: Persona) -> str:
    """The name that a persona has among the method's models."""
    return persona.name if persona.name in method.models else named_without(persona.name)


def _different(personas: Sequence[Persona]) -> list[Persona]:
    """Of personas that come to the same with all weight on one attribute the first."""
    first: dict[tuple[str, ...], Persona] = {}
    for persona in personas:
        first.setdefault(tuple(persona.texts.values()), persona)
    return list(first.values())


def _explicit(persona: Persona, attribute: str) -> dict[str, Any]:
    return {
        "name": persona.name,
        "weights": {attribute: 1.0},
        **{name: text or None for name, text in persona.texts.items()},
    }


def from_base(comparison: Comparison, place: str, *, may_be_an_id: bool) -> str:
    """A place that stands relative to the comparison file, relative to the base job's folder."""
    if comparison.folder == comparison.job.folder or is_url(place):
        return place
    found = joined(comparison.folder, place)
    return place if may_be_an_id and not exists(found) else str(found)
