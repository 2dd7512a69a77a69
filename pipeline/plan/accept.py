"""As many texts as wanted: candidates of a cell are drawn until enough of them pass the judges.

The texts kept are the first that pass, by sample index, so that they do not depend on how many candidates a round
draws. A candidate that a judge could not be asked about has neither passed nor failed: it waits, and none is drawn in
its place. A kept corpus no longer follows the decoder's law: it follows it given that the judges let a text pass.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from evaluation.items import heard
from evaluation.scores import UNASKED
from evaluation.statistics.aggregate import panel
from personas import Cell, Grid
from pipeline.job.fields import Accept
from pipeline.plan.cells import PlannedCell

# Prompt id and persona's name: what a cell is, whatever the sample.
Key = tuple[str, str]


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
        """The grid of all candidates that may ever be drawn."""
        return replace(self.grid, samples_per_cell=self.rule.max_candidates)

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
        """Draw for the cells that fell short, by the share that has passed so far; False: nothing is left to draw.

        A cell whose candidates were all dead letters is not tried again: its prompt is at fault.

        Args:
            dead, waiting: how many candidates of a cell are dead letters, or wait for a score.
        """
        more = False
        for key, n in self.drawn.items():
            n_passed, n_waiting = len(passed.get(key, ())), (waiting or {}).get(key, 0)
            wanted, room = self.rule.rows_per_cell - n_passed - n_waiting, self.rule.max_candidates - n
            if wanted <= 0 or room <= 0 or dead.get(key, 0) >= n:
                continue
            share = (n_passed + 0.5) / (n - n_waiting + 1)
            self.drawn[key] += min(room, math.ceil(wanted / share))
            more = True
        return more


def by_cell(cells: Sequence[PlannedCell]) -> dict[Key, list[PlannedCell]]:
    """Planned candidates, cell by cell, in the order of their sample indices."""
    found: dict[Key, list[PlannedCell]] = {}
    for cell in cells:
        found.setdefault((cell.prompt_id, cell.persona), []).append(cell)
    return found


def adherence(
    cells: Sequence[PlannedCell], judgments: pa.Table, judged: Collection[str], labels: Collection[str], rule: str
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
    cells: Mapping[Key, Sequence[PlannedCell]], scores: Mapping[str, float | None], done: Collection[str], rule: Accept
) -> dict[Key, list[PlannedCell]]:
    """The first candidates of each cell that pass; the control's pass by being written."""
    kept: dict[Key, list[PlannedCell]] = {}
    for key, candidates in cells.items():
        good = []
        for cell in candidates:
            score = scores.get(cell.row_id)
            if cell.row_id in done and (not cell.weights or (score is not None and score >= rule.min_score)):
                good.append(cell)
        kept[key] = good[: rule.rows_per_cell]
    return kept


def waiting(
    cells: Sequence[PlannedCell],
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


def report(
    draws: Draws, passed: Mapping[Key, Sequence[PlannedCell]], waiting: Mapping[Key, int] | None = None
) -> dict[str, Any]:
    """For ``run.json``: how many candidates it took, which cells fell short, how many candidates wait for a score."""
    short = [
        {"prompt_id": prompt, "persona": persona, "rows": len(passed.get((prompt, persona), ())), "candidates": n}
        for (prompt, persona), n in draws.drawn.items()
        if len(passed.get((prompt, persona), ())) < draws.rule.rows_per_cell
    ]
    return {
        **draws.rule.model_dump(),
        "cells": len(draws.drawn),
        "candidates": sum(draws.drawn.values()),
        "rows": sum(map(len, passed.values())),
        "waiting": sum((waiting or {}).values()),
        "short": short,
    }
