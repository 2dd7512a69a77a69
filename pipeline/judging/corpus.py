"""Any corpus as items to judge: a data set of this project, or a Parquet or JSONL file with a column of text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.items import Item
from evaluation.judges.own import OwnJudge
from personas import Attribute
from personas.errors import SourceError
from personas.examples import read_table
from personas.text import storable
from pipeline.job.adapters import adapter_folder, attribute_of, judges_beside, resolved
from pipeline.judging.registry import item_of
from pipeline.store.dataset import JOB_FILE, WORK_FOLDER, job_folder
from pipeline.store.schema import GENERATIONS, NewerSchema, refuse_newer

ID_DIGITS = 32


class CorpusError(SourceError):
    """A corpus that can't be judged."""


@dataclass(frozen=True)
class Corpus:
    """Texts, and where their judgments go.

    Attributes:
        items: in the corpus's order; texts that stand in a foreign file twice (with their prompt) once.
        clusters: one each an item: what its interval is clustered by.
        groups: one each an item: the persona it was written for; of a foreign file all the same.
        attributes: that the corpus is known to be about.
        folder: data set folder of the judgments.
        log_probs: one each an item, where rows have them: nats under the reference, and tokens.
        adapters: attribute -> folder of its adapter, where the corpus's job names one; ``None``: it is not here.
    """

    items: tuple[Item, ...]
    clusters: tuple[str, ...]
    groups: tuple[str, ...]
    attributes: tuple[Attribute, ...]
    folder: Path
    log_probs: tuple[tuple[float, int], ...] = ()
    adapters: Mapping[str, Path | None] = field(default_factory=dict)

    def own_judges(self) -> dict[str, OwnJudge]:
        """Attribute -> the judge beside its adapter. Raises JudgeWeightsError: one is damaged."""
        return judges_beside(self.adapters)


def load_corpus(source: str | Path, *, column: str, output: Path | None) -> Corpus:
    """Read a corpus.

    Args:
        source: folder of a data set (``data/*.parquet``), or a ``.parquet`` or ``.jsonl`` file.
        column: of a file, the text; ``prompt``, ``profile`` and ``personality`` are read if they are there.
        output: folder for the judgments; ``None``: a data set's own, a file's beside it.

    Raises:
        CorpusError: nothing there, no text, or a column that is missing.
    """
    path = Path(source)
    if path.is_dir():
        return _data_set(path, output)
    return _file(path, column, output)


def _data_set(path: Path, output: Path | None) -> Corpus:
    import pyarrow.parquet as pq

    files = sorted((path / "data").glob("*.parquet"))
    if not files:
        raise CorpusError(str(path), "has no data/*.parquet; give the folder of a data set, or a file")
    rows: list[dict[str, Any]] = []
    for file in files:
        table = pq.read_table(file)
        try:
            refuse_newer(table.schema)
        except NewerSchema as error:
            raise CorpusError(str(file), str(error)) from error
        missing = [name for name in ("row_id", "response", "prompt_id", "persona") if name not in table.column_names]
        if missing:
            raise CorpusError(str(file), f"has no column {missing[0]!r}; is this a data set of mpg run?")
        rows += table.to_pylist()
    attributes, adapters = _attributes_of(path)
    blank = dict.fromkeys(GENERATIONS.names)  # of an older schema, columns are missing
    rows = [blank | row for row in rows]
    return Corpus(
        items=tuple(item_of(row) for row in rows),
        clusters=tuple(row["prompt_id"] for row in rows),
        groups=tuple(row["persona"] for row in rows),
        attributes=attributes,
        adapters=adapters,
        folder=output or path,
        log_probs=()
        if any(row["log_prob_reference"] is None for row in rows)
        else tuple((row["log_prob_reference"], row["n_tokens"]) for row in rows),
    )


def _attributes_of(data_set: Path) -> tuple[tuple[Attribute, ...], dict[str, Path | None]]:
    """What a data set's job says of its attributes, or their adapters' cards; and where the adapters are."""
    job = data_set / JOB_FILE
    if not job.is_file():
        return (), {}
    entries = json.loads(job.read_text("utf-8")).get("attributes", [])
    here = job_folder(data_set / WORK_FOLDER) or data_set
    found, adapters = [], {}
    for entry in entries:
        place = resolved(here, entry["adapter"]) if entry.get("adapter") else None
        known = attribute_of(entry["name"], place)
        adapters[entry["name"]] = None if place is None else adapter_folder(place)
        described = entry.get("description") or known.description
        found.append(Attribute(known.name, described, entry.get("opposite") or known.opposite))
    return tuple(found), adapters


def _file(path: Path, column: str, output: Path | None) -> Corpus:
    if path.suffix not in (".parquet", ".jsonl", ".csv") or not path.is_file():
        what = "no such file or folder" if not path.exists() else "is no .parquet, .jsonl or .csv file"
        raise CorpusError(str(path), f"{what}; give one, or the folder of a data set")
    columns, rows = read_table(path)
    if column not in columns:
        known = ", ".join(columns) or "none"
        raise CorpusError(str(path), f"has no column {column!r} (columns: {known}); name the text's with --column")
    items = {item.key: item for item in _items(path, rows, column)}
    if not items:
        raise CorpusError(str(path), "holds no row; give at least one")
    found = tuple(items.values())
    folder = output or path.with_name(f"{path.stem}-judgments")
    return Corpus(found, tuple(i.prompt or i.key for i in found), ("all",) * len(found), (), folder)


def _items(path: Path, rows: Iterator[Mapping[str, Any]], column: str) -> Iterator[Item]:
    for number, row in enumerate(rows, start=1):
        text = row[column]
        if not isinstance(text, str):
            raise CorpusError(str(path), f"row {number}: {column} is {text!r}, no text")
        seen: dict[str, str] = {
            name: row[name] if isinstance(row.get(name), str) else "" for name in ("prompt", "profile", "personality")
        }
        identity = json.dumps([text, seen], sort_keys=True).encode()
        key = row.get("row_id") or hashlib.sha256(identity).hexdigest()[:ID_DIGITS]
        yield Item(storable(str(key)), text, seen["prompt"], seen["profile"], seen["personality"])
