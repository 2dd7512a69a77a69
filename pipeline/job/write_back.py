"""Strengths put into the text of a job file: all else stays as it was typed, comments and order included."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import yaml

from personas.yaml_files import YamlError, load_yaml

# Begins each line of a comment that is put in, by which the next one takes its place.
MARK = "# mpg-calibrate:"

Edit = tuple[int, int, str]  # from, to, what takes the place


class NotWritable(ValueError):
    """A job file whose text can't be changed without changing more; one line with a remedy."""


def with_strengths(text: str, strengths: Mapping[str, float], comment: Sequence[str]) -> str:
    """A job file's text with ``decoder.strength`` as given, under a comment.

    Args:
        text: that loads; its lines may end in CRLF.
        strengths: attribute -> strength, of all attributes of the job.
        comment: lines, each put behind :data:`MARK`; of an earlier one nothing is left.

    Raises:
        NotWritable: the file is JSON, or one in which the decoder is no mapping of its own (an alias, null).
    """
    eol, data = "\r\n" if "\r\n" in text else "\n", load_yaml(text)
    text = re.sub(rf"(?m)^[ \t]*{MARK}.*(?:\r?\n|\Z)", "", text)
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise NotWritable("is no YAML of one field a line; put the lines in by hand, or leave out --write")
    lines = [f"{MARK} {line}".rstrip() for line in comment]
    flow = "{" + ", ".join(f"{_key(name)}: {_number(value)}" for name, value in strengths.items()) + "}"
    decoder, edits = _entry(root, "decoder"), list[Edit]()
    if decoder is None:
        gap = "" if text.endswith(("\n", "\r")) or not text else eol
        put = gap + eol.join([*lines, f"decoder: {{strength: {flow}}}"]) + eol
        edits.append((len(text), len(text), put))
    elif isinstance(decoder[1], yaml.MappingNode):
        edits += _edits_in(text, decoder[0], decoder[1], strengths, flow, lines, eol)
    new = text
    for start, end, put in sorted(edits, reverse=True):
        new = new[:start] + put + new[end:]
    before = data.get("decoder") if isinstance(data.get("decoder"), dict) else {}
    had = before.get("strength")
    wanted = {**(had if isinstance(had, dict) else {}), **strengths}
    try:
        same = load_yaml(new) == {**data, "decoder": {**before, "strength": wanted}}
    except YamlError:
        same = False
    if not same:
        raise NotWritable("decoder: can't be changed there alone (an alias, or null); put the lines in by hand")
    return new


def _edits_in(
    text: str,
    key: yaml.Node,
    section: yaml.MappingNode,
    strengths: Mapping[str, float],
    flow: str,
    lines: Sequence[str],
    eol: str,
) -> Iterator[Edit]:
    """What to change in a decoder's mapping."""
    entry = _entry(section, "strength")
    if entry is None and not section.flow_style:
        between = eol + " " * section.value[0][0].start_mark.column
        yield _added(text, section, between.join([*lines, f"strength: {flow}"]), eol)
        return
    at = key.start_mark if section.flow_style or entry is None else entry[0].start_mark
    line_start = at.index - at.column
    yield line_start, line_start, "".join(f"{' ' * at.column}{line}{eol}" for line in lines)
    if entry is None:
        yield _added(text, section, f"strength: {flow}", eol)
        return
    value = entry[1]
    if not isinstance(value, yaml.MappingNode):
        yield value.start_mark.index, value.end_mark.index, flow
        return
    missing = []
    for name, strength in strengths.items():
        known = _entry(value, name)
        if known is None:
            missing.append(f"{_key(name)}: {_number(strength)}")
        else:
            yield known[1].start_mark.index, known[1].end_mark.index, _number(strength)
    if missing:
        between = ", " if value.flow_style else eol + " " * value.value[0][0].start_mark.column
        yield _added(text, value, between.join(missing), eol)


def _added(text: str, mapping: yaml.MappingNode, entry: str, eol: str) -> Edit:
    """An entry behind the last one of a mapping."""
    if mapping.flow_style:
        if not mapping.value:
            return mapping.start_mark.index + 1, mapping.start_mark.index + 1, entry
        end = mapping.value[-1][1].end_mark.index
        return end, end, f", {entry}"
    end = _end(mapping)
    breaks = [at for at in (text.find("\r\n", end), text.find("\n", end)) if at >= 0]
    end = min(breaks, default=len(text))
    return end, end, eol + " " * mapping.value[0][0].start_mark.column + entry


def _end(node: yaml.Node) -> int:
    """Where a node's last character is: a block's mark stands before whatever follows it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _entry(mapping: yaml.MappingNode, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    return next((pair for pair in mapping.value if pair[0].value == name), None)


def _key(name: str) -> str:
    """A name as a key, in quotation marks where YAML would read something else: ``on``."""
    return name if load_yaml(name) == name else f'"{name}"'


def _number(value: float) -> str:
    return f"{value:.15g}"
