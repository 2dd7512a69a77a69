"""Pictures for the card: what they say, and that they are the same each time."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

from pipeline.publish.report.figures import CONTROL, LEAKAGE, write_figures
from pipeline.publish.report.read import ReportError
from tests.made_data_set import grid, judged, make, row


def test_two_pictures_with_words_for_them_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    data_set = make(tmp_path / "set", *grid())
    found = write_figures(data_set, tmp_path / "out" / "one")
    assert [name for name, _ in found] == [CONTROL, LEAKAGE]
    assert "made: from 0.21 at weight 0.00 to 0.81 at 1.00, slope +0.60±.00" in found[0][1]
    assert "E on E +0.60, N on N +0.60" in found[1][1]
    assert write_figures(data_set, tmp_path / "two") == found
    for name, _ in found:
        content = (tmp_path / "out" / "one" / name).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n" and content == (tmp_path / "two" / name).read_bytes()
        width, height = struct.unpack(">II", content[16:24])
        assert width > 400 and height > 200 and len(content) < 400_000


def test_no_picture_of_what_is_not_judged_or_not_weighted(tmp_path: Path) -> None:
    rows, _ = grid()
    assert write_figures(make(tmp_path / "unjudged", rows), tmp_path / "out") == []
    alone = [row("reference", "p0", {})]
    assert write_figures(make(tmp_path / "alone", alone, judged(alone, "E", [0.4])), tmp_path / "out") == []
    assert not (tmp_path / "out").exists()


def test_no_picture_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    assert write_figures(make(tmp_path / "set", *grid()), tmp_path / "out") == []


def test_names_that_are_expressions_or_markup_are_names(tmp_path: Path) -> None:
    """Field names with dots, brackets and quotes would break a specification: names are values."""
    names = ("a.b[0]", 'it\'s "x" \\', "</text><script>", "datum['x']", "#fff")
    found = write_figures(make(tmp_path / "set", *grid(names)), tmp_path / "out")
    assert [name for name, _ in found] == [CONTROL, LEAKAGE]
    plain = write_figures(make(tmp_path / "plain", *grid(("a", "b", "c", "d", "e"))), tmp_path / "out2")
    assert [each[1].count("slope +0.60") for each in (found[0], plain[0])] == [5, 5]


def test_no_data_set_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"holds no texts in data/\*\.parquet; give the folder of a data set"):
        write_figures(tmp_path, tmp_path / "out")
