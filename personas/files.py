"""Personas in files: a few in YAML, written by hand, or thousands as the rows of a table (`personas.tables`).

YAML::

    personas:
      - name: ada
        weights: {E: 0.3, N: 0.7}
        strengths: {E: 1.5}     # optional
        profile: {age: 36, gender: woman, profession: school teacher, hobbies: [hiking]}   # optional; or text
        personality: She is warm and direct.                                               # optional

A table has a column ``name`` (optional) and columns ``weight.E`` and ``strength.E``, named after the
attributes; an empty cell is no weight, or the decoder's strength. ``profile`` and ``personality`` are
columns of text. A row of JSON may have ``weights`` and ``strengths`` as YAML has them. Text stays text: a persona named
``001`` is ``001``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from personas.attributes import REFERENCE, Persona, Weights
from personas.errors import SourceError, TableError
from personas.profiles import profile_text
from personas.tables import FORMATS_SAID, id_text, is_table, read_table
from personas.weights import explicit
from personas.yaml_files import YamlError, dump_yaml, read_yaml_file

_YAML = (".yaml", ".yml")
# A number in a cell of text.
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_FIELDS = ("name", "weights", "strengths", "profile", "personality")
_TEXT_COLUMNS = ("name", "profile", "personality")


class PersonaError(SourceError):
    """Personas that can't be used."""


def load_personas(path: str | Path, attributes: Sequence[str], *, normalize: bool = False) -> list[Persona]:
    """The personas of a file, in its order; each weighs every one of ``attributes``, zeros included.

    Args:
        path: ``.yaml``, ``.yml``, or a table.
        attributes: names that may have weights, in the order wanted.
        normalize: whether weights are divided by their sum.

    Raises:
        PersonaError: no such file, not of these kinds, not readable, no persona in it; or the first one
            that is wrong, by its place in the file: an unknown field or attribute, a weight or strength
            that is no number or out of range, weights that do not sum to 1, a name or persona that
            came before.
    """
    path = Path(path)
    rows = _yaml_rows(path) if path.suffix.lower() in _YAML else _table_rows(path)
    personas: list[Persona] = []
    names: dict[str, str] = {REFERENCE: "the control"}
    seen: dict[tuple[Weights, Weights, str, str], str] = {}
    for place, row in rows:
        try:
            persona = _persona(row, attributes, normalize=normalize)
        except ValueError as error:
            raise PersonaError(str(path), f"{place}: {error}") from error
        key = Weights(persona.active), Weights(persona.strengths), persona.profile, persona.personality
        if key in seen:
            raise PersonaError(str(path), f"{place}: the weights, strengths and texts of {seen[key]} again; remove one")
        if persona.name in names:
            taken = names[persona.name]
            raise PersonaError(str(path), f"{place}: the name {persona.name!r} is taken by {taken}; give another")
        seen[key] = names[persona.name] = place
        personas.append(persona)
    if not personas:
        raise PersonaError(str(path), "holds no persona; write at least one")
    return personas


def save_personas(path: str | Path, personas: Iterable[Persona]) -> None:
    """Write a YAML file that :func:`load_personas` reads back; weights of 0 are left out."""
    entries: list[dict[str, Any]] = []
    for persona in personas:
        entry: dict[str, Any] = {"name": persona.name, "weights": persona.active}
        if persona.strengths:
            entry["strengths"] = dict(persona.strengths)
        entry |= {key: text for key, text in persona.texts.items() if text}
        entries.append(entry)
    Path(path).write_text(dump_yaml({"personas": entries}), encoding="utf-8")


def _persona(row: Mapping[str, Any], attributes: Sequence[str], *, normalize: bool) -> Persona:
    for key in row:
        if key not in _FIELDS:
            raise ValueError(f"{key}: unknown field; a persona has {', '.join(_FIELDS)}")
    name = row.get("name")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        hint = " (no, yes, on and off are text in quotation marks only)" if isinstance(name, bool) else ""
        raise ValueError(f"name: {name!r} is no name; give text{hint}, or leave it out")
    weights = _numbers("weights", row.get("weights"), attributes)
    strengths = _numbers("strengths", row.get("strengths") or {}, attributes)
    profile, personality = row.get("profile"), row.get("personality")
    if personality is not None and not isinstance(personality, str):
        raise ValueError(f"personality: {personality!r} is no text; give a sentence or two, or leave it out")
    return explicit(
        attributes,
        weights,
        name=name,
        normalize=normalize,
        strengths=strengths,
        profile="" if profile is None else profile_text(profile),
        personality=(personality or "").strip(),
    )


def _numbers(field: str, value: object, attributes: Sequence[str]) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{field}: {value!r} is no mapping; write {{attribute: number}}")
    for key, number in value.items():
        if key not in attributes:
            raise ValueError(f"{field}.{key}: {key!r} is not among the attributes {', '.join(attributes)}")
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{field}.{key}: {number!r} is no number; give one")
    return {str(key): float(number) for key, number in value.items()}


def _yaml_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    source = str(path)
    try:
        data = read_yaml_file(path)
    except YamlError as error:
        raise PersonaError(source, str(error)) from error
    entries = data.get("personas") if isinstance(data, dict) and set(data) == {"personas"} else None
    if not isinstance(entries, list):
        raise PersonaError(source, "must hold one field, 'personas', with a list of {name, weights, strengths}")
    for index, entry in enumerate(entries):
        place = f"personas[{index}]"
        if not isinstance(entry, Mapping):
            raise PersonaError(source, f"{place}: {entry!r} is no mapping; write {{name, weights}}")
        yield place, entry


def _table_rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    source = str(path)
    if not is_table(path):
        said = f"{', '.join(_YAML)}, {FORMATS_SAID}"
        raise PersonaError(source, f"is no persona file by its name; personas are read from {said}")
    try:
        table = read_table(path)
        for row in table.rows:
            for column in row.values if table.columns is None else table.columns:
                _check_column(column, source)
            if row.problem is not None:
                raise PersonaError(source, f"{row.place}: {row.problem}")
            try:
                yield row.place, _entry(row.values)
            except ValueError as error:
                raise PersonaError(source, f"{row.place}: {error}") from error
    except TableError as error:
        raise PersonaError(source, error.problem) from error


def _check_column(column: str, source: str) -> None:
    if column not in _FIELDS and column.partition(".")[0] not in ("weight", "strength"):
        known = f"{', '.join(_TEXT_COLUMNS)}, weight.<A> and strength.<A>"
        raise PersonaError(source, f"column {column!r}: unknown; a table has {known}")


def _entry(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of a table in the form of a persona in YAML. Raises ValueError: a cell that holds no number."""
    entry: dict[str, Any] = {"weights": {}, "strengths": {}}
    for column, value in values.items():
        of_kind, dot, attribute = column.partition(".")
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            continue
        if column == "name":
            entry[column] = value if isinstance(value, bool) else id_text(value)
        elif isinstance(value, Mapping):  # in Parquet every one of them has the keys of all
            given = {key: each for key, each in value.items() if each is not None}
            entry[column] = entry.get(column, {}) | given
        elif dot:
            entry[f"{of_kind}s"][attribute] = _number(column, value)
        else:
            entry[column] = value
    return entry


def _number(column: str, value: Any) -> Any:
    """What a cell holds, as a number where it is one in text."""
    if not isinstance(value, str):
        return value
    if not _NUMBER.fullmatch(value.strip()):
        raise ValueError(f"{column}: {value!r} is no number; write one like 0.5")
    return float(value)
