"""From text to plain data: YAML as people mean it, overrides, and the line that each fault gets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.job.errors import JobError
from pipeline.job.read import apply_overrides, read_yaml

DATA: dict[str, Any] = {
    "name": "entj-demo",
    "attributes": ["E", "N", "T", "J"],
    "personas": {"kind": "simplex", "steps": 2},
    "decoder": None,
}


def the_line(file: object, call: Callable[[], object]) -> str:
    """The one line of the JobError that the call raises, without the file's name at its start."""
    with pytest.raises(JobError) as caught:
        call()
    (line,) = caught.value.lines
    assert line.startswith(f"{file}: ") and len(line.splitlines()) == 1
    return line.removeprefix(f"{file}: ")


def test_numbers_dates_and_aliases(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("a: [1e-3, -.5, +2E5, 7, 09, 1.5]\nb: 2024-01-01\nc: &x {k: 1}\nd: *x\ne: {<<: *x, k: 2}\n")
    assert read_yaml(path) == {
        "a": [0.001, -0.5, 200000.0, 7, "09", 1.5],
        "b": "2024-01-01",
        "c": {"k": 1},
        "d": {"k": 1},
        "e": {"k": 2},
    }


def test_what_is_in_quotes_is_text_and_plain_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "a: ['010', \"1:30\", 10:3x, 0, -3, +4, 10., 0.5, 1e5, .inf, 12345678901234567890]\nb: {'007': yes}\n"
    )
    assert read_yaml(path) == {
        "a": ["010", "1:30", "10:3x", 0, -3, 4, 10.0, 0.5, 100000.0, float("inf"), 12345678901234567890],
        "b": {"007": True},
    }


def test_overrides_come_in_order_and_make_missing_mappings() -> None:
    data = copy.deepcopy(DATA)
    overrides = ["decoder.strength.E=2", "attributes[1]=S", "attributes.0=I", "name=a", "name=a=b", "new.x=[1]"]
    paths = apply_overrides(data, overrides, "job.yaml")
    assert paths == ["decoder.strength.E", "attributes[1]", "attributes[0]", "name", "name", "new.x"]
    assert data["decoder"] == {"strength": {"E": 2}} and data["attributes"] == ["I", "S", "T", "J"]
    assert data["name"] == "a=b" and data["new"] == {"x": [1]}


FILES = [
    ("a: [1\nb: 2", "line 2, column 2: 'b: 2' is not YAML ("),
    ("name: x\nmodel: b: c", "line 2, column 9: 'model: b: c' is not YAML (mapping values are not allowed h"),
    ("model:\n\tid: x", "line 2, column 1: 'id: x' is not YAML (found character"),
    ("a: \x01", r"line 1: '\x01' is not allowed in YAML; remove it"),
    ("a: !!python/object:os.system 1", "line 1, column 4: 'a: !!python/object:os.system 1' is not YAML ("),
    ("a: &x [*x]", "job file: nested too deeply, or an anchor holds itself"),
    ("a: " + "[" * 5000, "job file: nested too deeply"),
    ("", "job file: holds nothing; write a mapping"),
    ("- a", "job file: holds ['a']; write a mapping, one 'field: value' a line"),
    ("just text", "job file: holds 'just text'; write a mapping"),
    (b"name: \xff", "job file: byte 7 is not UTF-8"),
    ("seed: 0\noutput: x\nseed: 1\n", "seed: '1' on line 3, but line 1 gives it too; keep one"),
    (
        "a: 1\nseed: 010",
        "seed: 010 (line 2) is what YAML reads as 8; write a plain number, or '010' in quotation",
    ),
    ("a: [7, 1:30]", "a[1]: 1:30 (line 1) is what YAML reads as 90; write a plain number, or '1:30' in quot"),
    ("a: 1:30.5", "a: 1:30.5 (line 1) is what YAML reads as 90.5; "),
    ("seed: 0x10", "seed: 0x10 (line 1) is what YAML reads as 16; "),
    ("seed: 0b1", "seed: 0b1 (line 1) is what YAML reads as 1; "),
    ("seed: 1_000", "seed: 1_000 (line 1) is what YAML reads as 1000; "),
    ("a: {007: x}", "a.007: 007 (line 1) is what YAML reads as 7; "),
    ("a: 1_0.5", "a: 1_0.5 (line 1) is what YAML reads as 10.5; "),
    ("personas: {kind: simplex, steps: 2,\n  steps: 3}", "personas.steps: '3' on line 2, but line 1 gives it too"),
]


@pytest.mark.parametrize(("text", "start"), FILES, ids=[start for _, start in FILES])
def test_a_file_that_is_no_job(tmp_path: Path, text: str | bytes, start: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    assert the_line(path, lambda: read_yaml(path)).startswith(start)


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"gone\.yaml: job file: no such file; check the path"):
        read_yaml(tmp_path / "gone.yaml")
    with pytest.raises(JobError, match="job file: is a directory; give a YAML file"):
        read_yaml(tmp_path)


OVERRIDES = [
    ("decoder.name", "is not field=value; write e.g. --set decoder.name=scr"),
    ("=3", "is not field=value"),
    ("decoder..name=scr", "is not field=value"),
    ("name.x=3", "name is 'entj-demo', no mapping; set name as a whole"),
    ("attributes.4=E", "attributes is a list of 4; give an index from 0 to 3"),
    ("attributes.x=E", "attributes is a list of 4; give an index from 0 to 3"),
    ("personas.weights.0.name=x", "personas.weights has no entries to index; set personas.weights=[...] as"),
    ("decoder.name=[x", "the value '[x' is not YAML; put it in quotes"),
    ("seed=010", "010 (line 1) is what YAML reads as 8; write a plain number, or '010' in quotation marks for text"),
    ("deadline=1:30", "1:30 (line 1) is what YAML reads as 90; "),
    ("decoder={name: scr, name: scr}", "the value '{name: scr, name: scr}' gives name twice; keep one"),
]


@pytest.mark.parametrize(("override", "what"), OVERRIDES)
def test_an_override_that_does_not_work(override: str, what: str) -> None:
    line = the_line("job.yaml", lambda: apply_overrides(copy.deepcopy(DATA), [override], "job.yaml"))
    assert line.startswith(f"--set {override!r}: {what}")
