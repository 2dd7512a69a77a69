"""A run from job to data set: plan, resume, Beam, judges, data set, card, report."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

import mpg
from evaluation.endpoint.rubrics import FLUENCY
from evaluation.items import label_of
from evaluation.judges.openai import OpenAIJudge
from personas import Cell
from pipeline.beam.judge_fn import JudgeTask, JudgeWork
from pipeline.beam.progress import ticks
from pipeline.beam.supervise import GraphFailed, WorkerDied
from pipeline.decode.bank import BATCH_SIZES, LoadBank, remembered_sizes
from pipeline.job.fields import seconds_until
from pipeline.job.known import counted, is_remote, known_to
from pipeline.job.load import Job
from pipeline.judging.registry import (
    COLUMNS,
    JudgeError,
    item_of,
    load_judge,
    load_remote_judge,
    with_naturalness,
)
from pipeline.judging.table import judge_items, judged_attributes, merged
from pipeline.plan import accept, computed_with
from pipeline.plan.cells import PlannedCell, Systems, plan_cells
from pipeline.plan.sources import RunError, decoder_settings, resolve_sources
from pipeline.publish.card import write_card
from pipeline.publish.summary import Summary, summarise
from pipeline.store.dataset import (
    JOB_FILE,
    PLAN_FILE,
    RUN_FILE,
    dead_ids,
    done_ids,
    gather_rows,
    keep_job_folder,
    n_shards,
    prepare,
    set_aside_judgments,
    write_tables,
)
from pipeline.store.errors import OutputError, output_errors, readable, what_happened
from pipeline.store.lock import FolderInUse, FolderLock
from pipeline.store.shards import read_shards, shard_tables, write_bytes
from pipeline.store.stop import INTERRUPTED, StopFile, Watch, graceful_signals

logger = logging.getLogger(__name__)

# Worker processes that may be killed one after the other without a shard finished between, before a run gives up.
MOST_DEATHS = 3
_VERSIONS_OF = ("torch", "transformers", "accelerate", "datasets", "apache-beam", "pyarrow")


class RunStopped(RunError):
    """A run that ended early because it was asked to: what it had finished is in the data set.

    ``interrupted``: by Ctrl-C or SIGTERM, not by a limit.
    """

    def __init__(self, message: str, *, interrupted: bool) -> None:
        super().__init__(message)
        self.interrupted = interrupted


@dataclass(frozen=True)
class Result:
    """What a run left behind."""

    folder: Path
    summary: Summary
    run: dict[str, Any]


def run_job(
    job: Job, beam_arguments: Sequence[str] = (), *, interruptible: bool = False, load: LoadBank | None = None
) -> Result:
    """Run a job to its data set. A run that was stopped goes on where it was: finished rows are kept.

    Args:
        beam_arguments: Beam's own options.
        interruptible: Ctrl-C and SIGTERM finish the rows in flight first; from the main thread only.
        load: of the model bank, see :class:`pipeline.decode.bank.Handle`.

    Raises:
        RunError: the output folder holds something else, is in use or can't be written; too many rows were rejected;
            worker processes were killed again and again.
        RunStopped: Ctrl-C, a deadline or a budget ended it.
    """
    output = Path(job.output).absolute()
    try:
        work = prepare(output)
        stop = StopFile.of(work)
        with FolderLock(work):
            stop.clear()
            with graceful_signals(stop) if interruptible else nullcontext():
                return _Run(job, output, work, stop, tuple(beam_arguments), load).result()
    except GraphFailed as error:
        logger.error("%s", error)
        raise RunError(str(error).splitlines()[0]) from error
    except (OutputError, FolderInUse, JudgeError) as error:
        raise RunError(readable(error)) from error
    except OSError as error:  # the disk, at any other moment
        raise RunError(f"output: {what_happened(error, output)}") from error


class _Run:
    """One run of a job."""

    def __init__(
        self,
        job: Job,
        output: Path,
        work: Path,
        stop: StopFile,
        beam_arguments: tuple[str, ...],
        load: LoadBank | None,
    ) -> None:
        from pipeline.beam.graph import beam_options, n_workers

        self.job, self.output, self.work, self.stop, self.beam_arguments = job, output, work, stop, beam_arguments
        self.load, self.n_workers = load, n_workers(beam_options(beam_arguments))
        self.started = time.time()
        self.computed_with = computed_with.settled(output, job, self.n_workers)
        self.sources = resolve_sources(job, self.computed_with.dtype)
        self.settings = decoder_settings(job)
        self.systems = Systems.of(job.described_attributes(), job.model.system)
        self.labels = {label_of(load_judge(spec)) for spec in self.local_judges}
        self.remote = [
            load_remote_judge(spec, with_naturalness(job.described_attributes()), work)
            for spec in job.judges
            if is_remote(spec)
        ]
        self.labels |= {label_of(judge) for judge in self.remote}
        self.done_before: set[str] | None = None
        self.decode_s = 0.0
        judged = {name for spec in job.judges for name in known_to(spec, job.attribute_names)}
        unjudged = [name for name in job.attribute_names if name not in judged]
        if job.judges and unjudged:
            logger.warning("no judge of this job knows %s: unjudged", ", ".join(unjudged))

    @property
    def local_judges(self) -> list[Any]:
        """The job's judges that know any of its attributes and are asked by Beam's workers."""
        return [s for s in self.job.judges if not is_remote(s) and known_to(s, self.job.attribute_names)]

    def result(self) -> Result:
        with output_errors(self.output):
            write_bytes((self.job.model_dump_json(indent=2) + "\n").encode(), self.output / JOB_FILE)
            keep_job_folder(self.work, self.job.folder)
            computed_with.keep(self.output, self.computed_with)
            (self.output / RUN_FILE).unlink(missing_ok=True)
        grid = self.job.cells(self.job.load_prompts())
        if self.job.accept is None:
            cells = kept = self.plan(grid)
            self.generate(cells)
            accepted = None
        else:
            cells, kept, accepted = self.until_enough(accept.Draws(self.job.accept, grid))
        return self.finish(cells, kept, accepted)

    def plan(self, cells: Iterable[Cell]) -> list[PlannedCell]:
        return plan_cells(cells, self.settings, self.sources, self.job.seed, self.systems)

    # ------------------------------------------------------------------ rows

    def generate(self, cells: Sequence[PlannedCell]) -> None:
        """Decode and judge what is not there yet; a worker that is killed costs its shard's time and no more."""
        from pipeline.beam import graph

        planned = {cell.row_id for cell in cells}
        deaths = n_files = 0
        while True:
            done, dead = done_ids(self.work), dead_ids(self.work)
            if self.done_before is None:
                self.done_before = done
                if done & planned:
                    logger.info("%d of %d rows are there already and are kept", len(done & planned), len(planned))
            to_do = planned - done - dead
            set_aside_judgments(self.work, to_do)
            whole, regrouped = shards_of(cells, to_do, self.computed_with.rows_per_shard, dead)
            if regrouped and not self.computed_with.regrouped:
                self.computed_with = replace(self.computed_with, regrouped=True)
                computed_with.keep(self.output, self.computed_with)
            work = graph.Work(
                shards=whole + regrouped,
                judges=self.judge_work(planned),
                sources=self.sources,
                folder=self.work,
                computed_with=self.computed_with,
                load=self.load,
            )
            if deaths and n_shards(self.work) > n_files:
                deaths = 0
            n_files = n_shards(self.work)
            shutil.rmtree(self.work / "progress", ignore_errors=True)  # or old ticks would count as new ones
            began = time.time()
            try:
                n_dead = len((dead & planned) - {cell.row_id for shard in work.shards for cell in shard})
                with Watch(self.stop, [self.rejection_limit(len(cells), n_dead), *self.limits()]):
                    books = graph.run(work, self.beam_arguments)
            except WorkerDied as error:
                deaths += 1
                self.decode_s += time.time() - began
                if deaths >= MOST_DEATHS:
                    raise RunError(
                        f"{error}; {deaths} one after the other without a shard finished between: lower batch_size or "
                        "the number of workers; what was written is kept, the same command goes on"
                    ) from error
                logger.warning("%s; its shard is made again", error)
                continue
            break
        self.decode_s += books.decode_s
        with Watch(self.stop, self.limits()):
            for judge in self.remote:
                if self.stop.reason() is None:
                    self.judge_remotely(judge, cells)

    def judge_work(self, wanted: set[str]) -> list[JudgeWork]:
        """The judges, with what earlier runs have left them."""
        works = []
        for spec in self.local_judges:
            attributes = known_to(spec, self.job.attribute_names)
            label = label_of(load_judge(spec))
            works.append(JudgeWork(spec, attributes, label, left_to_judge(self.work, label, attributes, wanted)))
        return works

    def judge_remotely(self, judge: OpenAIJudge, cells: Sequence[PlannedCell]) -> None:
        """Judge behind an endpoint, from this process alone: its limits are for all calls together."""
        from tqdm import tqdm

        order = {cell.row_id: i for i, cell in enumerate(cells)}
        rows = read_shards(self.work / "generations", "generations", COLUMNS).to_pylist()
        items = [item_of(row) for row in rows if row["row_id"] in order]
        items.sort(key=lambda item: order[item.key])
        judge.stop, is_jobs = self.stop.watcher(), False
        if self.job.budget is not None:
            left = max(0.0, self.job.budget - self.cost() + judge.budget.spent)
            judge.budget.limit = left if judge.budget.limit is None else min(left, judge.budget.limit)
            is_jobs = judge.budget.limit == left
        names = [*(each.name for each in with_naturalness(self.job.described_attributes())), FLUENCY]
        with (
            output_errors(self.work),
            tqdm(total=len(items), desc=f"judging ({label_of(judge)})", unit="text", mininterval=1.0) as bar,
        ):
            judge_items(judge, items, names, self.work / "judgments", on_text=bar.update)
        if judge.stopped is not None:
            logger.warning("judge: stopped: %s; the same command asks for the rest", judge.stopped)
            if is_jobs and "budget" in judge.stopped:
                self.stop.request(f"budget of {self.job.budget:g} spent")
            elif self.job.accept is not None:  # unjudged candidates must not be taken for bad ones
                self.stop.request(judge.stopped)

    def until_enough(self, draws: accept.Draws) -> tuple[list[PlannedCell], list[PlannedCell], dict[str, Any]]:
        """Draw candidates until every cell has its rows or no more may be drawn: all, those kept, and the report."""
        judged = counted(self.job.judges, self.job.attribute_names)
        while True:
            cells = self.plan(draws.candidates())
            self.generate(cells)
            table = merged(read_shards(self.work / "judgments", "judgments"))
            scores = accept.adherence(cells, table, judged, self.labels, self.job.panel)
            groups = accept.by_cell(cells)
            passed = accept.passing(groups, scores, done_ids(self.work), draws.rule)
            dead = dead_ids(self.work)
            n_dead = {key: sum(cell.row_id in dead for cell in group) for key, group in groups.items()}
            if self.stop.reason() is not None or not draws.draw_more(passed, n_dead):
                kept = [cell for group in passed.values() for cell in group]
                return cells, kept, accept.report(draws, passed)
            logger.info("%d candidates so far; more are drawn where too few have passed", len(cells))

    # ------------------------------------------------------------------ limits

    def cost(self) -> float:
        """Of devices and judges so far."""
        hours = (time.time() - self.started) / 3600
        devices = hours * self.n_workers * self.job.device_price
        return devices + sum(judge.budget.spent for judge in self.remote)

    def rejection_limit(self, n_cells: int, n_dead: int) -> Callable[[], str | None]:
        """Why to stop decoding, once too many rows are dead letters; ``n_dead`` were before and stay so."""
        most = self.job.max_rejected_fraction * n_cells

        def rejected() -> str | None:
            n = n_dead + ticks(self.work / "progress" / "rejected")
            return f"{n} of {n_cells} rows were rejected" if n > most else None

        return rejected

    def limits(self) -> list[Callable[[], str | None]]:
        """What may end the run early, whatever it does: its deadline and its budget."""
        conditions: list[Callable[[], str | None]] = []
        if self.job.deadline is not None:
            end = self.started + seconds_until(self.job.deadline, datetime.fromtimestamp(self.started))
            conditions.append(lambda: f"deadline {self.job.deadline} reached" if time.time() >= end else None)
        if self.job.budget is not None and self.job.device_price > 0:
            budget = self.job.budget
            conditions.append(lambda: f"budget of {budget:g} spent" if self.cost() >= budget else None)
        return conditions

    # ------------------------------------------------------------------ data set

    def finish(
        self, cells: Sequence[PlannedCell], kept: Sequence[PlannedCell], accepted: dict[str, Any] | None
    ) -> Result:
        with output_errors(self.output):
            tables = gather_rows(self.work, kept, cells)
            write_tables(self.output, tables)
        job, n_rejected = self.job, tables["rejected"].num_rows
        if n_rejected > job.max_rejected_fraction * len(cells):
            raise RunError(
                f"{n_rejected} of {len(cells)} rows were rejected, more than max_rejected_fraction "
                f"{job.max_rejected_fraction:g} allows; reasons: {self.output / 'rejected'}; finished rows are kept"
            )
        reason = self.stop.reason()
        n_rows = tables["generations"].num_rows
        if reason is not None:
            raise RunStopped(
                f"stopped ({reason}): {n_rows} rows are in {self.output}, of {len(kept)} planned; "
                "the same command goes on with the others",
                interrupted=reason == INTERRUPTED,
            )
        if accepted is None and n_rows + n_rejected < len(cells):
            missing = len(cells) - n_rows - n_rejected
            raise RunError(
                f"{missing} of {len(cells)} rows are missing: shards have vanished; the same command goes on"
            )
        labels = self.labels
        summary = summarise(
            tables["generations"], tables["judgments"], job.attribute_names, panel_rule=job.panel, judges=labels
        )
        run = self.record(cells, tables, accepted)
        with output_errors(self.output):
            write_card(self.output, job, tables, summary, run)
            # Last of all: its presence says that everything else is there.
            write_bytes((json.dumps(run, indent=2) + "\n").encode(), self.output / RUN_FILE)
        return Result(self.output, summary, run)

    def record(
        self, cells: Sequence[PlannedCell], tables: dict[str, pa.Table], accepted: dict[str, Any] | None
    ) -> dict[str, Any]:
        """What ``run.json`` says: counts, times and costs, planned and actual; versions."""
        total_s, before = time.time() - self.started, self.done_before or set()
        rows = read_shards(self.work / "generations", "generations", ["row_id", "n_tokens"]).to_pylist()
        planned = {cell.row_id for cell in cells}
        new = {row["row_id"]: row["n_tokens"] for row in rows if row["row_id"] in planned - before}
        n_tokens = sum(new.values())
        actual = {
            "cells": len(cells),
            "tokens": sum(tables["generations"].column("n_tokens").to_pylist()),
            "generated_tokens": n_tokens,
            "seconds": round(total_s, 3),
            "cost": round(self.cost(), 6),
        }
        return {
            "job": self.job.name,
            "counts": {
                "planned": len(cells),
                "kept_from_earlier_runs": len(planned & before),
                "generated": len(new),
                "rejected": tables["rejected"].num_rows,
                "rows": tables["generations"].num_rows,
                "judgments": tables["judgments"].num_rows,
                "unscored": tables["judgments"].column("score").null_count,
                "tokens": n_tokens,
            },
            "timings": {
                "decode_s": round(self.decode_s, 3),
                "tokens_per_s": round(n_tokens / self.decode_s, 1) if self.decode_s else None,
                "total_s": round(total_s, 3),
                "began": _instant(self.started),
                "ended": _instant(self.started + total_s),
            },
            "planned": read_plan(self.work, self.job),
            "actual": actual,
            "accept": accepted,
            "judges": sorted(self.labels),
            "calls": {
                label_of(judge): {
                    "calls": judge.n_calls,
                    "prompt_tokens": judge.budget.prompt_tokens,
                    "completion_tokens": judge.budget.completion_tokens,
                    "cost": round(judge.budget.spent, 6),
                    "stopped": judge.stopped,
                }
                for judge in self.remote
            },
            "model": self.sources.model_label,
            "adapters": dict(self.sources.adapter_revisions),
            "dtype": self.sources.dtype,
            "computed_with": {
                **asdict(self.computed_with),
                "machines": computed_with.machines(self.work),
                "smaller_batches": remembered_sizes(self.work / BATCH_SIZES),
            },
            "versions": {name: importlib.metadata.version(name) for name in _VERSIONS_OF}
            | {"mpg-scr": mpg.__version__, "python": platform.python_version()},
        }


