"""The judge stage: reads generation shards, writes judgment shards beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow.parquet as pq
from apache_beam.utils.shared import Shared

from pipeline.progress import Ticker
from pipeline.shards import shard_name, write_rows


@dataclass(frozen=True)
class JudgeTask:
    """Rows of one generation file that one judge has not scored on some attributes yet."""

    path: str
    row_ids: tuple[str, ...]


class JudgeError(RuntimeError):
    """A judge that can't be loaded on this machine."""


def load_judge(kind: str) -> Any:
    """The judge of a job's ``judges`` entry.

    Raises:
        JudgeError: its weights or the package it needs are missing.
    """
    if kind == "classifier":
        from evaluation.classifier_judge import ClassifierJudge, JudgeWeightsError
        from evaluation.embedding import EmbeddingModelError

        try:
            return ClassifierJudge.load()
        except (JudgeWeightsError, EmbeddingModelError) as error:
            raise JudgeError(f"judges: {kind}: {error}") from error
    raise ValueError(f"judges: {kind!r} is not a judge; choose classifier")


def judge_label(judge: Any) -> str:
    """``name@version``, as the rows record it."""
    return f"{judge.name}@{judge.version}"


class JudgeFn(beam.DoFn):
    """Score every text on every attribute; what can't be scored is written with its reason."""

    def __init__(self, kind: str, attributes: tuple[str, ...], *, work: str, progress: str) -> None:
        self._kind, self._attributes, self._work, self._progress = kind, attributes, work, progress
        self._shared = Shared()

    def setup(self) -> None:
        self._judge = self._shared.acquire(lambda: load_judge(self._kind), tag=self._kind)
        self._ticker = Ticker(Path(self._progress))

    def teardown(self) -> None:
        self._ticker.close()

    def process(self, task: JudgeTask) -> Iterator[int]:
        wanted = set(task.row_ids)
        columns = pq.read_table(task.path, columns=["row_id", "response"]).to_pydict()
        texts = {i: t for i, t in zip(columns["row_id"], columns["response"], strict=True) if i in wanted}
        scores = self._judge.score_many(list(texts.values()), self._attributes)
        label = judge_label(self._judge)
        rows = [
            {
                "row_id": row_id,
                "attribute": attribute,
                "judge": label,
                "score": score.score,
                "status": str(score.status),
                "rationale": score.rationale,
                "prompt_tokens": None,
                "completion_tokens": None,
            }
            for i, row_id in enumerate(texts)
            for attribute in self._attributes
            for score in [scores[attribute][i]]
        ]
        name = shard_name(texts, label, *self._attributes)
        write_rows(rows, "judgments", Path(self._work) / "judgments" / name)
        for _ in texts:
            self._ticker.tick()
        yield len(rows)
