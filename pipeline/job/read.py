"""From a YAML file and ``--set a.b=c`` overrides to plain data; every fault has its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from personas.secrets import HIDDEN, masked, names_a_secret
from personas.text import is_storable
from personas.words import dotted, show
from personas.yaml_files import Fault, YamlError, load_yaml, read_yaml_file
from pipeline.job.errors import JobError, Problem


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        JobError: no such file, not UTF-8, not YAML (with line and column), a key given twice in one mapping, a number
            that nobody writes so, or something other than a mapping.
    """
    file = str(path)
    try:
        data = read_yaml_file(path)
    except YamlError as error:
        raise JobError(file, [_problem(fault) for fault in error.faults]) from error
    if not isinstance(data, dict):
        held = "nothing" if data is None else show(data)
        raise JobError(file, [Problem("job file", f"holds {held}; write a mapping, one 'field: value' a line")])
    return data


def _problem(fault: Fault) -> Problem:
    remedies = {"no such file": "; check the path, or copy one from workflows/", "is a directory": "; give a YAML file"}
    return Problem(fault.field or "job file", fault.text + remedies.get(fault.text, ""))


def apply_overrides(data: dict[str, Any], overrides: Sequence[str], file: str) -> list[str]:
    """Set ``a.b=c`` in ``data`` for each override, in order; returns the dotted paths that were set.

    The value is read as YAML. A number is a list index: ``judges.0.kind`` or ``judges[0].kind``.
    Mappings on the way are made where they are missing, list entries are not.

    Raises:
        JobError: no ``=``, an empty path, a value that is not YAML, a path through something that
            is no mapping or list, or an index that the list does not have.
    """
    return [_apply_one(data, each, file) for each in overrides]


def unstorable(value: object, location: tuple[str | int, ...] = ()) -> Iterator[Problem]:
    """Texts of a job that no file could hold: YAML can spell half of a surrogate pair."""
    if isinstance(value, str):
        if not is_storable(value):
            yield Problem(
                dotted(location) or "job file", f"{show(value)} holds half a surrogate pair; write the whole character"
            )
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from unstorable(key, location)
            yield from unstorable(each, (*location, key if isinstance(key, str | int) else str(key)))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from unstorable(each, (*location, index))


def _apply_one(data: dict[str, Any], override: str, file: str) -> str:
    path, equals, text = override.partition("=")
    parts = re.sub(r"\[(\d+)\]", r".\1", path.strip()).split(".")
    secret = names_a_secret(parts[-1])
    shown = HIDDEN if secret else show(text)

    def fail(what: str) -> JobError:
        what_was_set = f"{path}={HIDDEN}" if secret else masked(override)
        return JobError(file, [Problem(f"--set {what_was_set!r}", what)])

    if not equals or not all(parts):
        raise fail("is not field=value; write e.g. --set decoder.name=scr")
    try:
        value = load_yaml(text)
    except YamlError as error:
        fault = error.faults[0]
        said = {
            "twice": f"the value {shown} gives {fault.field} twice; keep one",
            "number": f"the value {shown} is no plain number; put text in quotes" if secret else fault.text,
        }.get(fault.kind, f"the value {shown} is not YAML; put it in quotes")
        raise fail(said) from error
    here: Any = data
    done: list[str | int] = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        key: str | int = part
        if isinstance(here, list):
            if not part.isdecimal() or int(part) >= len(here):
                raise fail(f"{dotted(done)} is a list of {len(here)}; give an index from 0 to {len(here) - 1}")
            key = int(part)
        elif not isinstance(here, dict):
            raise fail(f"{dotted(done)} is {show(here)}, no mapping; set {dotted(done)} as a whole")
        done.append(key)
        if last:
            here[key] = value
        else:
            if isinstance(here, dict) and here.get(part) is None:
                if parts[number + 1].isdecimal():
                    raise fail(f"{dotted(done)} has no entries to index; set {dotted(done)}=[...] as a whole")
                here[part] = {}
            here = here[key]
    return dotted(done)
