"""The Beam graph: planned cells -> decoded rows -> Parquet shards -> judgments -> counts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from pipeline.beam.decode_fn import DecodeFn, Shard, WriteFn, WrittenShard
from pipeline.beam.judge_fn import JudgeFn, JudgeTask, JudgeWork
from pipeline.beam.progress import ProgressBar
from pipeline.beam.supervise import GraphFailed, supervised
from pipeline.decode.bank import LoadBank
from pipeline.plan.cells import PlannedCell, Sources
from pipeline.plan.computed_with import ComputedWith
from pipeline.store.errors import OutputError, line_in, output_errors, readable

BOOKS_FILE = "books.json"


@dataclass(frozen=True)
class Books:
    """Counts, summed over shards; times in seconds since the epoch, of the decode stage alone."""

    n_rows: int = 0
    n_rejected: int = 0
    n_tokens: int = 0
    n_judgments: int = 0
    first_s: float = 1e18
    last_s: float = 0.0

    @property
    def decode_s(self) -> float:
        """Wall time from the first shard's start to the last one's end."""
        return max(0.0, self.last_s - self.first_s)

    def plus(self, other: Books) -> Books:
        return Books(
            self.n_rows + other.n_rows,
            self.n_rejected + other.n_rejected,
            self.n_tokens + other.n_tokens,
            self.n_judgments + other.n_judgments,
            min(self.first_s, other.first_s),
            max(self.last_s, other.last_s),
        )

    @staticmethod
    def of(shard: WrittenShard) -> Books:
        return Books(len(shard.row_ids), shard.n_rejected, shard.n_tokens, 0, shard.started_s, shard.ended_s)


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's own options.

    ``--allow_unsafe_triggers`` keeps the DirectRunner from looking for the Prism binary, which it
    would download; nothing here uses a trigger.
    """
    flags = list(arguments)
    if not any(flag.startswith("--runner") for flag in flags):
        flags.append("--runner=DirectRunner")
    if not any(flag.startswith("--allow_unsafe_triggers") for flag in flags):
        flags.append("--allow_unsafe_triggers")
    return PipelineOptions(flags)


def in_processes(options: PipelineOptions) -> bool:
    """Whether the DirectRunner is to start worker processes."""
    direct = options.view_as(StandardOptions).runner in (None, "DirectRunner")
    return direct and options.view_as(DirectOptions).direct_running_mode == "multi_processing"


def n_workers(options: PipelineOptions) -> int:
    """Worker processes that share this machine (1 unless DirectRunner runs several)."""
    if not in_processes(options):
        return 1
    asked = options.view_as(DirectOptions).direct_num_workers  # 0: as many as there are cores
    return int(asked or os.cpu_count() or 1)


@dataclass(frozen=True)
class Work:
    """What a run has left to do, where and with what; the cells of a shard are decoded and written together."""

    shards: Sequence[Sequence[PlannedCell]]
    judges: Sequence[JudgeWork]
    sources: Sources
    folder: Path
    computed_with: ComputedWith
    load: LoadBank | None = None  # of the model bank, see Handle

    @property
    def n_cells(self) -> int:
        return sum(map(len, self.shards))


def build(pipeline: beam.Pipeline, work: Work) -> None:
    """Add the whole graph to a pipeline. Its results are files below ``work.folder``."""
    folder = str(work.folder)
    if work.shards:
        shards = [Shard(tuple(cells)) for cells in work.shards]
        decode = DecodeFn(work.sources, work.computed_with, work.load, folder=folder)
        written = (
            pipeline
            | "Shards of the grid" >> beam.Create(shards)
            | "Spread shards over workers" >> beam.Reshuffle()
            | "Decode every cell" >> beam.ParDo(decode)
            | "Write the shard" >> beam.ParDo(WriteFn(folder))
        )
    else:  # every row is there: no model needs to be loaded
        written = pipeline | "No shards to decode" >> beam.Create([])
    books = [written | "Count rows and tokens" >> beam.Map(Books.of)]
    for each in work.judges:
        kind, judge = each.spec.kind, JudgeFn(each, threads=work.computed_with.threads, folder=folder)
        judged = (
            (
                written | f"Rows to judge by {kind}" >> beam.FlatMap(to_judge_tasks),
                pipeline | f"Rows of earlier runs to judge by {kind}" >> beam.Create(list(each.earlier)),
            )
            | f"All rows to judge by {kind}" >> beam.Flatten()
            | f"Spread rows over judges ({kind})" >> beam.Reshuffle()
            | f"Judge every text ({kind})" >> beam.ParDo(judge)
            | f"Count judgments ({kind})" >> beam.Map(lambda count: Books(n_judgments=count))
        )
        books.append(judged)
    _ = (
        tuple(books)
        | "All counts" >> beam.Flatten()
        | "Sum up" >> beam.CombineGlobally(total)
        | "Write the books" >> beam.Map(write_books, path=f"{folder}/{BOOKS_FILE}")
    )


def to_judge_tasks(shard: WrittenShard) -> Iterator[JudgeTask]:
    """A shard just written, as work for a judge; nothing for one whose cells were all rejected."""
    if shard.path is not None:
        yield JudgeTask(shard.path, shard.row_ids)


def total(books: Iterable[Books]) -> Books:
    """Sum of counts; associative, as CombineGlobally asks."""
    result = Books()
    for each in books:
        result = result.plus(each)
    return result


def write_books(books: Books, path: str) -> None:
    with output_errors(Path(path).parent):
        Path(path).write_text(json.dumps(asdict(books)), encoding="utf-8")


def execute(work: Work, options: PipelineOptions) -> None:
    """Run the graph to its end, in this process; its counts are in the work folder."""
    (work.folder / BOOKS_FILE).unlink(missing_ok=True)
    pipeline = beam.Pipeline(options=options)
    build(pipeline, work)
    pipeline.run().wait_until_finish()


def run(work: Work, arguments: Sequence[str]) -> Books:
    """Run the graph and return its counts.

    Args:
        arguments: Beam's own options.

    Raises:
        OutputError: the output can't be written. WorkerDied: a worker process is gone. GraphFailed: any other error.
    """
    options = beam_options(arguments)
    n_earlier = sum(len(task.row_ids) for judge in work.judges for task in judge.earlier)
    to_judge = work.n_cells * len(work.judges) + n_earlier
    phases = [("decode", "decoding", work.n_cells), ("judge", "judging", to_judge)]
    with ProgressBar(work.folder / "progress", phases):
        if in_processes(options):
            supervised(work, arguments)
        else:
            try:
                execute(work, options)
            except Exception as error:
                line = line_in(error)
                if line is None:
                    raise GraphFailed(f"{readable(error)}\n{error}") from error
                raise OutputError(line) from None
    return Books(**json.loads((work.folder / BOOKS_FILE).read_text(encoding="utf-8")))
