"""Text tables: columns stand under each other, and no cell can break one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evaluation.tables import aligned, code, markdown

HEADER = ["persona", "rows", "E"]
ROWS = [["reference", "12", "0.40±.14"], ["1e5", "007", "-"]]


def test_numbers_stand_right_and_stay_as_they_are() -> None:
    assert aligned(HEADER, ROWS).splitlines() == [
        "persona    rows         E",
        "---------  ----  --------",
        "reference    12  0.40±.14",
        "1e5         007         -",
    ]
    assert aligned(HEADER, ROWS, n_text=2).splitlines()[3] == "1e5        007          -"


def test_a_line_break_breaks_no_row() -> None:
    assert aligned(["a", "b"], [["x\ny", "1"], ["z\r\n", ""]]).splitlines() == ["a    b", "---  -", "x y  1", "z"]


def test_markdown_has_a_row_a_line() -> None:
    lines = markdown(HEADER, ROWS).splitlines()
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], *lines[2:])] == [HEADER, *ROWS]
    assert set(lines[1]) == set("|:-") and lines[1].count("|") == 4


@pytest.mark.parametrize(
    ("cell", "written"),
    [("a|b", r"a\|b"), ("a\nb", "a b"), ("a\\|b", r"a\\\|b"), ("a\\", r"a\\"), ("|", r"\|"), ("a\u2028b|", r"a b\|"),
     ("<b>x</b>", r"\<b\>x\</b\>"), ("`a`", r"\`a\`"), ("[a](b)", r"\[a\](b)"), ("*a*", r"\*a\*"),
     ("a&lt;", r"a\&lt;")],
)  # fmt: skip
def test_nothing_ends_a_markdown_cell_early(cell: str, written: str) -> None:
    lines = markdown(["persona", "n"], [[cell, "1"]]).splitlines()
    assert len(lines) == 3 and lines[2].startswith(f"| {written} ") and lines[2].endswith(" 1 |")


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x01", r"\x01"),  # tabulate's own mark of a line between rows
        ("a\tb\xa0c", "a b c"),
        ("a\x00b\ud800", r"a\x00b\ud800"),
        ("right\u202eleft", r"right\u202eleft"),
        ("José 名", "José 名"),
        ("x" * 500, "x" * 40 + "…" + "x" * 39),
    ],
)
def test_a_cell_is_what_any_terminal_can_show(cell: str, written: str) -> None:
    assert aligned(["persona", "n"], [[cell, "1"]]).splitlines()[2].startswith(f"{written} ")
    assert len(aligned(["persona", "n"], [[cell, "1"]]).splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "written"), [("a@1", "`a@1`"), ("a`b", "``a`b``"), ("`a``", "``` `a`` ```"), ("a\nb|", "`a b|`")]
)
def test_code_is_code_whatever_is_in_it(text: str, written: str) -> None:
    assert code(text) == written


def test_a_table_without_rows_is_its_titles() -> None:
    assert aligned(["a", "b"], []) == "a  b\n-  -"
    assert markdown(["a", "b"], []) == "| a | b |\n| --- | --- |"


@pytest.mark.parametrize("table", [aligned, markdown])
def test_a_row_of_another_length_is_refused(table) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="1 cells under 3 titles"):
        table(HEADER, [["alone"]])


def test_the_readmes_table_comes_out_again() -> None:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text("utf-8")
    shown = readme.split("by persona and attribute\n\n")[1].split("\n\n")[0]
    header, _, *rows = (re.split(" {2,}", line) for line in shown.splitlines())
    assert len(rows) == 11 and aligned(header, rows) == shown
