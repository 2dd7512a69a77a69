"""The front of a card says what the folder holds, and `datasets` believes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import Features, load_dataset

from pipeline.publish.configs import CONFIGS, data_front, size_category

TABLE = pa.table(
    {
        "row_id": ["a", "b", "c"],
        "prompt": pa.array([[{"role": "user", "content": "x"}]] * 3),
        "weights": pa.array([[0.5], [], [1.0]], pa.list_(pa.field("element", pa.float64()))),
        "n": pa.array([1, 2, None], pa.int32()),
        "exact": [True, None, False],
    }
)


def write(folder: Path, *files: str, table: pa.Table = TABLE) -> Path:
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, folder / name, compression="zstd")
    return folder


def with_card(folder: Path) -> dict[str, Any]:
    front = data_front(folder)
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# x\n")
    return front


@pytest.mark.parametrize("streaming", [False, True])
def test_every_config_and_split_is_read_and_verified(tmp_path: Path, streaming: bool) -> None:
    names = [f"{place}/{split}-00000-of-00001.parquet" for place in CONFIGS.values() for split in ("train", "test")]
    front = with_card(write(tmp_path / "set", *names, "data/train-00001-of-00002.parquet"))
    assert [each["config_name"] for each in front["configs"]] == list(CONFIGS)
    assert [each["config_name"] for each in front["configs"] if each.get("default")] == ["default"]
    for config in [None, *CONFIGS]:
        found = load_dataset(str(tmp_path / "set"), config, streaming=streaming, cache_dir=str(tmp_path / "cache"))
        assert list(found) == ["train", "test"]
        rows = {split: len(list(found[split])) for split in found}
        assert rows == {"train": 6 if config in (None, "default") else 3, "test": 3}
        assert found["train"].features == Features.from_arrow_schema(TABLE.schema)


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    write(tmp_path, "data/train-00000-of-00001.parquet", "judgments/test-00000-of-00001.parquet")
    front = data_front(tmp_path)
    main, judgments = front["dataset_info"]
    (file,) = (tmp_path / "data").iterdir()
    footer = pq.read_metadata(file).row_group(0)
    n_bytes = sum(footer.column(i).total_uncompressed_size for i in range(footer.num_columns))
    assert main["download_size"] == file.stat().st_size and main["dataset_size"] == n_bytes
    assert main["splits"] == [{"name": "train", "num_bytes": n_bytes, "num_examples": 3}]
    assert [split["name"] for split in judgments["splits"]] == ["test"]  # a split without rows is none
    assert front["size_categories"] == ["n<1K"]


def test_a_wrong_number_of_rows_is_noticed_by_datasets(tmp_path: Path) -> None:
    """What is written there is no decoration: a split that has lost a file is no whole data set."""
    write(tmp_path / "set", "data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")
    with_card(tmp_path / "set")
    (tmp_path / "set/data/train-00001-of-00002.parquet").unlink()
    with pytest.raises(Exception, match="num_examples=6"):
        load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))


def test_judgments_may_be_elsewhere_and_a_folder_may_be_empty(tmp_path: Path) -> None:
    assert data_front(tmp_path) == {"size_categories": ["n<1K"]}
    write(tmp_path / "set", "data/train-00000-of-00001.parquet", "judgments/train-00000-of-00001.parquet")
    write(tmp_path / "next", "judgments/train-00000-of-00001.parquet", table=TABLE.slice(0, 1))
    front = data_front(tmp_path / "set", elsewhere={"judgments": tmp_path / "next/judgments"})
    assert [info["splits"][0]["num_examples"] for info in front["dataset_info"]] == [3, 1]
    gone = data_front(tmp_path / "set", elsewhere={"judgments": tmp_path / "nowhere"})
    assert [each["config_name"] for each in gone["configs"]] == ["default"]


@pytest.mark.parametrize(
    ("n_rows", "expected"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M"), (10**12, "n>1T")],
)
def test_size_categories_are_the_hubs(n_rows: int, expected: str) -> None:
    assert size_category(n_rows) == expected
