"""The card: its front matter and its table hold, whatever a persona is called."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest
import yaml

from pipeline.publish.card import write_card
from pipeline.publish.summary import summarise
from pipeline.store.dataset import write_tables
from pipeline.store.schema import GENERATIONS, JUDGMENTS, REJECTED
from tests.job_desk import Desk

ROW = {
    **{field.name: "" for field in GENERATIONS if field.type == pa.string()},
    **{field.name: 1 for field in GENERATIONS if pa.types.is_integer(field.type)},
    **{field.name: [] for field in GENERATIONS if pa.types.is_list(field.type)},
    **{"exact": True, "acceptance_rate": 0.5, "tv_bound": None, "log_prob_reference": -1.0},
}
RUN: dict[str, Any] = {
    "model": "m",
    "dtype": "float32",
    "counts": {"rows": 2, "rejected": 0},
    "accept": None,
    "judges": [],
}


def card(desk: Desk, *personas: str) -> str:
    rows = [ROW | {"row_id": f"{i}", "prompt_id": "p", "persona": name} for i, name in enumerate(personas)]
    tables = {
        "generations": pa.Table.from_pylist(rows, schema=GENERATIONS),
        "judgments": JUDGMENTS.empty_table(),
        "rejected": REJECTED.empty_table(),
    }
    summary = summarise(tables["generations"], tables["judgments"], ["E"])
    write_tables(desk.folder, tables)
    write_card(desk.folder, desk.load(), tables, summary, RUN)
    return (desk.folder / "README.md").read_text("utf-8")


def table(text: str) -> list[list[str]]:
    """Cells, row by row, as GitHub reads them: a pipe ends a cell unless an odd number of backslashes is before it."""
    section = text.split("## Judged adherence")[1].split("## Columns")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [re.findall(r"((?:\\.|[^|\\])*)\|", line[1:]) for line in lines]
    return [[re.sub(r"\\(.)", r"\1", cell.strip()) for cell in row] for row in cells]


@pytest.mark.parametrize(
    "name",
    ["E1.00", "a|b", "a\\|b", "a\\", "|||", "<b>x", "`a`|", "# a", "- a", "---", "**a**", "&amp;", "1. a", "a_b_"],
)
def test_a_persona_of_any_name_is_one_cell(desk: Desk, name: str) -> None:
    titles, dashes, *rows = table(card(desk, "reference", name))
    assert titles == ["persona", "rows", "acceptance", "perplexity"]
    assert all(set(each) <= set("-:") for each in dashes) and len(dashes) == len(titles)
    assert rows == [["reference", "1", "0.50", "2.72"], [name, "1", "0.50", "2.72"]]


def test_a_line_break_in_a_name_ends_no_row(desk: Desk) -> None:
    assert [row[0] for row in table(card(desk, "one\ntwo", "three"))[2:]] == ["one two", "three"]


def test_what_can_not_be_printed_is_spelled_out_and_a_long_name_is_cut(desk: Desk) -> None:
    first, second = (row[0] for row in table(card(desk, "a\x1b[1mb", "x" * 999))[2:])
    assert first == "a\\x1b[1mb" and len(second) == 200 and "…" in second


def test_a_model_of_any_name_is_code(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RUN, "model", "my`model|@1")
    assert "Synthetic texts by ``my`model|@1`` (float32)" in card(desk, "E1.00")


def test_the_front_matter_names_what_has_rows(desk: Desk) -> None:
    front = yaml.safe_load(card(desk, "E1.00").split("---")[1])
    assert [each["config_name"] for each in front["configs"]] == ["default"]
    assert front["configs"][0]["default"] is True and front["pretty_name"] == "entj-demo"
