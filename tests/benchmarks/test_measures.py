"""What is measured with the adapters that ship runs with them, whatever they wait for in a prompt."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from benchmarks import head
from benchmarks.memory import Case, peak_mib

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
@pytest.mark.parametrize("one_each", [False, True])
def test_memory_is_measured_of_every_decoder(one_each: bool) -> None:
    for name in ("scr-exact",) if one_each else ("scr-exact", "best-of-n"):
        peak, added = peak_mib(Case(name, 2, 2, 2, one_each=one_each))
        assert peak > 0 and added >= 0


@pytest.mark.long
def test_the_head_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(head, "_TOKENS", 3)
    monkeypatch.setattr(head, "_ROWS", 2)
    monkeypatch.setattr(head, "_CALLS", 4)  # the first three warm up
    head.main()
    said = capsys.readouterr().out
    off = re.search(r"a text's books in bfloat16, off by at most (\S+) nats", said)
    assert off is not None and float(off[1]) < 1 and "ms for 160 states" in said


def test_every_measure_can_be_started_as_the_docs_say() -> None:
    """As modules: run as a file, one does not find the tests' servers."""
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    names |= {path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")}
    for name in names:
        importlib.import_module(f"benchmarks.{name}")
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.[mp][dy]")]
    said = "\n".join(path.read_text("utf-8") for path in pages)
    assert not re.findall(r"python\s+benchmarks/\w+\.py", said)
    assert set(re.findall(r"python\s+-m\s+benchmarks\.(\w+)", said)) <= names
