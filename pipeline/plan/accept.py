"""As many texts as wanted: candidates of a cell are drawn until enough of them pass the judges.

The texts kept are the first that pass, by sample index, so that they do not depend on how many candidates a round
draws. A candidate that a judge could not be asked about has neither passed nor failed: it waits, and none is drawn in
its place. A kept corpus no longer follows the decoder's law: it follows it given that the judges let a text pass.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from evaluation.items import heard
from evaluation.scores import UNASKED
from evaluation.statistics.aggregate import panel
from personas import Cell, Grid
from pipeline.job.fields import Accept
from pipeline.plan.cells import PlannedCell

# Prompt id and persona's name: what a cell is, whatever the sample.
Key = tuple[str, str]


class Candidate(Protocol):
    """What is asked of a candidate: a planned cell, or what a row says of it."""

    @property
    def row_id(self) -> str: ...

    @property
    def weights(self) -> tuple[tuple[str, float], ...]:
        """Of its own attributes; none: the control."""
        ...


K = TypeVar("K", bound=Hashable)
C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True)
class Law:
    """What decides which candidates pass, and so how many are drawn.

    Attributes:
        judged: attributes that any judge knows; the others do not count.
        labels: of the judges that count. remote: of those behind endpoints, which may answer another time.
        panel: its rule, see :func:`evaluation.statistics.aggregate.panel`.
    """

    rule: Accept
    judged: frozenset[str]
    labels: frozenset[str]
    remote: frozenset[str]
    panel: str

    def identity(self) -> str:
        """In words that are the same on every machine."""
        return repr((self.rule, *map(sorted, (self.judged, self.labels, self.remote)), self.panel))

    def seen(
        self,
        groups: Mapping[K, Sequence[C]],
        judgments: pa.Table,
        done: Collection[str],
        wordless: Collection[str] = (),
    ) -> tuple[dict[K, list[C]], set[str]]:
        """Of each group the first candidates that pass, by :func:`passing`, and who waits, by :func:`waiting`."""
        cells = [cell for group in groups.values() for cell in group]
        scores = adherence(cells, judgments, self.judged, self.labels, self.panel)
        waits = waiting(cells, judgments, self.judged, self.remote, done, wordless) if self.remote else set[str]()
        return passing(groups, scores, done, self.rule), waits


def n_more(rule: Accept, n: int, n_passed: int, n_waiting: int, n_dead: int) -> int:
    """How many more candidates a cell is drawn that has had ``n``, by the share that has passed so far.

    A cell whose candidates were all dead letters is not tried again: its prompt is at fault.
    """
    wanted, room = rule.rows_per_cell - n_passed - n_waiting, rule.max_candidates - n
    if wanted <= 0 or room <= 0 or n_dead >= n:
        return 0
    share = (n_passed + 0.5) / (n - n_waiting + 1)
    return min(room, math.ceil(wanted / share))


def widest(grid: Grid, rule: Accept) -> Grid:
    """The grid of all candidates that may ever be drawn, of one with a candidate a cell."""
    return replace(grid, samples_per_cell=rule.max_candidates)


@dataclass
class Draws:
    """How many candidates every cell has had."""

    rule: Accept
    grid: Grid
    drawn: dict[Key, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for prompt in self.grid.prompts:
            for persona in self.grid.personas:
                self.drawn[prompt.prompt_id, persona.name] = self.rule.rows_per_cell

    @property
    def widest(self) -> Grid:
        """See :func:`widest`."""
        return widest(self.grid, self.rule)

    def places(self) -> list[int]:
        """Of all candidates drawn so far in :attr:`widest`, in its order."""
        cells = ((prompt.prompt_id, persona.name) for prompt in self.grid.prompts for persona in self.grid.personas)
        most = self.rule.max_candidates
        return [i * most + sample for i, key in enumerate(cells) for sample in range(self.drawn[key])]

    def candidates(self) -> Iterator[Cell]:
        """The same as cells."""
        widest = self.widest
        return (widest[place] for place in self.places())

    def draw_more(
        self,
        passed: Mapping[Key, Sequence[PlannedCell]],
        dead: Mapping[Key, int],
        waiting: Mapping[Key, int] | None = None,
    ) -> bool:
        """Draw for the cells that fell short, by :func:`n_more`; False: nothing is left to draw.

        Args:
            dead, waiting: how many candidates of a cell are dead letters, or wait for a score.
        """
        more = {
            key: n_more(self.rule, n, len(passed.get(key, ())), (waiting or {}).get(key, 0), dead.get(key, 0))
            for key, n in self.drawn.items()
        }
        for key, n in more.items():
            self.drawn[key] += n
        return any(more.values())


def by_cell(cells: Sequence[PlannedCell]) -> dict[Key, list[PlannedCell]]:
    """Planned candidates, cell by cell, in the order of their sample indices."""
    found: dict[Key, list[PlannedCell]] = {}
    for cell in cells:
        found.setdefault((cell.prompt_id, cell.persona), []).append(cell)
    return found


def adherence(
    cells: Sequence[Candidate], judgments: pa.Table, judged: Collection[str], labels: Collection[str], rule: str
) -> dict[str, float | None]:
    """Row id -> mean score of its own attributes, by their weights; ``None`` where one of them is unscored.

    Args:
        judged: attributes that any judge knows; the others do not count.
        labels: of the judges that count.
        rule: of the panel, see :func:`evaluation.statistics.aggregate.panel`.
    """
    scores = panel_scores(judgments, labels, rule)
    return {cell.row_id: own_score(cell.row_id, cell.weights, scores, judged) for cell in cells}


def panel_scores(judgments: pa.Table, labels: Collection[str], rule: str) -> dict[tuple[str, str], float | None]:
    """(row id, attribute) -> the one score of the judges that count; ``None``: none of them scored it.

    Args:
        labels: of judges; of these the independent ones count (:func:`evaluation.items.heard`).
        rule: of the panel, see :func:`evaluation.statistics.aggregate.panel`.
    """
    scores: dict[tuple[str, str], list[float | None]] = {}
    counts = heard(labels)
    for row in judgments.select(["row_id", "attribute", "score", "judge"]).to_pylist():
        if counts(row["judge"], row["attribute"]):
            scores.setdefault((row["row_id"], row["attribute"]), []).append(row["score"])
    return {key: panel(some, rule) for key, some in scores.items()}


def own_score(
    row_id: str,
    weights: Iterable[tuple[str, float]],
    scores: Mapping[tuple[str, str], float | None],
    judged: Collection[str],
) -> float | None:
    """Mean score of a text on attributes, by their weights; ``None``: one of them is unscored, or none is judged.

    Args:
        weights: of a persona, the text's own or another.
        scores: see :func:`panel_scores`. judged: attributes that any judge knows; the others do not count.
    """
    mine = [(weight, scores.get((row_id, name))) for name, weight in weights if name in judged]
    values = [weight * score for weight, score in mine if score is not None]
    total = math.fsum(weight for weight, _ in mine)
    return math.fsum(values) / total if mine and len(values) == len(mine) else None


def passing(
    cells: Mapping[K, Sequence[C]], scores: Mapping[str, float | None], done: Collection[str], rule: Accept
) -> dict[K, list[C]]:
    """The first candidates of each cell that pass; the control's pass by being written."""
    kept: dict[K, list[C]] = {}
    for key, candidates in cells.items():
        good = []
        for cell in candidates:
            score = scores.get(cell.row_id)
            if cell.row_id in done and (not cell.weights or (score is not None and score >= rule.min_score)):
                good.append(cell)
        kept[key] = good[: rule.rows_per_cell]
    return kept


