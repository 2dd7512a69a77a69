"""A run from job to data set: plan, resume, Beam, data set, card, report."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import mpg
from evaluation.items import label_of
from evaluation.openai_judge import OpenAIJudge
from evaluation.rubrics import FLUENCY
from pipeline.card import write_card
from pipeline.cells import PlannedCell, Sources, Systems, plan_cells
from pipeline.job import Job
from pipeline.judges import COLUMNS, JudgeError, item_of, known_to, load_judge, load_remote_judge
from pipeline.judging import JudgeTask, JudgeWork
from pipeline.judgments import judge_items, judged_attributes, merged
from pipeline.shards import read_shards, write_dataset
from pipeline.summary import Summary, summarise

logger = logging.getLogger(__name__)

WORK_FOLDER = ".work"
RUN_FILE = "run.json"
JOB_FILE = "job.json"
_VERSIONS_OF = ("torch", "transformers", "accelerate", "datasets", "apache-beam", "pyarrow")


class RunError(RuntimeError):
    """A run that can't start or had to stop; one line that says what and how to go on."""


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    folder: Path
    summary: Summary
    run: dict[str, Any]


def resolve_sources(job: Job) -> Sources:
    """Decide what ``auto`` and names stand for: places, revisions, number format.

    Raises:
        RunError: an adapter without weights or for another model, an embedded model that is not installed.
    """
    from transformers.utils import logging as transformers_logging

    from mpg import BankError
    from mpg.bank import check_sources
    from mpg.embedded import EmbeddedModelError, resolve
    from mpg.revisions import fingerprint, model_revision, pick_dtype

    transformers_logging.disable_progress_bar()  # the run has a bar of its own
    model = job.resolve(job.model.id)
    try:
        resolve(model)
    except EmbeddedModelError as error:
        raise RunError(f"model.id: {error}") from error
    adapters, references = job.adapter_places(), job.reference_places()
    try:
        check_sources(model, [*adapters.values(), *references.values()], revision=job.model.revision)
    except BankError as error:
        raise RunError(f"attributes: {error}") from error

    def revision(place: str) -> str:
        return fingerprint(Path(place)) if Path(place).is_dir() else model_revision(place)

    revisions = {
        name: revision(place) + (f"/{revision(references[name])}" if name in references else "")
        for name, place in adapters.items()
    }
    # A folder is known by its own name and its content: a row must not change when the folder moves.
    name = Path(model).name if Path(model).is_dir() else model
    return Sources(
        model=model,
        model_label=f"{name}@{model_revision(model, job.model.revision)}",
        hub_revision=job.model.revision,
        adapters=tuple(adapters.items()),
        references=tuple(references.items()),
        adapter_revisions=tuple(revisions.items()),
        dtype=pick_dtype(job.model.dtype),
    )


def decoder_settings(job: Job) -> Any:
    """The job's decoder section as the engine's settings."""
    from mpg import DecoderSettings

    fields = {name: getattr(job.decoder, name) for name in type(job.decoder).model_fields}
    return DecoderSettings(**fields)


def run_job(job: Job, beam_arguments: Sequence[str] = ()) -> Result:
    """Run a job to its data set. A run that was stopped goes on where it was: finished rows are kept.

    Raises:
        RunError: the output folder holds something else, or too many rows were rejected.
    """
    from pipeline import graph

    started = time.time()
    output = Path(job.output).absolute()
    work_folder = _prepare(output)
    sources = resolve_sources(job)
    systems = Systems.of(job.described_attributes(), job.model.system)
    cells = plan_cells(job.cells(job.load_prompts()), decoder_settings(job), sources, job.seed, systems)
    wanted = {cell.row_id for cell in cells}
    done = _ids(read_shards(work_folder / "generations", "generations"))
    dead = _ids(read_shards(work_folder / "rejected", "rejected"))
    to_do = [cell for cell in cells if cell.row_id not in done and cell.row_id not in dead]
    try:
        judges = _judges(job, work_folder, wanted)
        remote = _remote_judges(job, work_folder)
    except JudgeError as error:
        raise RunError(str(error)) from error
    if len(to_do) < len(cells):
        logger.info("%d of %d rows are there already and are kept", len(cells) - len(to_do), len(cells))

    (output / JOB_FILE).write_text(job.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (output / RUN_FILE).unlink(missing_ok=True)
    books = graph.run(
        graph.Work(
            cells=to_do,
            judges=judges,
            sources=sources,
            folder=work_folder,
            batch_size=job.batch_size,
            rows_per_shard=job.rows_per_shard,
        ),
        graph.beam_options(beam_arguments),
    )
    for judge in remote:
        _judge_remotely(judge, job.attribute_names, work_folder, cells)
    tables = _finalise(output, work_folder, cells)
    n_rejected = tables["rejected"].num_rows
    if n_rejected > job.max_rejected_fraction * len(cells):
        raise RunError(
            f"{n_rejected} of {len(cells)} rows were rejected, more than max_rejected_fraction "
            f"{job.max_rejected_fraction:g} allows; reasons are in {output / 'rejected'}, finished rows are kept"
        )
    labels = {*(judge.label for judge in judges), *map(label_of, remote)}
    summary = summarise(
        tables["generations"], tables["judgments"], job.attribute_names, panel_rule=job.panel, judges=labels
    )
    run = {
        "job": job.name,
        "counts": {
            "planned": len(cells),
            "kept_from_earlier_runs": len(cells) - len(to_do),
            "generated": books.n_rows,
            "rejected": n_rejected,
            "rows": tables["generations"].num_rows,
            "judgments": tables["judgments"].num_rows,
            "unscored": tables["judgments"].column("score").null_count,
            "tokens": books.n_tokens,
        },
        "timings": {
            "decode_s": round(books.decode_s, 3),
            "tokens_per_s": round(books.n_tokens / books.decode_s, 1) if books.decode_s else None,
            "total_s": round(time.time() - started, 3),
        },
        "judges": sorted(labels),
        "calls": {
            label_of(judge): {
                "calls": judge.n_calls,
                "prompt_tokens": judge.budget.prompt_tokens,
                "completion_tokens": judge.budget.completion_tokens,
                "cost": round(judge.budget.spent, 6),
                "stopped": judge.stopped,
            }
            for judge in remote
        },
        "model": sources.model_label,
        "adapters": dict(sources.adapter_revisions),
        "dtype": sources.dtype,
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS_OF}
        | {"mpg-scr": mpg.__version__, "python": platform.python_version()},
    }
    write_card(output, job, tables, summary, run)
    # Last of all: its presence says that everything else is there.
    (output / RUN_FILE).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return Result(output, summary, run)


