"""Data sets as sources of prompts: what is opened, what is read, and names that are names."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from personas.data_sets import DataSet, _of_hub, open_data_set
from personas.errors import TableError
from personas.prompts import PromptError, read_prompts_of


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def lines(path: Path, *prompts: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": each, "source": path.name}) + "\n" for each in prompts))


def texts(data: DataSet, limit: int | None = None, column: str | None = None) -> list[str]:
    return [prompt.messages[-1].content for prompt in read_prompts_of(data, limit=limit, column=column).prompts]


@pytest.mark.parametrize("name", ["plain", "a*b", "a[1]", "what?", "spaced out"])
def test_a_folder_is_read_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    lines(folder / "data" / "train-0[1]*.jsonl", "a", "b")
    lines(folder / "data" / "train-1.jsonl", "c")
    lines(folder / "data" / "test.jsonl", "t")
    lines(tmp_path / "axb" / "data" / "train.jsonl", "another")
    assert texts(DataSet(str(folder))) == ["a", "b", "c"] and texts(DataSet(str(folder), "test")) == ["t"]
    assert read_prompts_of(DataSet(str(folder))).source == name
    with pytest.raises(PromptError, match="has no split 'validation'; choose from train, test"):
        texts(DataSet(str(folder), "validation"))


def test_files_are_named_and_names_are_no_patterns(tmp_path: Path) -> None:
    lines(tmp_path / "set" / "p[1].jsonl", "a")
    lines(tmp_path / "set" / "p1.jsonl", "b")
    lines(tmp_path / "set" / "sub" / "p*.jsonl", "c")
    (tmp_path / "set" / "sub" / "q.csv").write_text("prompt,source\n001,x\n")
    data = DataSet(str(tmp_path / "set"), data_files=("p[1].jsonl", "sub/p*.jsonl", "sub/q.csv"))
    assert texts(data) == ["a", "c", "001"]
    lines(tmp_path / "set" / "sub" / "bad.jsonl", "a")
    (tmp_path / "set" / "sub" / "bad.jsonl").write_text("nope")
    found = read_prompts_of(DataSet(data.place, data_files=("p1.jsonl", "sub/bad.jsonl")))
    assert [row.source for row in found.broken] == ["set: sub/bad.jsonl, line 1"]
    with pytest.raises(PromptError, match=r"data file 'p\*.jsonl': no such file"):
        texts(DataSet(data.place, data_files=("p*.jsonl",)))
    with pytest.raises(PromptError, match="has no split 'test'; its data_files are the split 'train'"):
        texts(DataSet(data.place, "test", data_files=("p1.jsonl",)))


def test_only_what_is_asked_for_is_read(tmp_path: Path, cache: Path) -> None:
    """Another split, another configuration, and all behind the limit may be broken; nothing is prepared."""
    folder = tmp_path / "set"
    lines(folder / "one" / "train.jsonl", "a", "b")
    with (folder / "one" / "train.jsonl").open("a") as file:
        file.write("broken\n" * 50)
    (folder / "one" / "test.jsonl").write_text("broken")
    pq.write_table(pa.table({"question": ["q"], "prompt": ["p"]}), folder / "two.parquet")
    splits = "[{split: train, path: one/train.jsonl}, {split: test, path: one/test.jsonl}]"
    configs = f"- {{config_name: one, data_files: {splits}}}\n- {{config_name: two, data_files: two.parquet}}\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    assert texts(DataSet(str(folder), config="one"), limit=2) == ["a", "b"]
    assert texts(DataSet(str(folder), config="two"), column="question") == ["q"]
    with pytest.raises(PromptError, match=r"can't be opened \(ValueError: BuilderConfig 'three' not found") as caught:
        texts(DataSet(str(folder), config="three"))
    assert "\n" not in str(caught.value)
    assert not list(cache.rglob("*.arrow"))


def test_a_folder_of_another_kind_is_streamed(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "set[1]").mkdir()
    (tmp_path / "set[1]" / "train.txt").write_text("first\nsecond\n")
    assert texts(DataSet(str(tmp_path / "set[1]")), column="text", limit=1) == ["first"]
    (tmp_path / "semi").mkdir()
    (tmp_path / "semi" / "README.md").write_text(
        "---\nconfigs:\n- {config_name: a, data_files: a.csv, sep: ';'}\n---\n"
    )
    (tmp_path / "semi" / "a.csv").write_text("id;prompt\n1;a, b\n")
    assert texts(DataSet(str(tmp_path / "semi"))) == ["a, b"]
    assert not list(cache.rglob("*.arrow"))


def test_a_data_set_of_the_hub_streams_where_few_are_wanted(tmp_path: Path, cache: Path) -> None:
    """The same call as for the Hub, on a folder: there is no network here."""
    folder = tmp_path / "hub"
    lines(folder / "p[1].jsonl", "a", "b")
    lines(folder / "p1.jsonl", "another")
    data = DataSet(str(folder), data_files=("p[1].jsonl",))
    assert [row.values["prompt"] for row in _of_hub(data, few=True).rows] == ["a", "b"]
    assert not list(cache.rglob("*.arrow"))
    table = _of_hub(DataSet(str(folder), data_files=("p[1].jsonl",), streaming=False), few=True)
    assert table.columns == ("prompt", "source") and [row.place for row in table.rows] == ["row 1", "row 2"]
    assert list(cache.rglob("*.arrow"))
    for streaming in (True, False):
        with pytest.raises(TableError, match="has no split 'test'; choose from train"):
            _of_hub(DataSet(str(folder), "test", data_files=("p1.jsonl",), streaming=streaming), few=False)


def test_columns_that_are_no_text_or_numbers_are_left_alone(tmp_path: Path) -> None:
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "picture": datasets.Image(), "n": [{"a": datasets.Value("int8")}]}
    )
    rows = {"prompt": ["a"], "picture": [{"bytes": b"no picture", "path": None}], "n": [[{"a": 1}]]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(str(tmp_path / "saved"))
    table = open_data_set(DataSet(str(tmp_path / "saved")))
    assert table.columns == ("prompt", "n") and [row.values for row in table.rows] == [{"prompt": "a", "n": [{"a": 1}]}]


@pytest.mark.parametrize("split", ["train[:10]", "train+test", "a b", ""])
def test_parts_of_splits_are_no_splits(tmp_path: Path, split: str) -> None:
    with pytest.raises(TableError, match="is no split's name; parts of one are named by skip and limit"):
        open_data_set(DataSet(str(tmp_path), split))
