"""Judgments on disk: shards that several judges and runs add to, one row for each text, judge and attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from evaluation.items import Item, Judge, label_of, unsendable
from evaluation.scores import UNASKED, Score, Status
from personas.text import storable
from pipeline.store.shards import read_shards, shard_name, write_rows

# Texts judged between two writes: what a killed run asks again of a judge that keeps no answers itself.
TEXTS_A_SHARD = 256


def judgment_rows(items: Sequence[Item], label: str, scores: Mapping[str, Sequence[Score]]) -> list[dict[str, Any]]:
    """Scores as rows of the table ``judgments``."""
    return [
        {
            "row_id": storable(item.key),
            "attribute": storable(attribute),
            "judge": storable(label),
            "score": score.score,
            "status": str(score.status),
            "rationale": storable(score.rationale),
            "prompt_tokens": score.prompt_tokens,
            "completion_tokens": score.completion_tokens,
            "judged_hash": item.content_hash,
        }
        for i, item in enumerate(items)
        for attribute, of_attribute in scores.items()
        for score in [of_attribute[i]]
    ]


def merged(table: pa.Table) -> pa.Table:
    """One row a (row_id, judge, attribute), in the order of the table: a scored one if there is any, else the last."""
    columns = [table.column(name).to_pylist() for name in ("row_id", "judge", "attribute", "status")]
    chosen: dict[tuple[str, ...], int] = {}
    scored: set[tuple[str, ...]] = set()
    for i, (*key_parts, status) in enumerate(zip(*columns, strict=True)):
        key = tuple(key_parts)
        if key not in scored:
            chosen[key] = i
            if status == Status.OK:
                scored.add(key)
    return table.take(pa.array(sorted(chosen.values()), type=pa.int64()))


def judged_attributes(table: pa.Table, label: str, *, scored_only: bool) -> dict[str, set[str]]:
    """Row id -> the attributes that a judge has judged; with ``scored_only``, to a score."""
    found: dict[str, set[str]] = {}
    for row in table.select(["row_id", "attribute", "judge", "status"]).to_pylist():
        if row["judge"] == label and (row["status"] == Status.OK or not scored_only):
            found.setdefault(row["row_id"], set()).add(row["attribute"])
    return found


def standing(table: pa.Table, items: Sequence[Item], *, known_only: bool) -> pa.Table:
    """The judgments that are about what the items hold now: of a text that was edited, none of before.

    Args:
        known_only: whether judgments that do not say what was judged (of an older schema) are left out, too. A data
            set's ids name their texts, those of somebody's file may not.
    """
    now = {item.key: item.content_hash for item in items}
    pairs = zip(table.column("row_id").to_pylist(), table.column("judged_hash").to_pylist(), strict=True)
    keep = [i for i, (key, judged) in enumerate(pairs) if judged == now.get(key) or (judged is None and not known_only)]
    return table.take(pa.array(keep, type=pa.int64()))


class JudgmentWriter:
    """Writes scores as they come, a shard at a time.

    Args:
        folder: of the shards.
        label: of the judge.
    """

    def __init__(self, folder: Path, label: str) -> None:
        self._folder, self._label = folder, label
        self._waiting: list[dict[str, Any]] = []
        self._texts = 0

    def add(self, item: Item, scores: Mapping[str, Score]) -> None:
        """One text's scores."""
        self._waiting += judgment_rows([item], self._label, {name: [score] for name, score in scores.items()})
        self._texts += 1
        if self._texts >= TEXTS_A_SHARD:
            self.flush()

    def flush(self) -> None:
        """Write what waits; a shard with unscored rows has its own name each time, so that none is lost."""
        if self._waiting:
            parts = [
                f"{row['row_id']}:{row['judged_hash']}:{row['attribute']}:{row['status']}" for row in self._waiting
            ]
            write_rows(self._waiting, "judgments", self._folder / shard_name(parts, self._label))
        self._waiting, self._texts = [], 0


def judge_items(
    judge: Judge,
    items: Sequence[Item],
    attributes: Sequence[str],
    folder: Path,
    on_text: Any = None,
    *,
    known_only: bool = False,
) -> int:
    """Judge what is not scored yet, and write it; returns about how many texts the judge had its say.

    A run that is stopped keeps what it has written; Ctrl-C writes what was scored first.

    Args:
        known_only: see :func:`standing`.
    """
    label = storable(label_of(judge))
    judge_each = getattr(judge, "judge_each", None)  # tells each text's scores as soon as they are known
    asks_again = getattr(judge, "asks_again", False)  # may answer another time what it did not now
    before = standing(read_shards(folder, "judgments"), items, known_only=known_only)
    done = judged_attributes(before, label, scored_only=asks_again)
    left = [item for item in items if not done.get(item.key, set()).issuperset(attributes)]
    writer = JudgmentWriter(folder, label)
    if not asks_again:  # those behind endpoints say so themselves
        left = [item for item in left if not _noted_as_unreadable(item, attributes, writer)]

    n_judged = 0

    def keep(index: int, scores: Mapping[str, Score]) -> None:
        nonlocal n_judged
        writer.add(left[index], scores)
        n_judged += not asks_again or any(score.status not in UNASKED for score in scores.values())
        if on_text is not None:
            on_text()

    try:
        if judge_each is not None:
            judge_each(left, attributes, keep)
        else:
            for first in range(0, len(left), TEXTS_A_SHARD):
                some = left[first : first + TEXTS_A_SHARD]
                scores = judge.judge(some, attributes)
                for i in range(len(some)):
                    keep(first + i, {name: scores[name][i] for name in attributes})
    finally:
        writer.flush()
    return n_judged


def _noted_as_unreadable(item: Item, attributes: Sequence[str], writer: JudgmentWriter) -> bool:
    """Whether no judge can be told about an item; it gets its judgments here then."""
    why = unsendable(item)
    if why is not None:
        writer.add(item, dict.fromkeys(attributes, Score(None, Status.FAILED, why)))
    return why is not None


def gather(shards: Path, items: Sequence[Item], *, known_only: bool = False) -> pa.Table:
    """All judgments of some texts from their shards, in the order of the texts.

    Args:
        known_only: see :func:`standing`.
    """
    table = merged(standing(read_shards(shards, "judgments"), items, known_only=known_only))
    order = {item.key: i for i, item in enumerate(items)}
    keys = zip(*(table.column(name).to_pylist() for name in ("row_id", "judge", "attribute")), strict=True)
    wanted = sorted((order[row_id], *rest, i) for i, (row_id, *rest) in enumerate(keys) if row_id in order)
    return table.take(pa.array([each[-1] for each in wanted], type=pa.int64()))
