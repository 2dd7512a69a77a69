"""Strengths put into job files as people write them: nothing else is moved, and what is there loads."""

from __future__ import annotations

import pytest
import yaml

from personas.yaml_files import load_yaml
from pipeline.job.write_back import NotWritable, with_strengths

STRENGTHS = {"E": 0.75, "on": 1.0}

MARK = "# mpg-calibrate:"
SET = '{E: 0.75, "on": 1}'
LAYOUTS = {
    "a flow mapping": (
        "# mine\nname: x   # it\ndecoder: {name: mod, strength: 1.0, top_p: 0.9}   # how\nseed: 0\n",
        f"# mine\nname: x   # it\n{MARK} today\ndecoder: {{name: mod, strength: {SET}, top_p: 0.9}}   # how\nseed: 0\n",
    ),
    "a flow mapping without it": (
        "decoder: {name: mod,\n          top_p: 0.9}\nseed: 0\n",
        f"{MARK} today\ndecoder: {{name: mod,\n          top_p: 0.9, strength: {SET}}}\nseed: 0\n",
    ),
    "a block": (
        "decoder:   # how\n  name: mod\n  strength: 2   # loud\n\n# of the run\nseed: 0\n",
        f"decoder:   # how\n  name: mod\n  {MARK} today\n  strength: {SET}   # loud\n\n# of the run\nseed: 0\n",
    ),
    "a block without it": (
        "decoder:\n  name: mod   # product\n\n# of the run\nseed: 0",
        f"decoder:\n  name: mod   # product\n  {MARK} today\n  strength: {SET}\n\n# of the run\nseed: 0",
    ),
    "a mapping of some": (
        "decoder:\n  strength:   # each\n    E: 3   # much\n    J: 2\n  name: mod\n",
        f'decoder:\n  {MARK} today\n  strength:   # each\n    E: 0.75   # much\n    J: 2\n    "on": 1\n  name: mod\n',
    ),
    "no decoder": ("name: x\nseed: 0", f"name: x\nseed: 0\n{MARK} today\ndecoder: {{strength: {SET}}}\n"),
    "an earlier one": (
        f"# the way\r\n{MARK} then\r\n{MARK}   E  0.5\r\ndecoder: {{strength: {{E: 1, 'on': 2}}}}\r\nseed: 0\r\n",
        f"# the way\r\n{MARK} today\r\ndecoder: {{strength: {{E: 0.75, 'on': 1}}}}\r\nseed: 0\r\n",
    ),
    "an anchor": (
        "decoder:\n  strength: !!float &s 1   # loud\n  name: mod\n",
        f"decoder:\n  {MARK} today\n  strength: &s {SET}   # loud\n  name: mod\n",
    ),
    "anchors in a mapping": (
        "decoder: &d {strength: &s {E: &e 3, 'on': 2}}\n",
        f"{MARK} today\ndecoder: &d {{strength: &s {{E: &e 0.75, 'on': 1}}}}\n",
    ),
    "null": ("decoder: {strength: null}\n", f"{MARK} today\ndecoder: {{strength: {SET}}}\n"),
    "nothing, in a block": (
        "decoder:\n  strength:   # each\n  name: mod\n",
        f"decoder:\n  {MARK} today\n  strength: {SET}   # each\n  name: mod\n",
    ),
    "nothing, in a flow": (
        "decoder: {strength, name: mod}\n",
        f"{MARK} today\ndecoder: {{strength: {SET}, name: mod}}\n",
    ),
    "some without a value": (
        "decoder: {strength: {E:, 'on'}}\n",
        f"{MARK} today\ndecoder: {{strength: {{E: 0.75, 'on': 1}}}}\n",
    ),
    "a decoder of nothing": (
        "decoder:   # how\nseed: 0\n",
        f"{MARK} today\ndecoder: {{strength: {SET}}}   # how\nseed: 0\n",
    ),
    "a mark at the end": (
        "---\n  name: x\n  seed: 0\n...\n# done\n",
        f"---\n  name: x\n  seed: 0\n  {MARK} today\n  decoder: {{strength: {SET}}}\n...\n# done\n",
    ),
    "a merge": (
        "base: &b {strength: {E: 3}, name: mod}\ndecoder:\n  <<: *b\n  top_p: 1\n",
        "base: &b {strength: {E: 3}, name: mod}\ndecoder:\n  <<: *b\n  top_p: 1\n"
        f"  {MARK} today\n  strength: {SET}\n",
    ),
    "the mark in a text": (
        f"card: |\n  {MARK} is a mark\ndecoder: {{strength: 2}}\n",
        f"card: |\n  {MARK} is a mark\n{MARK} today\ndecoder: {{strength: {SET}}}\n",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_keeps_its_comments_and_its_order(layout: str) -> None:
    before, after = LAYOUTS[layout]
    assert with_strengths(before, STRENGTHS, ["today"]) == after
    found, had = load_yaml(after), load_yaml(before)
    assert list(found) == list(dict.fromkeys([*had, "decoder"]))
    assert found["decoder"]["strength"].items() >= STRENGTHS.items()
    assert with_strengths(after, STRENGTHS, ["today"]) == after  # once more changes nothing


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"name": "x", "decoder": {"strength": 1}}', "is no YAML of one field a line; "),
        ("card: &c {a: 1}\ndecoder: *c\n", "decoder: is an alias, or has one"),
        ("a: &s 1.0\ndecoder: {strength: *s}\n", "decoder.strength: is an alias, or has one"),
        ("decoder: {strength: &s 1}\nb: *s\n", "decoder.strength: is an alias, or has one"),
        ("decoder: {strength: &s {E: 1}}\nb: *s\n", "decoder.strength: is an alias, or has one"),
        ("decoder: {strength: {E: &e 1}}\nb: *e\n", "decoder.strength.E: is an alias, or has one"),
        ("a: &a {decoder: {name: mod}}\n<<: *a\n", r"decoder: comes by a merge \(<<\)"),
        ("decoder: [1]\n", "decoder.strength: can't be put in without changing something else"),
    ],
)
def test_what_can_not_be_changed_alone_is_not_changed(text: str, why: str) -> None:
    with pytest.raises(NotWritable, match=f"^{why}.*by hand"):
        with_strengths(text, STRENGTHS, ["today"])


def test_a_comment_is_a_line_whatever_it_holds() -> None:
    """Every character up to U+2100, and beyond; each end of line, and what YAML does not allow."""
    anything = "".join(map(chr, range(0x2100))) + "\ud800\udcff\ufeff\uffff\U0001f600"
    for end in ("\n", "\r\n"):
        text = end.join(["name: x", "decoder:", "  name: mod", ""])
        new = with_strengths(text, STRENGTHS, [f"today: {anything}"])
        assert load_yaml(new) == {"name": "x", "decoder": {"name": "mod", "strength": STRENGTHS}}
        new.encode()
        assert with_strengths(new, STRENGTHS, ["then"]) == with_strengths(text, STRENGTHS, ["then"])


def test_the_projects_own_jobs_can_be_written_to() -> None:
    from pathlib import Path

    for path in sorted((Path(__file__).parents[3] / "workflows").glob("*.yaml")):
        text = path.read_text("utf-8")
        if "decoder" in yaml.safe_load(text):
            new = with_strengths(text, {"E": 0.5}, ["today"])
            assert set(text.splitlines()) - set(new.splitlines()) <= {
                line for line in text.splitlines() if "strength" in line or "decoder" in line
            }, path
