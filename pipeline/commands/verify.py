"""``mpg verify``: is a data set what was written, and do its rows come out the same again?"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from personas import Cell, Message, Persona, Prompt, PromptError, control
from pipeline.commands.arguments import readable
from pipeline.commands.shared import InputError, Outcome, look_for_detached, place_errors
from pipeline.decode.machine import processor
from pipeline.job.errors import JobError
from pipeline.job.load import load_job
from pipeline.job.model import Job
from pipeline.plan.cells import ALLOW, PlannedCell, Sources
from pipeline.plan.computed_with import decided, kept
from pipeline.plan.defaults import default_problem
from pipeline.plan.read_with import change_since
from pipeline.store.dataset import JOB_FILE, RUN_FILE
from pipeline.store.exchange import whole_here
from pipeline.store.files import read_parquet, read_text
from pipeline.store.layout import files_in
from pipeline.store.manifest import changed_files
from pipeline.store.schema import version_of
from pipeline.store.shards import read_shard

if TYPE_CHECKING:
    from pipeline.plan.plan import Plan

Row = Mapping[str, Any]

# How far a row's log-probabilities may lie from those of the second time, in nats: a sum over the response's tokens of
# what rounding does to one, taken to be at most this rms (0.12 was measured in bfloat16); five times that of the sum.
ROUNDING = {"float32": 1e-4, "bfloat16": 0.15}
_MOST_SHOWN = 5
_LEFT_OUT = (
    "in bfloat16 rows are written again with the others of their shard, and the job plans none with these ids: its "
    "prompts, personas, settings or seed are others now; bring those back, or name the job of these rows with --job"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("folder", metavar="DIR", type=readable, help="folder of a data set, or its URL")
    parser.add_argument("--sample", type=int, default=20, metavar="N", help="rows to write again (20); 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of rows (0)")
    parser.add_argument("--job", metavar="JOB.yaml",
                        help="the job file; left out: the data set's own job.json")  # fmt: skip


def verify(options: argparse.Namespace) -> Outcome:
    """Check every file against the manifest, and a sample of rows against what comes out of their provenance now.

    Raises:
        InputError: no data set there, or no job that can be run here.
    """
    folder: Path = options.folder
    if options.sample < 0:
        raise InputError(f"--sample: {options.sample} must be at least 0")
    look_for_detached(folder, writes=False)
    with place_errors(folder):
        copy = whole_here(folder)
    try:
        changed = changed_files(copy)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no manifest can be read ({error}); give a data set of mpg run") from error
    lines = ["files: CHANGED" if changed else "files: all as they were written"]
    lines += [f"  {file}: {how}" for file, how in changed.items()]
    sound = [path for path in files_in(copy / "data") if f"data/{path.name}" not in changed]
    try:
        rows = [row for path in sound for row in read_shard(path, "generations").to_pylist()]
        old = any(version_of(read_parquet(path, ["row_id"]).schema) < 6 for path in sound)
    except ValueError as error:
        raise InputError(f"{folder}/data: {error}") from error
    found = _Found()
    if rows and options.sample:
        with place_errors(folder):
            found = _again(folder, _job(folder, options.job), rows, options.sample, random.Random(options.seed), old)
            lines += [*found.lines(), *_other_processor(folder)]
    problems = []
    if changed or found.wrong:
        problems.append(
            f"{len(changed)} files, {len(found.texts)} texts and measured columns of {len(found.measured)} "
            f"rows, of {found.n} looked at, are not as they should be"
        )
    if found.left_out:
        problems.append(f"{found.left_out} of {len(rows)} rows could not be compared ({_LEFT_OUT})")
    return Outcome("\n".join(lines), f"{folder}: {'; '.join(problems)}" if problems else None)


@dataclass
class _Found:
    """What came of writing rows again: row id -> what differs.

    Attributes:
        n: rows looked at, ``of`` so many; ``rounding``: what it may do to a token's log-probability, in nats.
        texts: whose text, or id, is another.
        measured: whose text is the same, and a measured column is not.
        rounded: whose text is another, as rounding may have it in bfloat16.
        left_out: how many could not be looked at, see ``_LEFT_OUT``.
    """

    n: int = 0
    of: int = 0
    left_out: int = 0
    rounding: float = ROUNDING["float32"]
    texts: dict[str, str] = field(default_factory=dict)
    measured: dict[str, str] = field(default_factory=dict)
    rounded: dict[str, str] = field(default_factory=dict)

    @property
    def wrong(self) -> bool:
        return bool(self.texts or self.measured)

    def lines(self) -> list[str]:
        other = self.texts | self.rounded
        same = self.n - len(other)
        looked_at = f" ({self.n} of {self.of} rows were looked at)" if self.n < self.of else ""
        lines = [f"texts: {same} of {self.n} came out the same{looked_at}"]
        lines += _some(self.texts)
        lines += _some({i: f"{what} (in bfloat16 rounding depends on the batch and the processor: a text may)"
                        for i, what in self.rounded.items()})  # fmt: skip
        lines.append(
            f"measured columns: {same - len(self.measured)} of {same} came out the same, counts exactly, "
            f"log-probabilities to {5 * self.rounding:g} nats x root of the tokens"
        )
        return lines + _some(self.measured)


def _record(folder: Path) -> Mapping[str, Any]:
    """What the data set says it was computed with; empty: nothing."""
    try:
        run = json.loads(read_text(folder / RUN_FILE))
        record: dict[str, Any] = run["computed_with"] | {"torch": run["versions"]["torch"]}
        return record if record["machines"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _same_company(record: Mapping[str, Any]) -> bool:
    """Whether every row was decoded by such a processor and this torch, with the rows and the batch of the plan."""
    return (
        bool(record)
        and record["torch"] == version("torch")
        and {machine["processor"] for machine in record["machines"]} == {processor()}
        and not record["regrouped"]
        and not record["smaller_batches"]
    )


def _other_processor(folder: Path) -> list[str]:
    """A word on it, where a data set says that none of the processors that wrote it is this one."""
    wrote = {machine["processor"] for machine in _record(folder).get("machines", ())}
    here = processor()
    return [f"written on {', '.join(sorted(wrote))}; this is {here}"] if wrote and here not in wrote else []


def _some(found: Mapping[str, str]) -> list[str]:
    shown = [f"  {row_id}: {what}" for row_id, what in list(found.items())[:_MOST_SHOWN]]
    return shown + ([f"  and {len(found) - _MOST_SHOWN} more"] if len(found) > _MOST_SHOWN else [])


def _job(folder: Path, given: str | None) -> Job:
    try:
        job = load_job(folder / JOB_FILE if given is None else given)
    except JobError as error:
        remedy = "" if given is not None else " (--job JOB.yaml)"
        raise InputError("\n".join(error.lines) + remedy) from error
    other = default_problem(folder, job)
    if other is not None:
        raise InputError(other)
    return job


def _again(folder: Path, job: Job, rows: Sequence[Row], size: int, rng: random.Random, old: bool) -> _Found:
    """Write some of the rows again, with what the data set is computed with, and compare.

    Args:
        old: see :func:`other_measured`.
    """
    from pipeline.decode.bank import ProcessBank
    from pipeline.decode.cells import decode_cells
    from pipeline.plan.errors import RunError
    from pipeline.plan.plan import Plan

    dtype = rows[0]["dtype"]
    if any(row["token_log_ratios"] is not None for row in rows):  # whatever the job says now
        job = job.model_copy(update={"decoder": job.decoder.model_copy(update={"token_log_ratios": True})})
    computed_with = kept(folder) or replace(decided(job, 1, len(rows)), dtype=dtype)
    try:
        plan = Plan.of(job, dtype if job.model.dtype == "auto" else job.model.dtype, computed_with.attributes)
        _check_models(rows, plan, folder)
        # In bfloat16 a text depends on what it is decoded with: whole shards.
        whole = dtype != "float32" and job.accept is None
        cells = plan.cells() if whole else []
    except RunError as error:
        raise InputError(str(error)) from error
    except PromptError as error:
        raise InputError(f"prompts: {error}") from error
    shards = _shards(cells, computed_with.rows_per_shard, {row["row_id"] for row in rows}, size, rng)
    batched, planned = {cell.row_id for shard in shards for cell in shard}, {cell.row_id for cell in cells}
    able = [row for row in rows if not whole or row["row_id"] in batched]
    sample = rng.sample(able, min(size, len(able)))
    outside = [row for row in rows if whole and row["row_id"] not in planned]
    some = rng.sample(outside, min(size, len(outside)))  # of these, ids alone can be followed
    mine = _planned([*sample, *some], plan)
    sample += [row for row in some if row["row_id"] not in mine]
    bank = ProcessBank(plan.sources, threads=computed_with.threads, batch_size=computed_with.batch_size)
    again = {
        cell.row_id: row if isinstance(row, dict) else {"reason": row.reason}
        for batch in (shards if whole else [list(mine.values())])
        for cell, row in decode_cells(bank, batch, plan.sources)
    }
    # Where all that decides the last digits is the same, bfloat16 has no excuse either.
    may_round = dtype != "float32" and not (shards and _same_company(_record(folder)))
    rounding = ROUNDING[dtype if may_round else "float32"]
    n_strange = sum(row["row_id"] not in mine for row in some)
    found = _Found(len(sample), len(rows), len(outside) - n_strange, rounding)
    for row in sample:
        row_id = row["row_id"]
        if row_id not in mine:
            found.texts[row_id] = "its id does not follow from its prompt, persona, settings and seed"
            continue
        text, measured = other_text(row, again[row_id]), other_measured(row, again[row_id], rounding, old=old)
        if text is not None:
            (found.rounded if may_round and "reason" not in again[row_id] else found.texts)[row_id] = text
        elif measured is not None:
            found.measured[row_id] = measured
    return found


def _check_models(rows: Sequence[Row], plan: Plan, folder: Path) -> None:
    """Raises InputError: some rows were written by other weights than those here, or read by other files of theirs."""
    others = [(row["row_id"], other) for row in rows if (other := _other_models(row, plan.sources)) is not None]
    if others:
        more = f" (so were {len(others) - 1} more of {len(rows)} rows)" if len(others) > 1 else ""
        raise InputError(f"row {others[0][0]}: {others[0][1]}{more}")
    changed = change_since(folder, plan)
    if changed is not None:
        raise InputError(f"{changed}; bring the earlier files back, or name a job over them (--job)")


def _planned(sample: Sequence[Row], plan: Plan) -> dict[str, PlannedCell]:
    """The cells of those rows whose id follows from their own provenance."""
    found = {}
    for row in sample:
        cell = cell_of(row, plan)
        if cell.row_id != row["row_id"] and cell.control is not None:  # written before control tokens were told apart
            cell = cell_of(row, replace(plan, job=plan.job.model_copy(update={"control_tokens": ALLOW})))
        if cell.row_id == row["row_id"]:
            found[cell.row_id] = cell
    return found


def _shards(
    cells: Sequence[PlannedCell], per_shard: int, row_ids: Collection[str], at_least: int, rng: random.Random
) -> list[list[PlannedCell]]:
    """Whole shards of the plan with so many of the rows."""
    shards = [list(cells[i : i + per_shard]) for i in range(0, len(cells), per_shard)]
    rng.shuffle(shards)
    found: list[list[PlannedCell]] = []
    n_rows = 0
    for shard in shards:
        if n_rows >= at_least:
            break
        mine = sum(cell.row_id in row_ids for cell in shard)
        if mine:
            found.append(shard)
            n_rows += mine
    return found


def _other_models(row: Row, sources: Sources) -> str | None:
    """Whether the row was written by other weights than those here."""
    here = dict(sources.adapter_revisions)
    told: list[tuple[str, str, str | None]] = [
        ("model", row["model"], sources.model_label),
        ("dtype", row["dtype"], sources.dtype),
    ]
    told += [
        (f"adapter {name}", revision, here.get(name))
        for name, revision in zip(row["attributes"], row["adapters"], strict=True)
    ]
    for what, written, now in told:
        if written != now:
            return f"was written with {what} {written}, and here it is {now}; bring that one, or name it in --job"
    return None


def cell_of(row: Row, plan: Plan) -> PlannedCell:
    """The planned cell that a row's provenance describes."""
    prompt = Prompt(row["prompt_id"], tuple(Message(m["role"], m["content"]) for m in row["prompt"]))
    persona = control()
    if row["attributes"]:
        weights = dict(zip(row["attributes"], row["weights"], strict=True))
        strengths = dict(zip(row["attributes"], row["strengths"], strict=True))
        persona = Persona(
            row["persona"],
            weights,
            strengths=strengths,
            profile=row["profile"] or "",
            personality=row["personality"] or "",
        )
    (cell,) = plan.cells([Cell(prompt, persona, row["sample_index"])])
    return cell


