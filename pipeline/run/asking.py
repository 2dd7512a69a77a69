"""Texts that a judge behind an endpoint is asked about by a run, and where what it says of them is written.

All of them are one run of the judge, whose limits (budget, breaker, calls in flight) are those of the whole job. Where
rows are told by their ranges (:mod:`pipeline.run.by_range`), what is said of a file of rows is one file, too, and its
name tells whether there is more to ask: one that bears the name of the file of rows and the judge alone
(:func:`pipeline.store.ranges.judgments_name`) has a score wherever there can be one. One with scores missing has a hash
of its content in its name, and gives way to the next that has all that it had.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.items import Item, label_of
from evaluation.judges.openai import OpenAIJudge
from evaluation.scores import Score, Status
from personas.text import storable
from pipeline.judging.registry import COLUMNS, item_of
from pipeline.judging.table import judge_items, judgment_rows, merged
from pipeline.store.files import read_bytes, remove
from pipeline.store.layout import Entry
from pipeline.store.ranges import judgments_name
from pipeline.store.schema import as_of_today
from pipeline.store.shards import sound_table, write_rows

OnText = Callable[[], object]


class Texts(Protocol):
    """Some rows' texts."""

    @property
    def n(self) -> int:
        """How many, of which some may have their scores."""
        ...

    def ask(self, judge: OpenAIJudge, attributes: Sequence[str], on_text: OnText) -> None:
        """Have those judged that lack a score, and what is said written.

        Args:
            on_text: is called for each text that is through.

        Raises:
            OSError, TooNew
        """
        ...


# Label of a judge and its attributes -> the texts that may lack a score of it.
ToAsk = Callable[[str, tuple[str, ...]], Texts]


class HeldTexts:
    """Texts that are all in memory, judgments in a folder of shards."""

    def __init__(self, items: Sequence[Item], folder: Path) -> None:
        self._items, self._folder = items, folder

    @property
    def n(self) -> int:
        return len(self._items)

    def ask(self, judge: OpenAIJudge, attributes: Sequence[str], on_text: OnText) -> None:
        judge_items(judge, self._items, attributes, self._folder, on_text=on_text)


class TextsOfFiles:
    """Texts of files of rows, a file at a time and those whose calls are in flight.

    Args:
        work: the work folder.
        files: name of a file of rows, its rows, names of the judgments of it: of files that lack a score.
        known: what the manifest says of files of judgments.
    """

    def __init__(self, work: Path, files: Sequence[tuple[str, int, Sequence[str]]], known: Mapping[str, Entry]) -> None:
        self._work, self._files, self._known = work, files, known

    @property
    def n(self) -> int:
        return sum(n for _, n, _ in self._files)

    def ask(self, judge: OpenAIJudge, attributes: Sequence[str], on_text: OnText) -> None:
        opened: dict[str, _Said] = {}  # those of which something may be in flight
        in_flight: dict[int, tuple[_Said, Item]] = {}

        def texts() -> Iterator[Item]:
            index = 0
            for rows, _, judgments in self._files:
                items = _items_in(self._work / "generations" / rows)
                if not items:
                    continue
                said = _Said(self._work / "judgments", rows, judge, attributes)
                for name in judgments:
                    said.take_up(name, self._known.get(name))
                left = [item for item in items if not said.has_all_of(item)]
                for _ in range(len(items) - len(left)):
                    on_text()
                said.n_left = len(left)
                if not left:
                    said.write()
                    continue
                opened[rows] = said
                for item in left:
                    in_flight[index] = said, item
                    yield item
                    index += 1

        def keep(index: int, scores: Mapping[str, Score]) -> None:
            said, item = in_flight.pop(index)
            said.add(item, scores)
            if not said.n_left:
                opened.pop(said.of).write()
            on_text()

        try:
            judge.judge_each(texts(), attributes, keep)
        finally:
            for said in opened.values():
                said.write()


class _Said:
    """What a judge says of one file of rows.

    Attributes:
        of: the file's name. n_left: its texts that the judge has not been asked about by this run.
    """

    def __init__(self, folder: Path, of: str, judge: OpenAIJudge, attributes: Sequence[str]) -> None:
        self._folder, self.of, self._judge, self._attributes = folder, of, judge, attributes
        self._label = storable(label_of(judge))
        self._rows: dict[tuple[str, str], dict[str, Any]] = {}  # by row id and attribute
        self._before: list[str] = []  # files that have no more than these
        self._is_whole = True  # as far as it has been asked
        self.n_left = 0

    def take_up(self, name: str, entry: Entry | None) -> None:
        """A file of judgments, if they are this judge's. Raises OSError, TooNew."""
        table = sound_table(self._folder / name, "judgments", entry)
        if table is not None and set(table.column("judge").to_pylist()) == {self._label}:
            self._before.append(name)
            held = pa.Table.from_pylist(list(self._rows.values()), schema=table.schema)
            rows = merged(pa.concat_tables([held, table])).to_pylist()
            self._rows = {(row["row_id"], row["attribute"]): row for row in rows}

    def has_all_of(self, item: Item) -> bool:
        """Whether a text has its scores."""
        return all(self._is_scored(item.key, storable(name)) for name in self._attributes)

    def add(self, item: Item, scores: Mapping[str, Score]) -> None:
        """What is said of the next text: a score stays, another word does not."""
        self.n_left -= 1
        for row in judgment_rows([item], self._label, {name: [score] for name, score in scores.items()}):
            if not self._is_scored(row["row_id"], row["attribute"]):
                self._rows[row["row_id"], row["attribute"]] = row
        lacking = {name for name in self._attributes if not self._is_scored(item.key, storable(name))}
        if lacking and not lacking <= self._judge.unjudgeable(item, self._attributes).keys():
            self._is_whole = False

    def write(self) -> None:
        """Write it, and remove what it makes superfluous. Raises OSError."""
        rows = list(self._rows.values())
        if not rows:
            return
        content = [] if self._is_whole and not self.n_left else [json.dumps(row, sort_keys=True) for row in rows]
        name = judgments_name(self.of, self._label, [*self._attributes, *content])
        assert name is not None  # files of ranges are no others
        if name not in self._before:
            write_rows(rows, "judgments", self._folder / name)
        for superfluous in self._before:
            if superfluous != name:
                remove(self._folder / superfluous)

    def _is_scored(self, row_id: str, attribute: str) -> bool:
        row = self._rows.get((row_id, attribute))
        return row is not None and row["status"] == Status.OK


def _items_in(path: Path) -> list[Item]:
    """The texts of a file of rows; of a damaged one none: who puts the data set together has its rows made again.

    Raises:
        OSError: it can't be read now.
    """
    content = read_bytes(path)
    try:
        table = as_of_today(pq.read_table(pa.BufferReader(content)), "generations").select(COLUMNS)
    except (ValueError, pa.ArrowException, OSError):
        return []
    return [item_of(row) for row in table.to_pylist()]
