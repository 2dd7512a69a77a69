"""The judge stage: reads generation shards, writes judgment shards beside them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.utils.shared import Shared

from evaluation.items import Judge, label_of
from pipeline.beam.metrics import count_judgments
from pipeline.beam.progress import Ticker
from pipeline.beam.travel import packed_judge, unpacked_judge
from pipeline.beam.work import JudgeTask, JudgeWork
from pipeline.beam.worker_logs import log_as_worker
from pipeline.decode.machine import passes_of
from pipeline.events import event
from pipeline.judging.registry import COLUMNS, item_of, load_assigned
from pipeline.judging.table import judgment_rows
from pipeline.store.errors import output_errors
from pipeline.store.places import expanded
from pipeline.store.ranges import judgments_name
from pipeline.store.shards import read_shard, shard_name, write_rows
from pipeline.store.stop import StopFile

logger = logging.getLogger(__name__)


class JudgeFn(beam.DoFn):
    """Score every text on every attribute; what can't be scored is written with its reason."""

    def __init__(self, work: JudgeWork, *, threads: int, folder: str, ticks: str) -> None:
        self._work, self._threads, self._folder, self._ticks = packed_judge(work), threads, folder, Path(ticks)
        self._shared = Shared()

    def setup(self) -> None:
        log_as_worker()
        self._judge: Judge = self._shared.acquire(
            lambda: load_assigned(unpacked_judge(self._work).judge), tag=self._work.label
        )
        self._ticker = Ticker(self._ticks / "judge")
        self._stop = StopFile.of(expanded(self._folder)).watcher()

    def teardown(self) -> None:
        self._ticker.close()

    def process(self, task: JudgeTask) -> Iterator[int]:
        if not self._stop():  # else the next run judges it
            yield self._judge_rows(task)

    def _judge_rows(self, task: JudgeTask) -> int:
        began = time.monotonic()
        wanted, attributes = task.row_ids, self._work.judge.attributes
        table = read_shard(expanded(task.path), "generations", COLUMNS)
        if wanted is not None:
            table = table.filter(pc.is_in(table.column("row_id"), value_set=pa.array(wanted, pa.string())))
        items = [item_of(row) for row in table.to_pylist()]
        with passes_of(self._threads):
            scores = self._judge.judge(items, attributes)
        label = label_of(self._judge)
        rows = judgment_rows(items, label, scores)
        name = judgments_name(expanded(task.path).name, label, attributes) if wanted is None else None
        name = name or shard_name((item.key for item in items), label, *attributes)
        with output_errors(expanded(self._folder)):
            write_rows(rows, "judgments", expanded(self._folder) / "judgments" / name)
        count_judgments(len(items), rows)
        for _ in items:
            self._ticker.tick()
        event(
            logger,
            "shard_judged",
            judge=label,
            attributes=list(attributes),
            file=expanded(task.path).name,
            first=items[0].key if items else None,
            last=items[-1].key if items else None,
            texts=len(items),
            judgments=len(rows),
            unscored=sum(row["score"] is None for row in rows),
            seconds=round(time.monotonic() - began, 3),
        )
        return len(rows)
