"""The one reader of YAML, of job files and of personas: as people mean it, and every fault with its line.

``1e-3`` and ``-.5`` are numbers, a date is the text that was written. A key that stands twice in one mapping is a
fault, and so is a number that nobody writes so: YAML 1.1 takes ``010`` for 8, ``1:30`` for 90, ``0x10`` for 16 and
``1_000`` for 1000.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from personas.errors import why_unreadable
from personas.secrets import names_a_secret
from personas.words import dotted, show

_TAG = "tag:yaml.org,2002:"
# Numbers as people write them; what YAML takes for one beyond these is refused.
_PLAIN_NUMBERS = {
    f"{_TAG}int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)"),
    f"{_TAG}float": re.compile(
        r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
    ),
}


# A file of thousands of personas has fewer; a small file whose aliases hold aliases has more than any reader can read.
MOST_VALUES = 5_000_000


@dataclass(frozen=True)
class Fault:
    """One thing to repair.

    Attributes:
        field: a dotted path (``attributes[1]``), or a line and column; empty: the file as a whole.
        text: value and remedy.
        kind: what is wrong: the file can't be read, it is no YAML, a key stands twice, a number nobody writes so.
    """

    field: str
    text: str
    kind: Literal["file", "syntax", "twice", "number"] = "syntax"


class YamlError(ValueError):
    """Text that can't be used as YAML; ``faults`` are one or more."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)  # as an argument, so that the error pickles

    def __str__(self) -> str:
        first = self.faults[0]
        more = len(self.faults) - 1
        return ": ".join(filter(None, (first.field, first.text))) + (f" (+{more} more)" if more else "")


class _Loader(yaml.SafeLoader):
    """YAML as people mean it."""


class _Dumper(yaml.SafeDumper):
    """Puts into quotation marks what the loader would not read as text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _of in (_Loader, _Dumper):
    _of.add_implicit_resolver(
        f"{_TAG}float",
        re.compile(r"(?:[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+|[-+]\.\d+)\Z"),
        list("-+.0123456789"),
    )


def read_yaml_file(path: str | Path) -> Any:
    """What a YAML file holds.

    Raises:
        YamlError: see :func:`load_yaml`; or, with no field, no such file, or not UTF-8.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError([Fault("", f"byte {error.start + 1} is not UTF-8; save the file as UTF-8", "file")]) from error
    except OSError as error:
        raise YamlError([Fault("", why_unreadable(error), "file")]) from error
    return load_yaml(text)


def load_yaml(text: str) -> Any:
    """What a text holds.

    Raises:
        YamlError: it is not YAML (with line and column), nested too deeply, or holds itself; keys given twice in one
            mapping; numbers that nobody writes so.
    """
    try:
        root = yaml.compose(text, _Loader)
        faults = list(_faults(root, (), [], set()))
        if not faults and _n_values(root, {}) > MOST_VALUES:
            raise YamlError([Fault("", f"its aliases stand for more than {MOST_VALUES:,} values; write it flat")])
        if not faults:
            return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise YamlError([_syntax_fault(error, text)]) from error
    except RecursionError as error:
        raise YamlError([Fault("", "nested too deeply, or an anchor holds itself; write it flat")]) from error
    except ValueError as error:  # a number of thousands of digits
        raise YamlError([Fault("", f"holds something that can't be read ({error})")]) from error
    raise YamlError(faults)


def _n_values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Values below a node, with every alias as often as it stands for something."""
    if node is None or isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in known:
        pairs = node.value if isinstance(node, yaml.SequenceNode) else [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_n_values(each, known) for each in pairs)
    return known[id(node)]


def dump_yaml(value: Any) -> str:
    """YAML that :func:`load_yaml` reads back as it was."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _faults(
    node: yaml.Node | None, location: tuple[str | int, ...], above: list[int], seen: set[int]
) -> Iterator[Fault]:
    """Keys given twice in one mapping, of which PyYAML would silently keep the last, and numbers nobody writes so."""
    if id(node) in above:
        raise RecursionError("an anchor holds itself")
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    above.append(id(node))
    if isinstance(node, yaml.ScalarNode):
        yield from _odd_number(node, location)
    if isinstance(node, yaml.SequenceNode):
        for index, each in enumerate(node.value):
            yield from _faults(each, (*location, index), above, seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            here, line = (*location, key.value), key.start_mark.line + 1
            yield from _odd_number(key, here)
            if key.value in lines and key.tag != f"{_TAG}merge":
                hidden = names_a_secret(key.value) or not isinstance(value, yaml.ScalarNode)
                what = "a second value" if hidden else show(value.value)
                what += f" on line {line}, but line {lines[key.value]} gives it too; keep one"
                yield Fault(dotted(here), what, "twice")
            lines[key.value] = line
            yield from _faults(value, here, above, seen)
    above.pop()


def _odd_number(node: yaml.ScalarNode, location: tuple[str | int, ...]) -> Iterator[Fault]:
    plain = _PLAIN_NUMBERS.get(node.tag)
    if plain is None or node.style is not None or plain.fullmatch(node.value):
        return
    if names_a_secret(str(location[-1]) if location else ""):
        remedy = "write text in quotation marks"
        yield Fault(
            dotted(location), f"what stands there (line {node.start_mark.line + 1}) is a number; {remedy}", "number"
        )
        return
    try:
        read = f"YAML reads as {yaml.load(node.value, yaml.SafeLoader):g}"
    except (ValueError, TypeError, yaml.YAMLError):
        read = "no reader agrees on"
    remedy = f"write a plain number, or '{node.value}' in quotation marks for text"
    yield Fault(dotted(location), f"{node.value} (line {node.start_mark.line + 1}) is what {read}; {remedy}", "number")


def _syntax_fault(error: yaml.YAMLError, text: str) -> Fault:
    remedy = "check indentation, quotes and brackets there"
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # a character that YAML does not allow
        position = getattr(error, "position", 0)
        line = text.count("\n", 0, position) + 1
        return Fault(f"line {line}", f"{show(text[position : position + 1])} is not allowed in YAML; remove it")
    lines = text.splitlines()
    number = min(mark.line, max(len(lines) - 1, 0))
    value = show(lines[number].strip()) if lines else "nothing"
    why = getattr(error, "problem", None) or "not YAML"
    return Fault(f"line {number + 1}, column {mark.column + 1}", f"{value} is not YAML ({why}); {remedy}")
