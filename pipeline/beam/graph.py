"""The Beam graph: places in the plan -> decoded rows -> Parquet shards -> judgments -> counts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict

import apache_beam as beam

from pipeline.beam.decode_fn import DecodeFn, WriteFn
from pipeline.beam.judge_fn import JudgeFn
from pipeline.beam.to_do import shards_in, tasks_in
from pipeline.beam.work import BOOKS_FILE, Books, JudgeTask, Work, WrittenShard
from pipeline.store.errors import output_errors
from pipeline.store.files import write_bytes
from pipeline.store.places import expanded


def build(pipeline: beam.Pipeline, work: Work, hints: Mapping[str, str]) -> None:
    """Add the whole graph to a pipeline. Its results are files below ``work.folder``.

    Args:
        hints: Beam's resource hints of the step that decodes, the one that needs the device: name -> value.
    """
    folder = str(work.folder)
    if work.shards is not None:
        decode = DecodeFn(work.plan, work.computed_with, work.load, folder=folder, ticks=str(work.ticks))
        written = (
            pipeline
            | "Plan" >> beam.Create([work.shards.path])
            | "Shards of the grid" >> beam.FlatMap(shards_in)
            | "Spread shards over workers" >> beam.Reshuffle()
            | "Decode every cell" >> beam.ParDo(decode).with_resource_hints(**hints)
            | "Write the shard" >> beam.ParDo(WriteFn(folder))
        )
    else:  # every row is there: no model needs to be loaded
        written = pipeline | "No shards to decode" >> beam.Create([])
    books = [written | "Count rows and tokens" >> beam.Map(Books.of)]
    for each in work.judges:
        who, judge = (
            each.judge.called,
            JudgeFn(each, threads=work.computed_with.threads, folder=folder, ticks=str(work.ticks)),
        )
        judged = (
            (
                written | f"Rows to judge by {who}" >> beam.FlatMap(to_judge_tasks),
                pipeline
                | f"Earlier runs for {who}" >> beam.Create([] if each.earlier is None else [each.earlier.path])
                | f"Rows of earlier runs to judge by {who}" >> beam.FlatMap(tasks_in),
            )
            | f"All rows to judge by {who}" >> beam.Flatten()
            | f"Spread rows over judges ({who})" >> beam.Reshuffle()
            | f"Judge every text ({who})" >> beam.ParDo(judge)
            | f"Count judgments ({who})" >> beam.Map(lambda count: Books(n_judgments=count))
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
        yield JudgeTask(shard.path)


def total(books: Iterable[Books]) -> Books:
    """Sum of counts; associative, as CombineGlobally asks."""
    result = Books()
    for each in books:
        result = result.plus(each)
    return result


def write_books(books: Books, path: str) -> None:
    place = expanded(path)
    with output_errors(place.parent):
        write_bytes(json.dumps(asdict(books)).encode(), place)
