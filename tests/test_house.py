"""The papers of the house: what a reader or an archive takes on trust."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import yaml

import mpg

ROOT = Path(__file__).resolve().parents[1]


def test_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # required by CFF 1.2.0
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == "Apache-2.0"
    assert str(citation["version"]) == mpg.__version__
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["url"].endswith("2511.01891")


def test_license_is_apache_2_without_a_foreign_copyright_line() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert "Copyright [yyyy] [name of copyright owner]" in text


def test_a_wheel_holds_every_room() -> None:
    """An editable install hides a room that a wheel lacks: one without an ``__init__.py``."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]["find"]
    packages = [pattern.removesuffix("*") for pattern in found["include"]]
    assert sorted(packages) == ["evaluation", "mpg", "personas", "pipeline"]
    rooms = {path.parent for package in packages for path in (ROOT / package).rglob("*.py")}
    assert len(rooms) > 20 and [room for room in sorted(rooms) if not (room / "__init__.py").is_file()] == []


def test_no_merge_was_left_half_done() -> None:
    """No check of style reads papers and job files."""
    kinds = (".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".sh", ".cff")
    rooms = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "out"))]
    files = [path for path in ROOT.iterdir() if path.is_file()] + [path for room in rooms for path in room.rglob("*")]
    left = "<" * 7, ">" * 7
    read = [path for path in files if path.suffix in kinds and path.is_file()]
    assert len(read) > 40 and [path for path in read if any(
        line.startswith(left) for line in path.read_text("utf-8").splitlines())] == []  # fmt: skip


def test_what_pydantic_calls_is_a_function() -> None:
    """It asks a callable for its parameters, and of a type like ``dict[str, int]`` Pythons say different things: from
    3.12.3 on a job's fields could not even be imported."""
    taken = {f"{how}{what}" for how in ("Plain", "Wrap", "Before", "After") for what in ("Serializer", "Validator")}
    rooms = ("benchmarks", "evaluation", "mpg", "personas", "pipeline", "tests", "tools", "workflows")
    paths = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert len(paths) > 200
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = getattr(node, "func", None)
            if isinstance(node, ast.Call) and getattr(called, "id", getattr(called, "attr", "")) in taken:
                assert not isinstance(node.args[0], ast.Subscript), f"{path}:{node.lineno}"
