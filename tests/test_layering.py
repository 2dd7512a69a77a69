"""The import direction of the house (personas <- evaluation, mpg alone, pipeline on top) and of the rooms in it.

Imports inside functions and under ``TYPE_CHECKING`` count too: the direction is about knowledge,
not about when a module is loaded.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROMPTS = ROOT / "workflows" / "prompts.jsonl"
MIN_PROMPTS = 60
MAX_WORDS = 35

# Top-level packages that a package must not import.
FORBIDDEN = {
    "personas": {"mpg", "evaluation", "pipeline", "torch", "transformers", "apache_beam"},
    "mpg": {"personas", "evaluation", "pipeline", "apache_beam"},
    "evaluation": {"mpg", "pipeline", "apache_beam"},
    "pipeline": set(),
}
# The rooms of a package: each may import itself and those before it. The package itself (its `__init__`) is the face
# that others see: it may import every room, and no room imports it.
ROOMS = {
    "mpg": ("settings", "request", "laws", "models", "decoding", "score", "oracle", "train"),
    "evaluation": (
        "tables",
        "scores",
        "items",
        "features",
        "endpoint",
        "judges",
        "statistics",
        "questionnaires",
        "fit",
    ),
    "pipeline": (
        "exit_status",
        "events",
        "store",
        "quiet",
        "job",
        "plan",
        "decode",
        "judging",
        "beam",
        "publish",
        "run",
        "compare",
        "calibrate",
        "commands",
        "cli",
    ),
}
IMPORT_CALLS = {"import_module", "__import__"}


def imported_packages(source: str) -> Iterator[tuple[int, str]]:
    """(line, top-level package) of each absolute import, ``import_module("...")`` with a literal name included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module] if node.level == 0 and node.module else []  # a relative import stays inside
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            names = [name] if called in IMPORT_CALLS and isinstance(name, str) else []
        else:
            continue
        yield from ((node.lineno, name.split(".")[0]) for name in names)


def violations(package: str, source: str) -> list[str]:
    """What the source imports against the direction, as ``line N imports P``."""
    found = sorted(imported_packages(source))
    return [f"line {line} imports {name}" for line, name in found if name in FORBIDDEN[package]]


def imported_modules(package: str, place: Path, source: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """(line, dotted name in parts) of each import from inside the package, relative ones resolved.

    Args:
        place: of the file, from the package's own folder.
    """
    folder = (package, *place.parent.parts)
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names] if base else []
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            names = [str(node.args[0].value)] if called in IMPORT_CALLS else []
        yield from ((node.lineno, tuple(name.split("."))) for name in names if name.split(".")[0] == package)


def room_violations(package: str, place: Path, source: str, rooms: Sequence[str]) -> list[str]:
    """What a file imports against the direction of the rooms, as ``line N imports P``."""
    own = place.parts[0].removesuffix(".py")
    if own == "__init__":
        return []
    if own not in rooms:
        return [f"{place} is in no room"]
    allowed = rooms[: rooms.index(own) + 1]
    found = []
    for line, parts in sorted(imported_modules(package, place, source)):
        if len(parts) < 2 or parts[1] not in rooms:  # the package itself, or a name that its face offers
            found.append(f"line {line} imports {package} itself")
        elif parts[1] not in allowed:
            found.append(f"line {line} imports {package}.{parts[1]}")
    return found


