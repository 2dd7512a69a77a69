"""What a data set holds of its prompts' source: metadata columns and broken rows."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest

from personas.chats import Message
from personas.prompts import BrokenRow, Prompt
from pipeline.publish.of_source import Metadata, broken_rows, metadata_of
from pipeline.store.schema import REJECTED


def prompts(*metadata: dict[str, Any]) -> list[Prompt]:
    return [Prompt(f"p{i}", (Message("user", str(i)),), each) for i, each in enumerate(metadata)]


def columns(*metadata: dict[str, Any]) -> dict[str, tuple[str, list[Any]]]:
    table = pa.table({"prompt_id": [f"p{i}" for i in range(len(metadata))]})
    found = Metadata(metadata_of(prompts(*metadata))).beside(table)
    return {field.name: (str(field.type), found.column(field.name).to_pylist()) for field in list(found.schema)[1:]}


@pytest.mark.parametrize(
    ("values", "of_type", "expected"),
    [
        (["a", None], "string", ["a", None]),
        ([1, 2], "int64", [1, 2]),
        ([1, 2.5], "double", [1.0, 2.5]),
        ([True, False], "bool", [True, False]),
        ([True, 1], "string", ["true", "1"]),
        (["a", 1], "string", ['"a"', "1"]),
        ([2**70, 1], "string", [str(2**70), "1"]),
        ([2**60, 0.5], "string", [str(2**60), "0.5"]),
        ([{"a": [1]}, ["é"]], "string", ['{"a": [1]}', '["é"]']),
        ([date(2026, 1, 2), None], "string", ['"2026-01-02"', None]),
        ([{"a": float("nan")}, [float("inf"), b"\xff"]], "string", ['{"a": null}', '[null, "\\\\xff"]']),
        (["\ud83d", "b"], "string", ["\\ud83d", "b"]),
    ],
)
def test_a_column_has_the_type_of_all_its_values(values: list[Any], of_type: str, expected: list[Any]) -> None:
    given = [{"key": value} if value is not None else {} for value in values]
    assert columns(*given) == {"metadata_key": (of_type, expected)}


def test_names_of_columns_are_plain_and_their_own() -> None:
    keys = ["a.b", "a b", "a_b", "metadata_a", "a", "", "é", "\ud83d"]
    assert list(columns(dict.fromkeys(keys, "x"))) == [
        "metadata_a_b",
        "metadata_a_b_2",
        "metadata_a_b_3",
        "metadata_a",
        "metadata_a_2",
        "metadata_column",
        "metadata_é",
        "metadata_column_2",
    ]


def test_rows_without_the_key_or_the_prompt_have_null() -> None:
    table = pa.table({"prompt_id": ["p1", "gone", "p0", "p1"]})
    found = Metadata(metadata_of(prompts({"a": 1}, {"a": 2, "b": "x"}))).beside(table)
    assert found.column("metadata_a").to_pylist() == [2, None, 1, 2]
    assert found.column("metadata_b").to_pylist() == ["x", None, None, "x"]
    assert Metadata(metadata_of(prompts({}, {}))).beside(table).equals(table)


def test_broken_rows_are_dead_letters_and_no_cells() -> None:
    broken = BrokenRow("p.jsonl: line 3", "line 3", "broken_row", "holds '\ud83d'", "{")
    table = broken_rows([broken])
    assert table.schema.equals(REJECTED, check_metadata=True) and table["row_id"].null_count == 1
    (row,) = table.to_pylist()
    assert {name: value for name, value in row.items() if value is not None} == {
        "reason": "broken_row", "message": "holds '\\ud83d'", "source": "p.jsonl: line 3", "raw": "{",
    }  # fmt: skip
