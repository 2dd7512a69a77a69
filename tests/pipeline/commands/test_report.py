"""`mpg report` on the command line: where it writes, what it refuses, and in which line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.exit_status import ExitStatus
from pipeline.store.manifest import changed_files
from tests.made_data_set import grid, make


@pytest.fixture
def data_set(tmp_path: Path) -> Path:
    return make(tmp_path / "set", *grid())


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = ExitStatus.BAD_INPUT) -> str:
    assert main(["report", *arguments]) == status
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and said.err.startswith("mpg: ")
    return said.err


def test_it_writes_beside_the_data_set_and_changes_nothing_of_it(
    data_set: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in data_set.rglob("*") if path.is_file()}
    assert main(["report", str(data_set)]) == 0
    assert capsys.readouterr().out == f"report: {data_set / 'report.html'}\n"
    first = (data_set / "report.html").read_bytes()
    assert main(["report", str(data_set)]) == 0 and (data_set / "report.html").read_bytes() == first
    assert {path for path in data_set.rglob("*") if path.is_file()} == {*before, data_set / "report.html"}
    assert all(path.read_bytes() == content for path, content in before.items()) and changed_files(data_set) == {}
    assert b"run ended 2026-01-02 03:05 UTC; state of its files " in first


def test_it_writes_where_it_is_told(data_set: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "page.html"
    assert main(["report", str(data_set), "--output", str(target), "--texts", "3"]) == 0
    assert b"3 of 12 texts, drawn by stratum" in target.read_bytes() and not (data_set / "report.html").exists()


def test_the_short_form_needs_no_extra(
    data_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("altair", "vl_convert", "jinja2"):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["report", str(data_set), "--terminal"]) == 0
    words = capsys.readouterr().out
    for title in ("Adherence against weight", "Leakage", "Joint adherence", "Quality", "Judges", "Planned and spent"):
        assert f"# {title}" in words
    assert "E          +0.60±.00      0.9" in words and not (data_set / "report.html").exists()
    line = refused(capsys, str(data_set))
    assert line == "mpg: the page's plots need more packages: pip install 'mpg-scr[report]', or give --terminal\n"


def test_what_can_not_be_is_one_line(data_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    one = str(data_set)
    assert "nowhere: no such folder; give the folder of a data set" in refused(capsys, str(tmp_path / "nowhere"))
    assert "file: is no folder; give the folder of a data set" in refused(capsys, str(tmp_path / "file"))
    assert "holds no texts in data/*.parquet" in refused(capsys, str(tmp_path / "empty"))
    assert "--texts: 2001 is out of range; give 0 to 2,000" in refused(capsys, one, "--texts", "2001")
    assert "--texts: -1 is out of range" in refused(capsys, one, "--texts", "-1")
    assert "7 data sets are more than can be told apart; give at most 6" in refused(capsys, *[one] * 7)
    assert f"--output: {tmp_path} is a folder; name a file in it" in refused(capsys, one, "--output", str(tmp_path))
    assert "--terminal: prints, and writes no --output" in refused(capsys, one, "--terminal", "--output", "x.html")
    line = refused(capsys, one, "--output", str(tmp_path / "file" / "x.html"), status=ExitStatus.TRY_AGAIN)
    assert "can't be written (" in line and "name another file" in line


def test_what_a_run_has_so_far_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "out" / "partial", *grid())
    assert f"what a run has so far is in {tmp_path / 'out' / 'partial'}" in refused(capsys, str(tmp_path / "out"))
    assert main(["report", str(tmp_path / "out" / "partial"), "--terminal"]) == 0


def test_data_sets_of_one_job_are_called_by_their_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A number would not say which is which."""
    folders = [make(tmp_path / place, *grid()) for place in ("a/out", "b/out", "b/made")]
    assert main(["report", *map(str, folders), "--terminal"]) == 0
    header = capsys.readouterr().out.splitlines()[2]
    assert header.split("  ")[-1].strip() == "made"
    assert [each.strip() for each in header.split("  ") if each.strip()] == ["made (a/out)", "made (b/out)", "made"]


def test_one_data_set_twice_has_two_names(data_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *[str(data_set)] * 3, "--terminal"]) == 0
    words = capsys.readouterr().out
    assert "made (2)" in words and "made (3)" in words and "slope, made (3)" in words
