"""Tables of examples: every format, text or chat, and the line that each mistake gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from personas.examples import ExampleError, columns_of, load_pairs, load_texts

ROWS = [
    {"prompt": "What now?", "chosen": "A plan,\nstep by step.", "rejected": "Whatever."},
    {"prompt": 'Say "hi"', "chosen": "Hi!", "rejected": "No."},
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(pa.Table.from_pylist(rows), path)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", ["parquet", "jsonl", "csv"])
def test_every_format_reads_the_same(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"pairs.{kind}", ROWS)
    pairs = load_pairs(path)
    assert [pair.answers for pair in pairs] == [(row["chosen"], row["rejected"]) for row in ROWS]
    assert pairs[1].as_chat() == [{"role": "user", "content": 'Say "hi"'}]
    assert columns_of(path) == ("prompt", "chosen", "rejected")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_chats(tmp_path: Path, kind: str) -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    row = {"prompt": chat, "response": [{"role": "assistant", "content": "Yo"}]}
    (text,) = load_texts(write(tmp_path / f"texts.{kind}", [row]))
    assert text.as_chat() == chat and text.answers == ("Yo",)


def test_a_data_set_as_datasets_saves_it(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).to_parquet(tmp_path / "pairs.parquet")
    assert len(load_pairs(tmp_path / "pairs.parquet")) == 2


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"chosen": "b", "rejected": "c"}, r"has no column 'prompt' \(columns: chosen, rejected\)"),
        ({"prompt": "a", "chosen": "b"}, "has no column 'rejected'"),
        ({"prompt": "a", "chosen": "same ", "rejected": "same"}, "row 1: chosen and rejected are equal"),
        ({"prompt": "a", "chosen": "", "rejected": "c"}, "row 1: chosen: '' is no answer"),
        ({"prompt": "a", "chosen": None, "rejected": "c"}, "row 1: chosen: None is no answer"),
        ({"prompt": 7, "chosen": "b", "rejected": "c"}, "row 1: a number in place of text"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "chosen": "b", "rejected": "c"}, "the last message is"),
        ({"prompt": "a", "chosen": [{"role": "user", "content": "x"}], "rejected": "c"}, "row 1: chosen: .* no answer"),
    ],
)
def test_each_mistake_has_its_line(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    path = write(tmp_path / "pairs.jsonl", [row])
    with pytest.raises(ExampleError, match=says) as caught:
        load_pairs(path)
    assert str(caught.value).startswith(str(path))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ExampleError, match="no such file; give one, or a Hub id"):
        load_pairs(tmp_path / "no.jsonl")
    for name in ("x.parquet", "x.jsonl"):
        (tmp_path / name).write_text("{")
        with pytest.raises(ExampleError, match=r"x.parquet: is no .parquet table|line 1: not JSON in UTF-8"):
            load_pairs(tmp_path / name)
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(ExampleError, match=r"is no \.parquet, \.jsonl, \.csv file"):
        load_pairs(tmp_path / "x.txt")
    write(tmp_path / "empty.jsonl", [])
    with pytest.raises(ExampleError, match="has no column 'prompt'"):
        load_pairs(tmp_path / "empty.jsonl")
