"""What a data set's folder holds, as `datasets` and the Hub read it from the front of a card.

Everything comes from the footers of its Parquet files: what the card says is what is there. `load_dataset` takes the
columns' types from it and holds the splits' numbers of rows against what it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pipeline.store.dataset import FORMS
from pipeline.store.files import listing, parquet_file
from pipeline.store.layout import SPLITS

# Config -> its folder. `data` is no name that `datasets` takes for a config.
CONFIGS = {"default": "data", "judgments": "judgments", "rejected": "rejected", **{form: form for form in FORMS}}
# Upper ends of the ranges that the Hub takes for `size_categories` (datasets: utils/resources/size_categories.json).
_SIZES = {
    10**3: "n<1K",
    10**4: "1K<n<10K",
    10**5: "10K<n<100K",
    10**6: "100K<n<1M",
    10**7: "1M<n<10M",
    10**8: "10M<n<100M",
    10**9: "100M<n<1B",
    10**10: "1B<n<10B",
    10**11: "10B<n<100B",
    10**12: "100B<n<1T",
}


def data_front(folder: Path, *, elsewhere: Mapping[str, Path] = MappingProxyType({})) -> dict[str, Any]:
    """The part of a card's front matter that says what a data set's folder holds: only configs that have rows.

    Args:
        folder: of the data set: ``data/``, ``judgments/``, ``rejected/`` and the forms to train on below it.
        elsewhere: folder in the data set, ``judgments`` say -> where its files are now, instead of below ``folder``.

    Returns:
        ``configs`` (each with its files by split), ``dataset_info`` (a list, by config: ``features``, ``splits``,
        ``download_size`` and ``dataset_size`` in bytes; ``num_bytes`` of a split are those of its columns before
        compression, as the footers have them), ``size_categories`` (by the rows of ``default``). Without any row:
        ``size_categories`` alone.

    Raises:
        OSError, pa.ArrowException: a Parquet file has no footer that can be read.
    """
    configs, infos, n_rows = [], [], 0
    for name, place in CONFIGS.items():
        files = {split: _files(elsewhere.get(place, folder / place), split) for split in SPLITS}
        files = {split: there for split, there in files.items() if there}
        if not files:
            continue
        data_files = [{"split": split, "path": f"{place}/{split}-*.parquet"} for split in files]
        configs.append(
            {"config_name": name, "data_files": data_files} | ({"default": True} if name == "default" else {})
        )
        infos.append(_info(name, files))
        n_rows += sum(split["num_examples"] for split in infos[-1]["splits"]) if name == "default" else 0
    front = {"configs": configs, "dataset_info": infos} if configs else {}
    return front | {"size_categories": [size_category(n_rows)]}


def size_category(n_rows: int) -> str:
    """The Hub's range that a number of rows lies in."""
    return next((name for end, name in _SIZES.items() if n_rows < end), "n>1T")


def _files(folder: Path, split: str) -> dict[Path, int]:
    """A split's files with their bytes."""
    found = listing(folder, ".parquet")
    return {folder / name: size for name, size in found.items() if name.startswith(f"{split}-")}


def _info(name: str, files: Mapping[str, Mapping[Path, int]]) -> dict[str, Any]:
    """Of a config, what ``datasets.DatasetInfo`` writes into a card."""
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    splits, schema = SplitDict(), None
    for split, there in files.items():
        n_bytes = n_rows = 0
        for path in there:
            with parquet_file(path) as file:
                schema = schema or file.schema_arrow
                n_bytes += sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
                n_rows += file.metadata.num_rows
        splits.add(SplitInfo(split, num_bytes=n_bytes, num_examples=n_rows))
    info = DatasetInfo(
        features=Features.from_arrow_schema(schema),
        splits=splits,
        download_size=sum(size for there in files.values() for size in there.values()),
        dataset_size=sum(split.num_bytes for split in splits.values()),
    )
    card = DatasetCardData()
    DatasetInfosDict({name: info}).to_dataset_card_data(card)
    return {"config_name": name, **card.to_dict()["dataset_info"]}
