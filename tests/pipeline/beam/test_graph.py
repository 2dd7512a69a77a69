"""The graph: its size does not depend on the job's, and a worker that would make other rows makes none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.beam.execute import run
from pipeline.beam.graph import build
from pipeline.beam.metrics import counts_of
from pipeline.beam.options import beam_options
from pipeline.beam.runners import in_process_runner
from pipeline.beam.to_do import keep_shards, keep_tasks
from pipeline.beam.work import JudgeTask, JudgeWork, Work
from pipeline.job.adapters import own_judges
from pipeline.job.known import assignments
from pipeline.job.load import load_job
from pipeline.plan import computed_with
from pipeline.plan.errors import RunError
from pipeline.plan.plan import Plan
from pipeline.plan.stored import store_plan
from pipeline.store.dataset import prepare
from tests.tiny_job import write_prompts

MOST_BYTES = 100_000


def work_of(job_file: Path, *, judged: bool) -> Work:
    """What a run has to do at its beginning; ``judged``: every row also waits for a judge from an earlier run."""
    job = load_job(job_file)
    settled = computed_with.settled(job.output_folder, job, 1, 12)
    plan = Plan.of(job, settled.dtype, settled.attributes)
    cells = plan.cells(grid := job.cells(job.load_prompts()))
    folder = prepare(job.output_folder)
    shards = [cells[i : i + 5] for i in range(0, len(cells), 5)]
    tasks = [JudgeTask("x.parquet", tuple(cell.row_id for cell in shard)) for shard in shards]
    earlier = keep_tasks(folder, zip(tasks, map(len, shards), strict=True))
    judges = [
        JudgeWork(each, each.called, earlier if judged else None)
        for each in assignments(job.judges, job.attribute_names, own_judges(job))
    ]
    return Work(keep_shards(folder, shards), judges, store_plan(folder, plan.rule, grid), folder, settled)


def size_of(work: Work) -> int:
    pipeline = beam.Pipeline(runner="FnApiRunner", options=beam_options([]))
    build(pipeline, work, {})
    return int(pipeline.to_runner_api().ByteSize())


def test_the_graph_does_not_grow_with_the_grid(job_file: Path) -> None:
    few = work_of(job_file, judged=True)
    write_prompts(job_file.parent, tuple(f"prompt {i}" for i in range(1000)))
    many = work_of(job_file, judged=True)
    assert (few.n_cells, many.n_cells) == (12, 4000) and many.n_to_judge == 2 * many.n_cells
    sizes = size_of(few), size_of(many)
    assert sizes[0] == pytest.approx(sizes[1], abs=200) and max(sizes) < MOST_BYTES, sizes


def test_a_worker_that_would_make_other_rows_is_refused(job_file: Path) -> None:
    work = replace(work_of(job_file, judged=False), judges=[])
    other = replace(work, plan=replace(work.plan, rule=replace(work.plan.rule, seed=7)))
    with pytest.raises(
        RunError, match=r"^plan: this worker \(mpg-scr .*\) makes other rows .*install the same version"
    ):
        run(other, [])
    assert not list((work.folder / "generations").glob("*.parquet"))
    assert run(work, []).n_rows == 12
    ids = {i for path in (work.folder / "generations").glob("*.parquet") for i in pq.read_table(path)["row_id"]}
    assert len(ids) == 12


def test_what_is_written_is_counted_by_beams_own_metrics(job_file: Path) -> None:
    write_prompts(job_file.parent, ("hello you", "what now?", ""))  # the last one is no prompt to any model
    work = work_of(job_file, judged=False)
    pipeline = beam.Pipeline(runner=in_process_runner(options := beam_options([])), options=options)
    build(pipeline, work, {})
    (result := pipeline.run()).wait_until_finish()
    rows = [row for path in (work.folder / "generations").glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    judged = pa.concat_tables(pq.read_table(path) for path in (work.folder / "judgments").glob("*.parquet"))
    assert counts_of(result) == {
        "rows": 8,
        "rejected": 4,
        "tokens": sum(row["n_tokens"] for row in rows),
        "judged": 8 * len(work.judges),
        "judgments": judged.num_rows,
        "unscored": judged["score"].null_count,
    }
    found = {each.key.metric.name: each.result for each in result.metrics().query()["distributions"]}
    rates = [row["acceptance_rate"] for row in rows if row["acceptance_rate"] is not None]
    assert found["acceptance_per_mille"].count == len(rates) > 0
    assert found["acceptance_per_mille"].mean == pytest.approx(1000 * sum(rates) / len(rates), abs=1)
    assert found["seconds_a_shard"].count == 3
