"""Somebody's file as a corpus: ids, prompts, rows that can't be judged; and judgments that follow their texts."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from evaluation.items import Item
from evaluation.scores import Score, Status
from pipeline.judging.corpus import CorpusError, load_corpus
from pipeline.judging.table import gather, judge_items
from pipeline.store.manifest import write_manifest
from pipeline.store.schema import TABLES
from pipeline.store.shards import read_shards, write_rows, write_table


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def load(path: Path) -> Any:
    return load_corpus(path, column="text", output=None)


@pytest.mark.parametrize(("given", "key"), [(0, "0"), (7, "7"), ("x", "x"), ("007", "007"), (1.0, "1"), (1.5, "1.5")])
def test_an_id_is_kept_as_text(tmp_path: Path, given: object, key: str) -> None:
    corpus = load(write(tmp_path / "c.jsonl", {"row_id": given, "text": "a"}))
    assert [item.key for item in corpus.items] == [key] and corpus.foreign


@pytest.mark.parametrize("given", [None, "", float("nan")])
def test_a_row_without_an_id_is_named_by_its_content(tmp_path: Path, given: object) -> None:
    (item,) = load(write(tmp_path / "c.jsonl", {"row_id": given, "text": "a", "prompt": "q"})).items
    assert item == load(write(tmp_path / "c.jsonl", {"text": "a", "prompt": "q"})).items[0] and len(item.key) == 32


def test_ids_of_every_format(tmp_path: Path) -> None:
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(b"row_id,text\n001,a\n10:30,NA\n,null\n"))
    corpus = load(tmp_path / "c.csv.gz")
    assert [item.key for item in corpus.items[:2]] == ["001", "10:30"]
    assert [item.text for item in corpus.items] == ["a", "NA", "null"]
    assert corpus.folder == tmp_path / "c-judgments"
    pq.write_table(pa.table({"row_id": [0.0, 1.0], "text": ["a", "b"]}), tmp_path / "c.parquet")
    assert [item.key for item in load(tmp_path / "c.parquet").items] == ["0", "1"]


def test_two_texts_under_one_id_are_refused_and_one_text_twice_is_judged_once(tmp_path: Path) -> None:
    same = {"row_id": 1, "text": "a"}
    assert len(load(write(tmp_path / "c.jsonl", same, same, {"row_id": "1", "text": "a"})).items) == 1
    for other in ({"row_id": "1", "text": "b"}, {"row_id": 1.0, "text": "a", "prompt": "q"}):
        with pytest.raises(CorpusError, match="line 1 and line 3 have the row_id '1' and differ; give each its own"):
            load(write(tmp_path / "c.jsonl", same, {"text": "x"}, other))


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("q", "q"),
        ([{"role": "user", "content": "q"}], "q"),
        ([{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "q"}],
         "q"),
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}], "q"),
        ([{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "q"),
        ([{"role": "user", "content": [{"type": "text", "text": "q"}]}], "q"),
        ([{"role": "system", "content": "s"}], ""),
        (None, ""),
    ],
)  # fmt: skip
def test_a_prompt_of_messages_is_the_last_of_the_user(tmp_path: Path, prompt: object, asked: str) -> None:
    assert load(write(tmp_path / "c.jsonl", {"text": "a", "prompt": prompt})).items[0].prompt == asked
    pq.write_table(pa.Table.from_pylist([{"text": "a", "prompt": prompt}]), tmp_path / "c.parquet")
    assert load(tmp_path / "c.parquet").items[0].prompt == asked
    if isinstance(prompt, list):
        cell = json.dumps(prompt).replace('"', '""')
        (tmp_path / "c.csv").write_text(f'text,prompt\na,"{cell}"\n')
        assert load(tmp_path / "c.csv").items[0].prompt == asked


def test_rows_that_cannot_be_judged_are_said_and_cost_themselves(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": None}, {"text": None}, "{", {"text": 5}, {"text": "b", "prompt": 7}, {"text": "c"}]
    corpus = load(write(tmp_path / "c.jsonl", *rows))
    assert [item.text for item in corpus.items] == ["a", "", "", "c"]
    assert corpus.notes == (
        "3 of 7 rows can't be judged and are left out; the first: line 4: not JSON (Expecting property name enclosed "
        "in double quotes at column 2); write one object a line",
        "2 of 7 rows have no 'text' and stay unscored; the first: line 2",
    )
    with pytest.raises(CorpusError, match="has no text to judge; line 1: 'text' is a number; give text"):
        load(write(tmp_path / "c.jsonl", {"text": 5}))
    with pytest.raises(CorpusError, match=r"has no column 'text' \(columns: a\); name the text's with --column"):
        load(write(tmp_path / "c.jsonl", {"a": "b"}))
    with pytest.raises(CorpusError, match="holds no row"):
        load(write(tmp_path / "c.jsonl"))


def test_a_data_set_that_was_edited_is_refused(tmp_path: Path) -> None:
    base = dict.fromkeys(TABLES["generations"].names)
    row = base | {"row_id": "r", "prompt_id": "p", "persona": "a", "response": "x", "prompt": [], "attributes": [],
                  "log_ratios": []}  # fmt: skip
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "train-00000-of-00001.parquet"
    write_manifest(tmp_path, {"data": [write_table(pa.Table.from_pylist([row]), file)]})
    assert not load(tmp_path).foreign
    write_table(pa.Table.from_pylist([row | {"response": "y"}]), file)
    with pytest.raises(CorpusError, match=r"is not as the data set's manifest says .*; put it back, or judge a copy"):
        load(tmp_path)


class Counting:
    """A judge that scores by length, and counts what it was asked."""

    name, version = "counting", "1"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def knows(self, attribute: str) -> bool:
        return True

    def judge(self, items: Any, attributes: Any) -> dict[str, list[Score]]:
        self.asked += [item.text for item in items]
        return {name: [Score(len(item.text) / 10, Status.OK) for item in items] for name in attributes}


@pytest.mark.parametrize("known_only", [True, False])
def test_an_edited_text_is_judged_anew_and_its_old_score_no_longer_stands(tmp_path: Path, known_only: bool) -> None:
    judge, shards = Counting(), tmp_path / "shards"
    shards.mkdir()

    def scores(*items: Item) -> dict[str, float]:
        judge_items(judge, items, ["E"], shards, known_only=known_only)
        table = gather(shards, items, known_only=known_only)
        return {row["row_id"]: row["score"] for row in table.to_pylist()}

    assert scores(Item("a", "x"), Item("b", "xx")) == {"a": 0.1, "b": 0.2}
    assert scores(Item("a", "xxx"), Item("b", "xx")) == {"a": 0.3, "b": 0.2}
    assert scores(Item("a", "xxx"), Item("b", "xx", prompt="q")) == {"a": 0.3, "b": 0.2}
    assert scores(Item("a", "x"), Item("b", "xx")) == {"a": 0.1, "b": 0.2}
    assert judge.asked == ["x", "xx", "xxx", "xx"]  # what was judged once is never asked again
    table = gather(shards, [Item("a", "new")], known_only=known_only)
    assert table.num_rows == 0


def test_judgments_of_an_older_schema_stand_where_ids_name_texts(tmp_path: Path) -> None:
    row = {"row_id": "a", "attribute": "E", "judge": "counting@1", "score": 0.5, "status": "ok"}
    write_rows([row], "judgments", tmp_path / "old.parquet")
    assert read_shards(tmp_path, "judgments").column("judged_hash").null_count == 1
    judge, items = Counting(), [Item("a", "x")]
    assert judge_items(judge, items, ["E"], tmp_path) == 0
    assert judge_items(judge, items, ["E"], tmp_path, known_only=True) == 1