def other_text(row: Row, again: Row) -> str | None:
    """What of a row's text, or of what drew it, is another in a row that was written again; ``None``: nothing."""
    if "reason" in again:
        return f"could not be decoded again ({again['reason']})"
    for name in ("response", "n_tokens", "finish_reason", "seed", "config_hash"):
        if row[name] != again[name]:
            return f"{name} was {row[name]!r:.60} and is {again[name]!r:.60}"
    if row["tokens"] is not None and row["tokens"] != again["tokens"]:
        return f"tokens were {row['tokens']!r:.60} and are {again['tokens']!r:.60}"
    return None


def other_measured(row: Row, again: Row, rounding: float, *, old: bool = False) -> str | None:
    """What of a row's measured columns is another, beyond a token's ``rounding`` in nats; ``None``: nothing.

    Args:
        old: of a schema before 6, whose ``tv_bound`` was estimated otherwise: whether there is one is compared.
    """
    if "reason" in again:
        return None
    for name in ("n_chunks", "n_clipped", "n_salvaged", "n_fallbacks", "acceptance_rate"):
        if row[name] != again[name]:
            return f"{name} was {row[name]!r:.60} and is {again[name]!r:.60}"
    limit = 5 * rounding * math.sqrt(max(1, row["n_tokens"]))
    told = [("log_prob_reference", row["log_prob_reference"], again["log_prob_reference"])]
    if not old or None in (row["tv_bound"], again["tv_bound"]):
        told.append(("tv_bound", row["tv_bound"], again["tv_bound"]))
    if row["log_prob_untold"] is not None:  # rows of `prompting` before schema 6 have none
        told.append(("log_prob_untold", row["log_prob_untold"], again["log_prob_untold"]))
    told += [
        (f"log_ratios[{i}]", a, b) for i, (a, b) in enumerate(zip(row["log_ratios"], again["log_ratios"], strict=True))
    ]
    other = _other_number(told, limit)
    if other is not None or row["token_log_ratios"] is None:
        return other
    were, are = row["token_log_ratios"], again["token_log_ratios"]
    if [*map(len, were)] != [*map(len, are)]:
        return f"token_log_ratios were {[*map(len, were)]} numbers and are {[*map(len, are)]}"
    terms = [
        (f"token_log_ratios[{i}][{t}]", was, are[i][t]) for i, each in enumerate(were) for t, was in enumerate(each)
    ]
    return _other_number(terms, 5 * rounding)


def _other_number(told: Sequence[tuple[str, float | None, float | None]], limit: float) -> str | None:
    """The first of some numbers, each as it was and is, that are further apart than a limit and float32's rounding."""
    for what, was, now in told:
        apart = was != now if was is None or now is None else not math.isclose(was, now, rel_tol=1e-6, abs_tol=limit)
        if apart:
            return f"{what} was {was} and is {now}"
    return None