def _prepare(output: Path) -> Path:
    """The output folder with its work folder; refuses a folder that something else has filled."""
    work = output / WORK_FOLDER
    if output.exists() and not output.is_dir():
        raise RunError(f"output: {output} is a file; give a folder")
    if output.is_dir() and any(output.iterdir()) and not work.is_dir():
        raise RunError(f"output: {output} holds files of something else; give an empty or new folder")
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"output: {output} can't be written ({error.strerror}); give a folder you own") from error
    return work


def _ids(table: pa.Table) -> set[str]:
    return set(table.column("row_id").to_pylist())


def _judges(job: Job, work: Path, wanted: set[str]) -> list[JudgeWork]:
    """The job's judges that know any of its attributes, with what earlier runs have left them.

    Raises:
        JudgeError: one can't be loaded on this machine.
    """
    works = []
    for spec in job.judges:
        attributes = known_to(spec, job.attribute_names)
        if attributes and spec.kind != "openai":
            label = label_of(load_judge(spec))
            works.append(JudgeWork(spec, attributes, label, _left_to_judge(work, label, attributes, wanted)))
    judged = {name for spec in job.judges for name in known_to(spec, job.attribute_names)}
    unjudged = [name for name in job.attribute_names if name not in judged]
    if job.judges and unjudged:
        logger.warning("no judge of this job knows %s: unjudged", ", ".join(unjudged))
    return works


def _remote_judges(job: Job, work: Path) -> list[OpenAIJudge]:
    """The job's judges behind endpoints, ready to ask.

    Raises:
        JudgeError: one that can't ask.
    """
    specs = [spec for spec in job.judges if spec.kind == "openai"]
    return [load_remote_judge(spec, job.described_attributes(), work) for spec in specs]


def _judge_remotely(judge: OpenAIJudge, attributes: Sequence[str], work: Path, cells: Sequence[PlannedCell]) -> None:
    """Judge behind an endpoint, from this process alone: its limits are for all calls together."""
    from tqdm import tqdm

    order = {cell.row_id: i for i, cell in enumerate(cells)}
    rows = read_shards(work / "generations", "generations").select(list(COLUMNS)).to_pylist()
    items = [item_of(row) for row in rows if row["row_id"] in order]
    items.sort(key=lambda item: order[item.key])
    with tqdm(total=len(items), desc=f"judging ({label_of(judge)})", unit="text", mininterval=1.0) as bar:
        judge_items(judge, items, [*attributes, FLUENCY], work / "judgments", on_text=bar.update)
    if judge.stopped is not None:
        logger.warning("judge: stopped: %s; the same command asks for the rest", judge.stopped)


def _left_to_judge(work: Path, label: str, attributes: tuple[str, ...], wanted: set[str]) -> tuple[JudgeTask, ...]:
    """Rows of earlier runs that a judge has not scored on every attribute."""
    scored = judged_attributes(read_shards(work / "judgments", "judgments"), label, scored_only=False)
    tasks = []
    for path in sorted((work / "generations").glob("*.parquet")):
        ids = pq.read_table(path, columns=["row_id"]).column("row_id").to_pylist()
        left = tuple(i for i in ids if i in wanted and not scored.get(i, set()).issuperset(attributes))
        if left:
            tasks.append(JudgeTask(str(path), left))
    return tuple(tasks)


def _finalise(output: Path, work: Path, cells: Sequence[PlannedCell]) -> dict[str, pa.Table]:
    """Gather the shards into the data set: the plan's rows, once each, in the plan's order."""
    order = {cell.row_id: i for i, cell in enumerate(cells)}
    tables = {}
    for name, keys in (("generations", ()), ("judgments", ("judge", "attribute")), ("rejected", ())):
        table = read_shards(work / name, name)
        if name == "judgments":
            table = merged(table)
        ids = table.column("row_id").to_pylist()
        extra = [table.column(key).to_pylist() for key in keys]
        rows: dict[tuple[Any, ...], int] = {}
        for i, key in enumerate(zip(ids, *extra, strict=True)):
            if key[0] in order:
                rows[key] = i
        sequence = sorted(rows, key=lambda key: (order[key[0]], *key[1:]))
        tables[name] = table.take(pa.array([rows[key] for key in sequence], type=pa.int64()))
        write_dataset(tables[name], output / ("data" if name == "generations" else name))
        if not tables[name].num_rows:
            shutil.rmtree(output / ("data" if name == "generations" else name))
    if cells and pc.count_distinct(tables["generations"].column("row_id")).as_py() != tables["generations"].num_rows:
        raise AssertionError("a row id stands twice in the data set")
    return tables
