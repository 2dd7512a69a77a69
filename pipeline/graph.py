"""The Beam graph: planned cells -> decoded rows -> Parquet shards -> judgments -> counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions

from pipeline.cells import PlannedCell, Sources
from pipeline.judging import JudgeFn, JudgeTask, JudgeWork
from pipeline.progress import ProgressBar
from pipeline.worker import DecodeFn, Shard, WriteFn, WrittenShard

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


def n_workers(options: PipelineOptions) -> int:
    """Worker processes that share this machine (1 unless DirectRunner runs several)."""
    direct = options.view_as(DirectOptions)
    return int(direct.direct_num_workers or 1) if direct.direct_running_mode == "multi_processing" else 1


@dataclass(frozen=True)
class Work:
    """What a run has left to do, and where it does it."""

    cells: Sequence[PlannedCell]
    judges: Sequence[JudgeWork]
    sources: Sources
    folder: Path
    batch_size: int
    rows_per_shard: int


def build(pipeline: beam.Pipeline, work: Work, workers: int) -> None:
    """Add the whole graph to a pipeline. Its results are files below ``work.folder``."""
    folder = str(work.folder)
    if work.cells:
        size = work.rows_per_shard
        shards = [Shard(tuple(work.cells[i : i + size])) for i in range(0, len(work.cells), size)]
        progress = f"{folder}/progress/decode"
        decode = DecodeFn(work.sources, batch_size=work.batch_size, n_workers=workers, progress=progress)
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
        kind, judge = each.spec.kind, JudgeFn(each, folder=folder, progress=f"{folder}/progress/judge")
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
    Path(path).write_text(json.dumps(asdict(books)), encoding="utf-8")


def run(work: Work, options: PipelineOptions) -> Books:
    """Run the graph to its end and return its counts."""
    books_file = work.folder / BOOKS_FILE
    books_file.unlink(missing_ok=True)
    n_earlier = sum(len(task.row_ids) for judge in work.judges for task in judge.earlier)
    to_judge = len(work.cells) * len(work.judges) + n_earlier
    phases = [("decode", "decoding", len(work.cells)), ("judge", "judging", to_judge)]
    with ProgressBar(work.folder / "progress", phases):
        pipeline = beam.Pipeline(options=options)
        build(pipeline, work, n_workers(options))
        pipeline.run().wait_until_finish()
    return Books(**json.loads(books_file.read_text(encoding="utf-8")))
