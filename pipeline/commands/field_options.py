"""Options of a command line made from a model's fields: name, type, default, help and checks stand once, in the model.

``prompt_price: float = Field(default=0.0, description="Per million prompt tokens.")`` is
``--prompt-price PROMPT_PRICE  per million prompt tokens (0)``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Collection, Mapping
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from pipeline.job.errors import Problem, problems_of


def fields_of(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields that are options: all but the tag of a union."""
    return {name: field for name, field in model.model_fields.items() if name != "kind"}


def add_options(group: argparse._ArgumentGroup, model: type[BaseModel], *, there: Collection[str] = ()) -> None:
    """An option for each field; one that is left out is ``None``, so that the model's default holds.

    Args:
        there: fields whose options another model of the same command has made.
    """
    for name, field in fields_of(model).items():
        if name in there:
            continue
        kind = _type_of(field.annotation)
        how: dict[str, Any] = {"choices": get_args(kind)} if get_origin(kind) is Literal else {"type": _reader(kind)}
        if _may_be_null(field.annotation) and field.default is not None:
            how["type"] = _or_null(how["type"])
        if get_origin(kind) is Mapping:
            how["metavar"] = "JSON"
        group.add_argument(flag(name), help=_help(field), **how)


def given(options: argparse.Namespace, model: type[BaseModel]) -> dict[str, Any]:
    """What the command line says of a model's fields."""
    values = {name: getattr(options, name) for name in fields_of(model)}
    return {name: None if value is _NULL else value for name, value in values.items() if value is not None}


def option_problems(error: ValidationError, values: dict[str, Any], model: type[BaseModel]) -> str:
    """Pydantic's findings, a line each: option, value, remedy."""
    found = problems_of(error, values, model.model_json_schema())
    return "\n".join(_line(problem) for problem in found)


def flag(name: str) -> str:
    """``in_flight`` as ``--in-flight``."""
    return f"--{name.replace('_', '-')}"


def _line(problem: Problem) -> str:
    return f"{flag(problem.field)}: {problem.text}"


# Said on the command line for a field that is null by its author's wish and not by default.
_NULL = object()


def _reader(kind: Any) -> Callable[[str], Any]:
    """What reads an option's text."""
    return _json if get_origin(kind) is Mapping else kind


def _json(text: str) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise argparse.ArgumentTypeError("no JSON; give an object, e.g. '{\"top_k\": 1}'") from None
    return found


def _or_null(reader: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        return _NULL if text in ("null", "none") else reader(text)

    read.__name__ = getattr(reader, "__name__", "value")
    return read


def _may_be_null(annotation: Any) -> bool:
    return NoneType in get_args(annotation)


def _type_of(annotation: Any) -> Any:
    """``Annotated[float, ...] | None`` is ``float``."""
    if get_origin(annotation) is Annotated:
        return _type_of(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part is not NoneType]
    return _type_of(parts[0]) if NoneType in get_args(annotation) and len(parts) == 1 else annotation


def _help(field: FieldInfo) -> str:
    """The description as a command line puts it, with the default in brackets."""
    said = (field.description or "").removesuffix(".").replace("null:", "left out:")
    default = field.default
    if field.is_required() or default is None:
        shown = ""
    else:
        shown = f" ({default:g})" if isinstance(default, float) else f" ({default})"
    if _may_be_null(field.annotation) and default is not None:
        said = said.replace("left out:", "null:")
    return f"{said[:1].lower()}{said[1:]}{shown}".replace("%", "%%")
