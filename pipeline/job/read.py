"""From a YAML file and ``--set a.b=c`` overrides to plain data; every fault has its line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from personas.secrets import HIDDEN, masked, names_a_secret
from personas.text import is_storable
from pipeline.job.errors import JobError, Problem, dotted, show


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: ``1e-3`` and ``-.5`` are numbers, and a date is the text that was written."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+|[-+]\.\d+)\Z"),
    list("-+.0123456789"),
)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        JobError: no such file, not UTF-8, not YAML (with line and column), a key given twice in
            one mapping, or something other than a mapping.
    """
    file = str(path)
    try:
        text = Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = Problem("job file", f"byte {error.start + 1} is not UTF-8; save the file as UTF-8")
        raise JobError(file, [problem]) from error
    except OSError as error:
        raise JobError(file, [Problem("job file", _why_unreadable(error))]) from error
    try:
        data, twice = _load(text)
    except yaml.YAMLError as error:
        raise JobError(file, [_syntax_problem(error, text)]) from error
    except RecursionError as error:
        problem = Problem("job file", "nested too deeply, or an anchor holds itself; write it flat")
        raise JobError(file, [problem]) from error
    if twice:
        raise JobError(file, twice)
    if not isinstance(data, dict):
        held = "nothing" if data is None else show(data)
        raise JobError(file, [Problem("job file", f"holds {held}; write a mapping, one 'field: value' a line")])
    return data


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
            yield Problem(dotted(location), f"{show(value)} holds half a surrogate pair; write the whole character")
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
        value, twice = _load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise fail(f"the value {shown} is not YAML; put it in quotes") from error
    if twice:
        raise fail(f"the value {shown} gives {twice[0].field} twice; keep one")
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


def _load(text: str) -> tuple[Any, list[Problem]]:
    """What the text holds, and its keys that are given twice; RecursionError if it holds itself."""
    problems = list(_duplicate_keys(yaml.compose(text, _Loader), (), [], set()))
    return yaml.load(text, _Loader), problems


def _duplicate_keys(
    node: yaml.Node | None, location: tuple[str | int, ...], above: list[int], seen: set[int]
) -> Iterator[Problem]:
    """Keys given twice in one mapping, of which PyYAML would silently keep the last."""
    if id(node) in above:
        raise RecursionError("an anchor holds itself")
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    above.append(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, each in enumerate(node.value):
            yield from _duplicate_keys(each, (*location, index), above, seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            line = key.start_mark.line + 1
            if key.value in lines and key.tag != "tag:yaml.org,2002:merge":
                field = dotted((*location, key.value))
                hidden = names_a_secret(key.value) or not isinstance(value, yaml.ScalarNode)
                what = "a second value" if hidden else show(value.value)
                yield Problem(field, f"{what} on line {line}, but line {lines[key.value]} gives it too; keep one")
            lines[key.value] = line
            yield from _duplicate_keys(value, (*location, key.value), above, seen)
    above.pop()


def _why_unreadable(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file; check the path, or copy one from workflows/"
    return f"can't be read ({error.strerror}); give the path of a YAML file"


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    remedy = "check indentation, quotes and brackets there"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # a character that YAML does not allow
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        return Problem(f"line {line}", f"{show(text[position : position + 1])} is not allowed in YAML; remove it")
    lines = text.splitlines()
    number = min(mark.line, max(len(lines) - 1, 0))
    value = show(lines[number].strip()) if lines else "nothing"
    why = getattr(error, "problem", None) or "not YAML"
    return Problem(f"line {number + 1}, column {mark.column + 1}", f"{value} is not YAML ({why}); {remedy}")