@pytest.mark.parametrize("package", sorted(ROOMS))
def test_rooms_follow_the_direction(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    entered = {path.relative_to(ROOT / package).parts[0].removesuffix(".py") for path in files} - {"__init__"}
    assert entered == set(ROOMS[package])
    broken = {
        str(path.relative_to(ROOT)): room_violations(
            package, path.relative_to(ROOT / package), path.read_text("utf-8"), ROOMS[package]
        )
        for path in files
    }
    assert {path: found for path, found in broken.items() if found} == {}


@pytest.mark.parametrize(
    ("place", "source", "expected"),
    [
        ("cellar/a.py", "import os\nfrom house.hall import door\n", ["line 2 imports house.hall"]),
        ("cellar/a.py", "import house.hall.door as door\n", ["line 1 imports house.hall"]),
        ("cellar/deep/a.py", "def f():\n    from ...hall import door\n", ["line 2 imports house.hall"]),
        ("cellar/deep/a.py", "from ... import hall\n", ["line 1 imports house.hall"]),
        (
            "cellar/a.py",
            "import importlib\nimportlib.import_module('house.hall.door')\n",
            ["line 2 imports house.hall"],
        ),
        ("keys.py", "if TYPE_CHECKING:\n    from house.cellar import wine\n", ["line 2 imports house.cellar"]),
        (
            "hall/a.py",
            "from house import Door\nimport house\n",
            ["line 1 imports house itself", "line 2 imports house itself"],
        ),
        ("attic/a.py", "import os\n", ["attic/a.py is in no room"]),
        ("hall/a.py", "from house.cellar import a\nfrom . import b\nfrom .b import c\nimport housekeeping\n", []),
        ("hall/a.py", "from house import keys, cellar\nfrom ..cellar.deep import a\n", []),
        ("__init__.py", "from house.hall import Door\n", []),
    ],
)
def test_a_room_that_knows_a_later_one_is_caught(place: str, source: str, expected: list[str]) -> None:
    assert room_violations("house", Path(place), source, ("keys", "cellar", "hall")) == expected


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_imports_follow_the_direction(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"no Python file under {package}/"
    broken = {str(path.relative_to(ROOT)): violations(package, path.read_text("utf-8")) for path in files}
    assert {path: found for path, found in broken.items() if found} == {}


@pytest.mark.parametrize(
    ("package", "source", "expected"),
    [
        ("personas", "import json\nimport torch.nn as nn\n", ["line 2 imports torch"]),
        ("personas", "def f():\n    from apache_beam.io import fileio\n", ["line 2 imports apache_beam"]),
        ("mpg", "import typing as t\nif t.TYPE_CHECKING:\n    import personas\n", ["line 3 imports personas"]),
        ("mpg", "import numpy, pipeline.job.load\n", ["line 1 imports pipeline"]),
        ("evaluation", 'import importlib\nimportlib.import_module("mpg.decoding.engine")\n', ["line 2 imports mpg"]),
        ("evaluation", 'bank = __import__("mpg")\n', ["line 1 imports mpg"]),
    ],
)
def test_a_violation_is_caught(package: str, source: str, expected: list[str]) -> None:
    assert violations(package, source) == expected


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("personas", "import pyarrow\nfrom personas.weights import grid\n"),
        ("personas", "from . import mpg\nfrom .torch import x\n"),
        ("mpg", "import torch\nfrom transformers import AutoModel\nimport mpg_tools\n"),
        ("evaluation", "from personas.records import row_id\n"),
        ("pipeline", "import apache_beam, torch, personas, mpg, evaluation\n"),
    ],
)
def test_what_is_allowed_passes(package: str, source: str) -> None:
    assert violations(package, source) == []


def test_prompts_are_valid() -> None:
    rows = [json.loads(line) for line in PROMPTS.read_text("utf-8").splitlines()]
    assert len(rows) >= MIN_PROMPTS
    for number, row in enumerate(rows, start=1):
        assert set(row) == {"id", "prompt"}, f"line {number}: keys {sorted(row)}"
        assert all(isinstance(value, str) and value and value == value.strip() for value in row.values()), number
        assert row["id"].replace("-", "").isalnum() and row["id"] == row["id"].lower(), f"line {number}: {row['id']!r}"
        assert len(row["prompt"].split()) <= MAX_WORDS, f"line {number}: too long"
    assert len({row["id"] for row in rows}) == len(rows)
    assert len({row["prompt"].casefold() for row in rows}) == len(rows)
