"""Texts that a card shows, by a rule that it states; and how often texts repeat each other."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from evaluation.statistics.aggregate import panel
from pipeline.publish.summary import heard_scores

# Texts among which near-duplicates are looked for at most: some ten seconds.
MOST_COMPARED = 20_000


@dataclass(frozen=True)
class Example:
    """A row that is shown.

    Attributes:
        why: what it is an example of: ``best``, ``median``, ``worst``, or ``first`` where nothing is judged.
        adherence: the mean score of its attributes, by their weights.
        scores: attribute -> its score.
    """

    why: str
    row: Mapping[str, Any]
    adherence: float | None = None
    scores: Mapping[str, float] | None = None


def examples(
    generations: pa.Table, judgments: pa.Table, labels: Collection[str], rule: str = "mean"
) -> tuple[Example, ...]:
    """The texts with the best, the median and the worst adherence; of equal ones the first row.

    Adherence of a text is the mean of its own attributes' scores by their weights; texts of which one is unscored, and
    those of the control, have none. Of an even number the median is the lower one. Where no text has any: the first
    row of the first and of the last persona.

    Args:
        labels: of the judges that count. rule: of their panel.
    """
    scores = {key: panel(each, rule) for key, each in heard_scores(judgments, labels).items()}
    judged = {attribute for _, attribute in scores}
    found: list[tuple[float, int]] = []
    columns = (generations.column(name).to_pylist() for name in ("row_id", "attributes", "weights"))
    for index, (row_id, attributes, weights) in enumerate(zip(*columns, strict=True)):
        mine = [(w, scores.get((row_id, a))) for a, w in zip(attributes, weights, strict=True) if a in judged]
        values = [w * score for w, score in mine if score is not None]
        total = math.fsum(w for w, _ in mine)
        if mine and len(values) == len(mine) and total > 0:
            found.append((math.fsum(values) / total, index))
    if not found:
        personas = generations.column("persona").to_pylist()
        picked = dict.fromkeys([0, personas.index(personas[-1])] if personas else [])
        return tuple(Example("first", _row(generations, index)) for index in picked)
    found.sort()
    best = next(each for each in found if each[0] == found[-1][0])
    chosen = {"best": best, "median": found[(len(found) - 1) // 2], "worst": found[0]}
    shown: dict[int, Example] = {}
    for why, (adherence, index) in chosen.items():
        row = _row(generations, index)
        own = {a: scores.get((row["row_id"], a)) for a in row["attributes"]}
        known = {a: score for a, score in own.items() if score is not None}
        shown.setdefault(index, Example(why, row, adherence, known))
    return tuple(shown.values())


def _row(table: pa.Table, index: int) -> dict[str, Any]:
    return dict(table.slice(index, 1).to_pylist()[0])


def repeats(generations: pa.Table, of: int) -> dict[str, Any]:
    """How many texts almost repeat another one of their persona.

    Args:
        generations: the first of the data set's rows. of: how many there are.

    Returns:
        ``n_repeats``, ``n_texts`` that were looked at, and ``of``.
    """
    from evaluation.statistics.duplicates import THRESHOLD, near_duplicates

    some = generations.slice(0, MOST_COMPARED)
    found = near_duplicates(some.column("response").to_pylist(), some.column("persona").to_pylist())
    return {
        "n_repeats": found.n_repeats,
        "n_texts": found.n_texts,
        "of": of,
        "threshold": THRESHOLD,
    }
