"""What is wrong with a job file, in lines for its author: file, field, value, remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from personas.secrets import names_a_secret
from personas.words import Unshown, dotted, show

Location = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing to repair. ``field`` is a dotted path (``attributes[1]``), ``text`` value and remedy."""

    field: str
    text: str


class JobError(ValueError):
    """A job file that can't be run.

    ``lines`` has one line a problem, each naming file, field, value and remedy. ``str`` of the
    error is one line: the first of them, and how many more there are.
    """

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__(file, self.problems)  # as args, so that the error pickles

    @property
    def lines(self) -> tuple[str, ...]:
        """One line a problem."""
        return tuple(_one_line(f"{self.file}: {each.field}: {each.text}") for each in self.problems)

    def __str__(self) -> str:
        more = len(self.problems) - 1
        return self.lines[0] + (f" (+{more} more)" if more else "")


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """``did you mean 'sum'?`` or, where nothing is near, ``choose from sum, product``."""
    choices = list(choices)
    near = difflib.get_close_matches(str(word), choices, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(choices)}"


def problems_of(error: ValidationError, data: object, schema: Mapping[str, Any]) -> list[Problem]:
    """Pydantic's findings in the words of this house.

    Args:
        error: what validation raised.
        data: what was validated: tells a field's name from the tag of a union in a location.
        schema: the model's JSON schema: tells which fields there are.
    """
    return [
        _problem(dict(each), data, schema)
        for each in error.errors(include_url=False)
        # a list whose entries are wrong is also reported as too short: an echo, no second problem
        if not (each["type"] == "too_short" and each["input"])
    ]


def with_origin(problem: Problem, set_paths: Iterable[str]) -> Problem:
    """The problem, with a word on --set where the field came from there and not from the file.

    Args:
        set_paths: dotted paths of what was set.
    """
    from_set = any(problem.field == path or problem.field.startswith((f"{path}.", f"{path}[")) for path in set_paths)
    return Problem(problem.field, f"{problem.text} (from --set)") if from_set else problem


_KEY_REMEDY = "a key is read from the environment: export it, and name the variable in api_key_env"


_WANTED = {
    "string_type": "text (quotes make text of anything)",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "tuple_type": "a list, in [ ] or one '- entry' a line",
    "list_type": "a list, in [ ] or one '- entry' a line",
    "dict_type": "a mapping, e.g. {field: value}",
    "mapping_type": "a mapping, e.g. {field: value}",
    "model_type": "a mapping, e.g. {field: value}",
    "model_attributes_type": "a mapping, e.g. {field: value}",
}
_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def _problem(error: Mapping[str, Any], data: object, schema: Mapping[str, Any]) -> Problem:
    kind, raw, value, ctx = error["type"], error["loc"], error["input"], error.get("ctx", {})
    location = _without_tags(raw, data)
    field = dotted(location) or "job file"
    if names_a_secret(str(raw[-1] if raw else "")):  # whatever stands there
        if kind == "extra_forbidden":
            return Problem(field, f"unknown field; {_KEY_REMEDY}")
        value = Unshown(value)
    if kind == "extra_forbidden":
        return Problem(field, f"unknown field (value {show(value)}); {_field_hint(raw, location, schema)}")
    if kind == "missing":
        about = _node(schema, raw).get("description", "required").removesuffix(".")
        return Problem(field, f"nothing given; add it ({about})")
    if kind == "union_tag_not_found":
        return Problem(f"{field}.kind", f"nothing given; {did_you_mean('', _quoted(_tags(schema, raw)))}")
    if kind == "union_tag_invalid":
        hint = did_you_mean(ctx["tag"], _quoted(ctx["expected_tags"]))
        return Problem(f"{field}.kind", f"{show(ctx['tag'])} is not one of its kinds; {hint}")
    if kind == "literal_error":
        hint = did_you_mean(value, _quoted(ctx["expected"]))
        return Problem(field, f"{show(value)} is not one of its values; {hint}")
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return Problem(field, f"{show(value)} is out of range; give a number {words} {ctx[key]:g}")
    if kind == "string_type" and isinstance(value, bool):
        return Problem(field, f"{show(value)} is {_kind(value)}; give text (quotes make text of yes, no, on, off)")
    if kind in _WANTED:
        return Problem(field, f"{show(value)} is {_kind(value)}; give {_WANTED[kind]}")
    if kind in ("string_too_short", "too_short"):
        return Problem(field, f"{show(value)} is empty; give at least one {_unit(kind)}")
    if kind == "string_pattern_mismatch":
        return Problem(field, f"{show(value)} is no plain name; use letters and digits, and - or _ inside")
    if kind == "invalid_key":
        where = dotted(location[:-1]) or "job file"
        return Problem(where, f"the key {show(value)} is {_kind(value)}; a field's name is text")
    if kind == "value_error":  # raised by a validator of the job file's model, value and remedy included
        return Problem(field, str(ctx["error"]))
    return Problem(field, f"{show(value)} can't be used ({error['msg']}); see its description in `mpg schema`")


