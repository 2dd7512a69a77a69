"""The judge stage: reads generation shards, writes judgment shards beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
from apache_beam.utils.shared import Shared

from evaluation.items import Item, Judge, label_of
from personas import MBTI, ROLE_PLAY
from pipeline.job_fields import ClassifierJudge, Judges, LogRatioJudge, PersonaMatchJudge
from pipeline.judgments import judgment_rows
from pipeline.progress import Ticker
from pipeline.shards import shard_name, write_rows

_COLUMNS = ("row_id", "prompt", "profile", "personality", "response", "attributes", "log_ratios", "n_tokens")


@dataclass(frozen=True)
class JudgeTask:
    """Rows of one generation file that one judge has not scored on some attributes yet."""

    path: str
    row_ids: tuple[str, ...]


@dataclass(frozen=True)
class JudgeWork:
    """What one judge has to do: its attributes, and the rows of earlier runs that it has not judged."""

    spec: Judges
    attributes: tuple[str, ...]
    label: str
    earlier: tuple[JudgeTask, ...] = ()


class JudgeError(RuntimeError):
    """A judge that can't be loaded on this machine."""


def known_to(spec: Judges, attributes: Sequence[str]) -> tuple[str, ...]:
    """The attributes that a judge can score, known without loading it."""
    known: dict[str, Mapping[str, Any]] = {"classifier": MBTI, "persona-match": ROLE_PLAY}
    return tuple(name for name in attributes if spec.kind not in known or name in known[spec.kind])


def load_judge(spec: Judges) -> Judge:
    """The judge of a job's ``judges`` entry.

    Raises:
        JudgeError: its weights or the package it needs are missing.
    """
    from evaluation.classifier_judge import ClassifierJudge as Classifier
    from evaluation.classifier_judge import JudgeWeightsError
    from evaluation.embedding import EmbeddingModelError
    from evaluation.log_ratio_judge import LogRatioJudge as LogRatio
    from evaluation.persona_match import PersonaMatchJudge as PersonaMatch

    try:
        match spec:
            case ClassifierJudge(abstain=abstain):
                return Classifier.load(abstain=abstain)
            case PersonaMatchJudge():
                return PersonaMatch()
            case LogRatioJudge():
                return LogRatio()
    except (JudgeWeightsError, EmbeddingModelError) as error:
        raise JudgeError(f"judges: {spec.kind}: {error}") from error


def item_of(row: Mapping[str, Any]) -> Item:
    """A generation row as judges see it."""
    asked = [message["content"] for message in row["prompt"] if message["role"] == "user"]
    n = row["n_tokens"] or 1
    return Item(
        key=row["row_id"],
        text=row["response"],
        prompt=asked[-1] if asked else "",
        profile=row["profile"] or "",
        personality=row["personality"] or "",
        log_ratios={a: ratio / n for a, ratio in zip(row["attributes"], row["log_ratios"], strict=True)},
    )


class JudgeFn(beam.DoFn):
    """Score every text on every attribute; what can't be scored is written with its reason."""

    def __init__(self, work: JudgeWork, *, folder: str, progress: str) -> None:
        self._work, self._folder, self._progress = work, folder, progress
        self._shared = Shared()

    def setup(self) -> None:
        self._judge: Judge = self._shared.acquire(lambda: load_judge(self._work.spec), tag=self._work.label)
        self._ticker = Ticker(Path(self._progress))

    def teardown(self) -> None:
        self._ticker.close()

    def process(self, task: JudgeTask) -> Iterator[int]:
        wanted = set(task.row_ids)
        table = pq.read_table(task.path, columns=list(_COLUMNS))
        items = [item_of(row) for row in table.to_pylist() if row["row_id"] in wanted]
        scores = self._judge.judge(items, self._work.attributes)
        label = label_of(self._judge)
        rows = judgment_rows(items, label, scores)
        name = shard_name((item.key for item in items), label, *self._work.attributes)
        write_rows(rows, "judgments", Path(self._folder) / "judgments" / name)
        for _ in items:
            self._ticker.tick()
        yield len(rows)