def _instant(seconds: float) -> str:
    """A time in seconds since the epoch, as people and programs read it: ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def read_plan(work: Path, job: Job) -> dict[str, Any] | None:
    """What ``mpg plan`` expected, if it was asked about this very job."""
    try:
        plan: dict[str, Any] = json.loads((work / PLAN_FILE).read_text("utf-8"))
        return plan if plan["of"] == job.work_hash() else None
    except (OSError, ValueError, KeyError):
        return None


def shards_of(
    cells: Sequence[PlannedCell], to_do: AbstractSet[str], size: int, dead: AbstractSet[str] = frozenset()
) -> tuple[list[list[PlannedCell]], list[list[PlannedCell]]]:
    """What is left to do, as shards. The plan alone divides it: a shard that was not finished is made again as it was.

    Returns:
        those of the plan; what is left of others that are there in part (the plan has grown, a run was stopped), put
        together anew.

    Args:
        to_do: ids of rows to write. dead: of those that can't be; they are tried again where their shard's others are.
    """
    whole: list[list[PlannedCell]] = []
    left: list[PlannedCell] = []
    for first in range(0, len(cells), size):
        shard = list(cells[first : first + size])
        mine = [cell for cell in shard if cell.row_id in to_do]
        if mine and all(cell.row_id in to_do or cell.row_id in dead for cell in shard):
            whole.append(shard)
        else:
            left += mine
    return whole, [left[i : i + size] for i in range(0, len(left), size)]


def left_to_judge(work: Path, label: str, attributes: tuple[str, ...], wanted: set[str]) -> tuple[JudgeTask, ...]:
    """Rows of earlier runs that a judge has not scored on every attribute."""
    scored = judged_attributes(read_shards(work / "judgments", "judgments"), label, scored_only=False)
    tasks = []
    for path, table in shard_tables(work / "generations", "generations", ["row_id"]):
        ids = table.column("row_id").to_pylist()
        left = tuple(i for i in ids if i in wanted and not scored.get(i, set()).issuperset(attributes))
        if left:
            tasks.append(JudgeTask(str(path), left))
    return tuple(tasks)
