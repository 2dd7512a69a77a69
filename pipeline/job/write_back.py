"""Strengths put into the text of a job file: all else stays as it was typed, comments and order included."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import yaml

from personas.yaml_files import YamlError, load_yaml

# Begins each line of a comment that is put in, by which the next one takes its place.
MARK = "# mpg-calibrate:"

Edit = tuple[int, int, str]  # from, to, what takes the place

# What ends a line of YAML, can't be in its text at all, or is not seen.
_NOT_IN_A_LINE = re.compile("[^\t -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SHARED = "is an alias, or has one elsewhere (& and *); write it out there, or put the lines in by hand"
_PROPERTIES = re.compile(r"(?:(?:&[^\s,\[\]{}]+|!\S*)(?:\s+|\Z))*")


class NotWritable(ValueError):
    """A job file whose text can't be changed without changing more; one line with a remedy."""


def in_one_line(text: str) -> str:
    """A text without line ends and control characters: in their place what a shell's ``$'...'`` reads as them."""
    return _NOT_IN_A_LINE.sub(lambda found: _escape(ord(found.group())), text)


def comment_lines(comment: Sequence[str]) -> list[str]:
    """Lines as they stand in a job file, each behind :data:`MARK`."""
    return [f"{MARK} {in_one_line(line)}".rstrip() for line in comment]


def with_strengths(text: str, strengths: Mapping[str, float], comment: Sequence[str]) -> str:
    """A job file's text with ``decoder.strength`` as given, under a comment.

    Args:
        text: that is YAML; its lines may end in CRLF.
        strengths: attribute -> strength, of all attributes of the file's own job.
        comment: see :func:`comment_lines`; of an earlier one nothing is left.

    Raises:
        NotWritable: the file is JSON, or one where an anchor or a merge would have another field change with it.
    """
    eol, data = "\r\n" if "\r\n" in text else "\n", load_yaml(text)
    text = _without_comment(text)
    root = yaml.compose(text, yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise NotWritable("is no YAML of one field a line; put the lines in by hand")
    lines = comment_lines(comment)
    flow = "{" + ", ".join(f"{_key(name)}: {_number(value)}" for name, value in strengths.items()) + "}"
    decoder, edits = _entry(root, "decoder"), list[Edit]()
    if decoder is None and "decoder" in data:
        raise NotWritable("decoder: comes by a merge (<<); write it out, or put the lines in by hand")
    if decoder is None:
        edits.append(_at_the_end(text, root, [*lines, f"decoder: {{strength: {flow}}}"], eol))
    elif isinstance(decoder[1], yaml.MappingNode):
        edits += _edits_in(text, root, decoder[0], decoder[1], strengths, flow, lines, eol)
    elif data.get("decoder") is None:
        edits += [_above(decoder[0], lines, eol), _instead(text, *decoder, f"{{strength: {flow}}}")]
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
        raise NotWritable("decoder.strength: can't be put in without changing something else; put it in by hand")
    return new


def _without_comment(text: str) -> str:
    """Without the lines of an earlier comment; those within a text that spans lines are no comment."""
    root = yaml.compose(text, yaml.SafeLoader)
    nodes = [each for each, _ in _nodes(root) if isinstance(each, yaml.ScalarNode)]
    spans = [(each.start_mark.index, each.end_mark.index) for each in nodes]

    def kept(found: re.Match[str]) -> str:
        return found.group() if any(start < found.end() and found.start() < end for start, end in spans) else ""

    return re.sub(rf"(?m)^[ \t]*{MARK}.*(?:\r?\n|\Z)", kept, text)


def _nodes(root: yaml.Node | None) -> list[tuple[yaml.Node, int]]:
    """All nodes of a text, each with how often it stands for something: an alias is the node of its anchor."""
    found, counts, to_do = list[yaml.Node](), Counter[int](), [root]
    while to_do:
        node = to_do.pop()
        if node is None:
            continue
        counts[id(node)] += 1
        if counts[id(node)] > 1:
            continue
        found.append(node)
        if isinstance(node, yaml.MappingNode):
            to_do += [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            to_do += node.value
    return [(each, counts[id(each)]) for each in found]


def _at_the_end(text: str, root: yaml.MappingNode, lines: Sequence[str], eol: str) -> Edit:
    """Lines behind the last field, before a mark that ends the document (``...``)."""
    tokens = yaml.scan(text, yaml.SafeLoader)
    ends = (each.start_mark.index for each in tokens if isinstance(each, yaml.DocumentEndToken))
    at = next(ends, len(text))
    gap = "" if text[:at].endswith(("\n", "\r")) else eol
    indent = " " * root.value[0][0].start_mark.column
    return at, at, gap + "".join(f"{indent}{line}{eol}" for line in lines)


def _edits_in(
    text: str,
    root: yaml.Node,
    key: yaml.Node,
    section: yaml.MappingNode,
    strengths: Mapping[str, float],
    flow: str,
    lines: Sequence[str],
    eol: str,
) -> Iterator[Edit]:
    """What to change in a decoder's mapping."""
    shared = {id(node) for node, count in _nodes(root) if count > 1}
    if id(section) in shared:
        raise NotWritable(f"decoder: {_SHARED}")
    entry = _entry(section, "strength")
    if entry is None and not section.flow_style:
        between = eol + " " * section.value[0][0].start_mark.column
        yield _added(text, section, between.join([*lines, f"strength: {flow}"]), eol)
        return
    yield _above(key if section.flow_style or entry is None else entry[0], lines, eol)
    if entry is None:
        yield _added(text, section, f"strength: {flow}", eol)
        return
    if id(entry[1]) in shared:
        raise NotWritable(f"decoder.strength: {_SHARED}")
    value = entry[1]
    if not isinstance(value, yaml.MappingNode):
        yield _instead(text, *entry, flow)
        return
    missing = []
    for name, strength in strengths.items():
        known = _entry(value, name)
        if known is None:
            missing.append(f"{_key(name)}: {_number(strength)}")
        elif id(known[1]) in shared:
            raise NotWritable(f"decoder.strength.{name}: {_SHARED}")
        else:
            yield _instead(text, *known, _number(strength))
    if missing:
        between = ", " if value.flow_style else eol + " " * value.value[0][0].start_mark.column
        yield _added(text, value, between.join(missing), eol)


def _above(key: yaml.Node, lines: Sequence[str], eol: str) -> Edit:
    """Lines above the one in which a key stands, indented as it is."""
    at = key.start_mark.index - key.start_mark.column
    return at, at, "".join(f"{' ' * key.start_mark.column}{line}{eol}" for line in lines)


def _instead(text: str, key: yaml.Node, value: yaml.Node, put: str) -> Edit:
    """A value in the place of another, of which an anchor is kept; the other may be left out, with its colon, too."""
    start, end = value.start_mark.index, value.end_mark.index
    if start == end:
        return start, end, (" " if ":" in text[key.end_mark.index : start] else ": ") + put
    found = _PROPERTIES.match(text[start:end])
    anchors = [each for each in (found.group().split() if found else ()) if each.startswith("&")]
    return start, end, " ".join([*anchors, put])


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


def _escape(code: int) -> str:
    named = {0x07: "a", 0x08: "b", 0x0A: "n", 0x0B: "v", 0x0C: "f", 0x0D: "r", 0x1B: "e"}
    if code in named:
        return f"\\{named[code]}"
    if code < 0x80 or 0xDC80 <= code <= 0xDCFF:  # the latter: a byte that was no UTF-8
        return f"\\x{code & 0xFF:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
