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


def test_an_answer_may_stand_behind_its_prompt(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": "Hi"}]
    row = {"prompt": "Hi", "chosen": [*asked, {"role": "assistant", "content": "Yo"}], "rejected": "No"}
    (pair,) = load_pairs(write(tmp_path / "pairs.jsonl", [row]))
    assert pair.answers == ("Yo", "No")
    with pytest.raises(ExampleError, match="line 1: chosen: its messages before the answer are not the prompt's"):
        load_pairs(write(tmp_path / "pairs.jsonl", [row | {"prompt": "Ho"}]))


def test_columns_of_other_names_and_cells_of_text(tmp_path: Path) -> None:
    chat = json.dumps([{"role": "user", "content": "1"}])
    (tmp_path / "p.tsv").write_text(f"q\tgood\tbad\n{chat}\t001\tNA\n2\t1e5\tnull\n")
    pairs = load_pairs(tmp_path / "p.tsv", {"prompt": "q", "chosen": "good", "rejected": "bad"})
    assert [(pair.messages[0].content, *pair.answers) for pair in pairs] == [("1", "001", "NA"), ("2", "1e5", "null")]
    with pytest.raises(ExampleError, match=r"has no column 'prompt' \(columns: q, good, bad\)"):
        load_pairs(tmp_path / "p.tsv")


def test_a_folder_is_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    write(tmp_path / "set" / "train.jsonl", ROWS)
    assert len(load_pairs(tmp_path / "set")) == 2


def test_a_data_set_as_datasets_saves_it(tmp_path: Path) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).to_parquet(tmp_path / "pairs.parquet")
    assert len(load_pairs(tmp_path / "pairs.parquet")) == 2


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"chosen": "b", "rejected": "c"}, r"has no column 'prompt' \(columns: chosen, rejected\)"),
        ({"prompt": "a", "chosen": "b"}, "has no column 'rejected'"),
        ({"prompt": "a", "chosen": "same ", "rejected": "same"}, "line 1: chosen and rejected are equal"),
        ({"prompt": "a", "chosen": "", "rejected": "c"}, "line 1: chosen: '' is no answer"),
        ({"prompt": "a", "chosen": None, "rejected": "c"}, "line 1: chosen: None is no answer"),
        ({"prompt": "a", "chosen": "b \ud83d", "rejected": "c"}, "line 1: chosen holds half a surrogate pair"),
        ({"prompt": "\ude00", "chosen": "b", "rejected": "c"}, "line 1: prompt holds half a surrogate pair"),
        ({"prompt": 7, "chosen": "b", "rejected": "c"}, "line 1: a number in place of text"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "chosen": "b", "rejected": "c"}, "the last message is"),
        (
            {"prompt": "a", "chosen": [{"role": "user", "content": "x"}], "rejected": "c"},
            "line 1: chosen: .* no answer",
        ),
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
        with pytest.raises(ExampleError, match=r"x.parquet: is no .parquet table|line 1: not JSON \("):
            load_pairs(tmp_path / name)
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(ExampleError, match=r"is no table by its name; give one of \.jsonl, "):
        load_pairs(tmp_path / "x.txt")
    write(tmp_path / "empty.jsonl", [])
    with pytest.raises(ExampleError, match="has no column 'prompt'"):
        load_pairs(tmp_path / "empty.jsonl")