def waiting(
    cells: Sequence[Candidate],
    judgments: pa.Table,
    judged: Collection[str],
    labels: Collection[str],
    done: Collection[str],
    wordless: Collection[str] = (),
) -> set[str]:
    """Row ids of candidates that one of some judges could not be asked about, or was not yet.

    An answer without a score (refused, not in the agreed form) is an answer: such a candidate does not pass.

    Args:
        judged: attributes that count.
        labels: of the judges that may answer another time.
        done: row ids that are written.
        wordless: row ids of texts that nobody could judge.
    """
    answered: set[tuple[str, str, str]] = set()
    for row in judgments.select(["row_id", "attribute", "judge", "status"]).to_pylist():
        if row["status"] not in UNASKED:
            answered.add((row["row_id"], row["attribute"], row["judge"]))
    return {
        cell.row_id
        for cell in cells
        if cell.row_id in done and cell.row_id not in wordless
        for name, _ in cell.weights
        for label in labels
        if name in judged and (cell.row_id, name, label) not in answered
    }


def why_waiting(judgments: pa.Table, waiting: Collection[str], remote: Collection[str]) -> Counter[str]:
    """What judges behind endpoints gave as reasons for having no score of some texts, and how often each."""
    rows = judgments.select(["row_id", "judge", "rationale"]).to_pylist()
    return Counter(
        row["rationale"] for row in rows if row["row_id"] in waiting and row["judge"] in remote and row["rationale"]
    )


def report(rule: Accept, cells: Iterable[tuple[Key, int, int]], waiting: int = 0) -> dict[str, Any]:
    """For ``run.json``: how many candidates it took, which cells fell short, how many candidates wait for a score.

    Args:
        cells: each with how many rows it has, and how many candidates it has had.
    """
    short: list[dict[str, Any]] = []
    n_cells = n_candidates = n_rows = 0
    for (prompt, persona), rows, candidates in cells:
        n_cells, n_candidates, n_rows = n_cells + 1, n_candidates + candidates, n_rows + rows
        if rows < rule.rows_per_cell:
            short.append({"prompt_id": prompt, "persona": persona, "rows": rows, "candidates": candidates})
    return {
        **rule.model_dump(),
        "cells": n_cells,
        "candidates": n_candidates,
        "rows": n_rows,
        "waiting": waiting,
        "short": short,
    }
