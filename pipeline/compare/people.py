"""People of a table, as whom every persona of a task is written: role-play's profiles and personalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from personas.attributes import Persona
from personas.errors import TableError
from personas.files import PersonaError
from personas.tables import read_table

# Stands for both texts of a person whose table is missing, where a file is checked without it.
NOBODY: Mapping[str, str] = {"profile": "nobody", "personality": "nobody"}


def read_people(path: Path, limit: int | None) -> list[dict[str, str]]:
    """``profile`` and ``personality`` of a table's rows, each pair once, in their order.

    Args:
        limit: of people, from the first; ``None``: all.

    Raises:
        PersonaError: no such file, a row that is none or without these two texts, nobody in it.
    """
    found: list[dict[str, str]] = []
    try:
        for row in read_table(path).rows:
            if limit is not None and len(found) >= limit:
                break
            person = {name: row.values.get(name) for name in NOBODY}
            if row.problem is not None or not all(isinstance(text, str) and text.strip() for text in person.values()):
                why = row.problem or "has no text in profile and personality; give it both, or remove it"
                raise PersonaError(str(path), f"{row.place}: {why}")
            texts = {name: str(text).strip() for name, text in person.items()}
            if texts not in found:
                found.append(texts)
    except TableError as error:
        raise PersonaError(str(path), error.problem) from error
    if not found:
        raise PersonaError(str(path), "holds nobody; give a table with the columns profile and personality")
    return found


def each_as(personas: Sequence[Persona], people: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Every persona as each of some people, as a job file has explicit personas; named by number, without a text."""
    return [
        {"name": f"{persona.name} as {number}", "weights": persona.active, **person}
        for persona in personas
        for number, person in enumerate(people, 1)
    ]


def named_without(name: str) -> str:
    """The persona's own name, of one that :func:`each_as` has named."""
    return name.rpartition(" as ")[0]