def _unit(kind: str) -> str:
    return "character" if kind == "string_too_short" else "entry"


def _without_tags(location: Location, data: object) -> Location:
    """The location as the author sees it: no tags of unions, nothing below what was written."""
    path: list[str | int] = []
    for number, part in enumerate(location):
        if isinstance(data, Mapping):
            if part not in data and part == data.get("kind") and number < len(location) - 1:
                continue
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int):
            data = data[part] if part < len(data) else None
        else:
            break
        path.append(part)
    return tuple(path)


def _field_hint(raw: Location, location: Location, schema: Mapping[str, Any]) -> str:
    """Where a field that is unknown here may have been meant to stand."""
    name = str(raw[-1])
    known = list(_node(schema, raw[:-1]).get("properties", {}))
    if not difflib.get_close_matches(name, known, n=1) and len(location) == 1:
        for room in known:
            if name in _node(schema, (room,)).get("properties", {}):
                return f"did you mean {room}.{name}?"
    return did_you_mean(name, known)


def _node(schema: Mapping[str, Any], location: Location) -> Mapping[str, Any]:
    """The part of a JSON schema that describes a location of pydantic's; empty if there is none."""
    node = _resolved(schema, schema)
    for part in location:
        tags = node.get("discriminator", {}).get("mapping", {})
        if part in tags:
            node = {"$ref": tags[part]}
        elif isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part, node.get("additionalProperties", {}))
        node = _resolved(node, schema)
    return node


def _resolved(node: Any, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node with references followed; of alternatives, the mapping among them."""
    if not isinstance(node, Mapping):
        return {}
    if "$ref" in node:
        target = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        return {**_resolved(target, schema), **{k: v for k, v in node.items() if k != "$ref"}}
    for each in node.get("anyOf", ()):
        found = _resolved(each, schema)
        if "properties" in found:
            return {**found, **{k: v for k, v in node.items() if k != "anyOf"}}
    return node


def _tags(schema: Mapping[str, Any], location: Location) -> str:
    tags = _node(schema, location).get("discriminator", {}).get("mapping", {})
    return ", ".join(repr(tag) for tag in tags)


def _quoted(text: str) -> list[str]:
    """The words in single quotes, of a list as pydantic writes it."""
    return re.findall(r"'([^']*)'", text)


def _kind(value: object) -> str:
    """A value's type in words."""
    value = value.value if isinstance(value, Unshown) else value
    if isinstance(value, bool):
        return "a truth value"
    for kind, word in (
        (str, "text"),
        (int, "a whole number"),
        (float, "a number with decimals"),
        (Mapping, "a mapping"),
        (list | tuple, "a list"),
    ):
        if isinstance(value, kind):
            return word
    return "nothing" if value is None else f"a {type(value).__name__}"


def _one_line(text: str) -> str:
    """The text with line breaks and other control characters spelled out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
