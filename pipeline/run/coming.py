"""The files of a data set to come, put together of what there is: by this process, or by the workers that a run has."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evaluation.items import Item
from personas.prompts import PromptTable
from pipeline.beam.execute import run_graph
from pipeline.beam.supervise import MOST_DEATHS, WorkerDied
from pipeline.job.known import reporting
from pipeline.job.model import Job
from pipeline.judging.registry import COLUMNS, item_of
from pipeline.judging.verdict import Verdict
from pipeline.plan.stored import StoredPlan
from pipeline.publish.data_set import digest, write_rows
from pipeline.publish.digest import first_rows
from pipeline.publish.gather import RangeOfRows, of_source
from pipeline.publish.join.blocks import Block, Joining
from pipeline.publish.join.graph import BLOCKS, BROKEN, METADATA, JoinGraph, block_text
from pipeline.publish.of_source import broken_rows, metadata_of
from pipeline.publish.sums import Digest, of_json
from pipeline.run.by_range import ByRange
from pipeline.run.judges import RunJudges
from pipeline.run.rows import Rows
from pipeline.store.dataset import FOLDERS, WORK_FOLDER
from pipeline.store.errors import output_errors
from pipeline.store.exchange import next_place
from pipeline.store.files import make_folder, remove_tree, write_bytes
from pipeline.store.layout import numbered
from pipeline.store.manifest import write_manifest

logger = logging.getLogger(__name__)

FOLDER = "join"  # in the work folder
_FILES = "files"  # in that of an attempt: the parts of the files to come
# Rows of a block: few enough that two of them, with texts of some thousand tokens, are a fraction of a file in memory.
BLOCK_ROWS = 16_384
# Worker processes of this machine from which on they do it. They read twice what one process reads once: two were not
# quicker (python -m benchmarks.scale --rows 200000 --workers 1 2: 13 s by one, 19 s by two); four were not measured.
LEAST_WORKERS = 4
_GROUP = 64  # blocks that are read at once


@dataclass(frozen=True)
class Coming:
    """Files in a folder of their own.

    Attributes:
        found: of the rows in them. n_unjudged: rows that some judge has not looked at.
        unscored: see :meth:`pipeline.judging.verdict.Unscored.verdict`.
    """

    folder: Path
    found: Digest
    n_unjudged: int
    unscored: Verdict | None = None


def put_together(output: Path, job: Job, rows: Rows, judges: RunJudges) -> Coming:
    """By this process. Raises OSError, TooNew."""
    n_unjudged, asked, unscored = 0, judges.asked, judges.unscored()

    def count(generations: pa.Table, judgments: pa.Table) -> None:
        nonlocal n_unjudged
        n_unjudged += asked.unjudged(judgments, generations.column("row_id").to_pylist())
        unscored.add(judgments, partial(_items_of, generations))

    remove_tree(output / WORK_FOLDER / FOLDER)  # what a killed run's workers have left is a data set in size
    folder = write_rows(output, job, of_source(rows.pieces(), job.read_prompts()))
    found = digest(folder, job, judges.labels, seen=count)
    return Coming(folder, found, n_unjudged, unscored.verdict(job.max_unscored_fraction))


def put_together_by_workers(
    output: Path,
    job: Job,
    rows: ByRange,
    judges: RunJudges,
    plan: StoredPlan,
    size: int,
    beam_arguments: Sequence[str],
) -> Coming:
    """By workers; the files are the same. Where some ranges are damaged, there are none yet.

    What judges behind endpoints have left unscored is not looked at: there are none.

    Args:
        size: cells of a range.

    Raises:
        OutputError, TooNew: the output can't be read or written. Else as :func:`pipeline.beam.execute.run_graph`.
    """
    work = output / WORK_FOLDER
    with output_errors(output):
        coming, folder = next_place(output), _noted(work, rows.ranges(), job.read_prompts())
    joining = Joining(
        plan=plan,
        size=size,
        work=str(work),
        to=str(folder / _FILES),
        metadata=str(folder / METADATA),
        broken=str(folder / BROKEN),
        split=job.split,
        attributes=tuple(job.attribute_names),
        judges=frozenset(reporting(job, judges.labels)),
        panel_rule=job.panel,
        asked=judges.asked,
    )
    logger.info("workers put the data set together")
    found = _joined(joining, folder, beam_arguments)
    rows.were_read(found["damaged"], found["lost"], found["n_new"], found["new_tokens"])
    entries = {}
    with output_errors(output):
        for table, place in FOLDERS.items() if not found["damaged"] else ():
            parts = [piece for name, pieces in found["written"] if name == table for piece in pieces]
            if parts:
                make_folder(coming / place)
                entries[place] = numbered(folder / _FILES / place, parts, coming / place)
        write_manifest(coming, entries)
        remove_tree(work / FOLDER)
        return Coming(coming, of_json(found["digest"], first_rows(coming)), found["n_unjudged"])


def _items_of(generations: pa.Table, row_ids: Collection[str]) -> dict[str, Item]:
    """Some of the rows, as judges see them, by their ids."""
    wanted = pc.is_in(generations.column("row_id"), value_set=pa.array(row_ids, pa.string()))
    return {row["row_id"]: item_of(row) for row in generations.select(COLUMNS).filter(wanted).to_pylist()}


def _noted(work: Path, ranges: Iterable[RangeOfRows], prompts: PromptTable) -> Path:
    """Note what is to be put together where workers find it; returns the folder, of this attempt alone. Raises OSError.

    Workers of an attempt that nobody waits for any longer may write into its own for a while.
    """
    remove_tree(work / FOLDER)
    make_folder(folder := work / FOLDER / uuid.uuid4().hex)
    write_bytes(_parquet(metadata_of(prompts.prompts)), folder / METADATA)
    write_bytes(_parquet(broken_rows(prompts.broken)), folder / BROKEN)
    sink, schema = pa.BufferOutputStream(), pa.schema([pa.field("json", pa.string(), nullable=False)])
    texts = map(block_text, _blocks(ranges))
    with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        while group := list(islice(texts, _GROUP)):
            writer.write_table(pa.table([group], schema=schema), row_group_size=_GROUP)
    write_bytes(sink.getvalue(), folder / BLOCKS)
    return folder


def _joined(joining: Joining, folder: Path, beam_arguments: Sequence[str]) -> dict[str, Any]:
    """What :func:`pipeline.publish.join.graph.note_found` has noted. Raises as :func:`run_graph`."""
    for left in reversed(range(MOST_DEATHS)):
        try:
            return run_graph(JoinGraph(joining, folder), beam_arguments)
        except WorkerDied as error:
            if not left:
                raise
            logger.warning("%s; the data set is put together again", error)
    raise AssertionError


def _blocks(ranges: Iterable[RangeOfRows]) -> Iterator[Block]:
    index, waiting, n = 0, list[RangeOfRows](), 0
    for each in ranges:
        waiting.append(each)
        n += each.n
        if n >= BLOCK_ROWS:
            yield Block(index, tuple(waiting))
            index, waiting, n = index + 1, [], 0
    if waiting:
        yield Block(index, tuple(waiting))
        index += 1
    yield Block(index, ())


def _parquet(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()
