"""``mpg verify``: is a data set what was written, and do its rows come out the same again?"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from personas import Cell, Message, Persona, Prompt, PromptError, control
from pipeline.cells import PlannedCell, Sources, Systems, plan_cells
from pipeline.command import InputError, Outcome
from pipeline.dataset import JOB_FILE, WORK_FOLDER, job_folder
from pipeline.job import Job, JobError, load_job
from pipeline.shards import changed_files

if TYPE_CHECKING:
    from mpg import DecoderSettings

Row = Mapping[str, Any]

# How far a row's log-probabilities may lie from those of the second time, in nats: a sum over the response's tokens of
# what rounding does to one, taken to be at most this rms (0.12 was measured in bfloat16); five times that of the sum.
ROUNDING = {"float32": 1e-4, "bfloat16": 0.15}
_MOST_SHOWN = 5


class VerifyInputError(InputError):
    """A data set that can't be verified; one line with field, value and remedy."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("folder", metavar="DIR", type=Path, help="folder of a data set")
    parser.add_argument("--sample", type=int, default=20, metavar="N", help="rows to write again (20); 0: none")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of rows (0)")
    parser.add_argument("--job", metavar="JOB.yaml",
                        help="the job file; left out: the data set's own job.json")  # fmt: skip


def verify(options: argparse.Namespace) -> Outcome:
    """Check every file against the manifest, and a sample of rows against what comes out of their provenance now.

    Raises:
        VerifyInputError: no data set there, or no job that can be run here.
    """
    folder: Path = options.folder
    if options.sample < 0:
        raise VerifyInputError(f"--sample: {options.sample} must be at least 0")
    try:
        changed = changed_files(folder)
    except (OSError, ValueError) as error:
        raise VerifyInputError(f"{folder}: no manifest can be read ({error}); give a data set of mpg run") from error
    lines = ["files: CHANGED" if changed else "files: all as they were written"]
    lines += [f"  {file}: {how}" for file, how in changed.items()]
    sound = [path for path in sorted((folder / "data").glob("*.parquet")) if f"data/{path.name}" not in changed]
    rows = [row for path in sound for row in pq.read_table(path).to_pylist()]
    wrong: list[str] = []
    sample: list[Row] = []
    if rows and options.sample:
        job, rng = _job(folder, options.job), random.Random(options.seed)
        exact = rows[0]["dtype"] == "float32" or job.accept is not None
        shards = [] if exact else _shards(job, {row["row_id"] for row in rows}, options.sample, rng)
        batched = {cell.row_id for shard in shards for cell in shard}
        able = [row for row in rows if not shards or row["row_id"] in batched]
        sample = rng.sample(able, min(options.sample, len(able)))
        found = _again(job, sample, shards)
        wrong = [line for line, is_wrong in found if is_wrong]
        noted = [line for line, is_wrong in found if not is_wrong]
        same = len(sample) - len(found)
        lines.append(f"rows: {same} of {len(sample)} came out the same, text, counts and log-ratios")
        lines += [f"  {each}" for each in (wrong + noted)[:_MOST_SHOWN]]
        if len(found) > _MOST_SHOWN:
            lines.append(f"  and {len(found) - _MOST_SHOWN} more")
    problem = None
    if changed or wrong:
        problem = f"{folder}: {len(changed)} files and {len(wrong)} of {len(sample)} rows are not as they should be"
    return Outcome("\n".join(lines), problem)


def _job(folder: Path, given: str | None) -> Job:
    try:
        if given is not None:
            return load_job(given)
        return load_job(folder / JOB_FILE, folder=job_folder(folder / WORK_FOLDER))
    except JobError as error:
        remedy = "" if given is not None else "\n--job: give the job file, if the data set was moved"
        raise VerifyInputError("\n".join(error.lines) + remedy) from error


def _sources(job: Job) -> Sources:
    from pipeline.sources import RunError, resolve_sources

    try:
        return resolve_sources(job)
    except RunError as error:
        raise VerifyInputError(str(error)) from error


def _shards(job: Job, row_ids: Collection[str], at_least: int, rng: random.Random) -> list[list[PlannedCell]]:
    """Whole shards of the plan with so many of the rows: in bfloat16 a text depends on what it is decoded with."""
    from pipeline.sources import decoder_settings

    systems = Systems.of(job.described_attributes(), job.model.system)
    try:
        prompts = job.load_prompts()
    except PromptError as error:
        raise VerifyInputError(f"prompts: {error}") from error
    cells = plan_cells(job.cells(prompts), decoder_settings(job), _sources(job), job.seed, systems)
    shards = [cells[i : i + job.rows_per_shard] for i in range(0, len(cells), job.rows_per_shard)]
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


def _again(job: Job, sample: Sequence[Row], shards: Sequence[Sequence[PlannedCell]]) -> list[tuple[str, bool]]:
    """A line for each row that is not the same, and whether that is wrong (or only bfloat16's rounding).

    Args:
        shards: decoded as they are; empty: the sample's rows are decoded by themselves.
    """
    from pipeline.decoding import decode_cells
    from pipeline.handle import Handle
    from pipeline.sources import decoder_settings

    sources = _sources(job)
    settings, systems = decoder_settings(job), Systems.of(job.described_attributes(), job.model.system)
    found: list[tuple[str, bool]] = []
    cells = {}
    for row in sample:
        other = _other_models(row, sources)
        if other is not None:
            raise VerifyInputError(f"row {row['row_id']}: {other}")
        cell = cell_of(row, job, settings, sources, systems)
        if cell.row_id != row["row_id"]:
            found.append((f"{row['row_id']}: its id does not follow from its prompt, persona, settings and seed", True))
        else:
            cells[cell.row_id] = cell
    handle = Handle(sources, 1, job.batch_size)
    again = {
        cell.row_id: row if isinstance(row, dict) else {"reason": row.reason}
        for batch in shards or [list(cells.values())]
        for cell, row in decode_cells(handle, batch, sources)
    }
    for row in sample:
        if row["row_id"] in cells:
            difference = difference_of(row, again[row["row_id"]])
            if difference is not None:
                now = again[row["row_id"]]
                rounding = row["dtype"] != "float32" and row["response"] != now.get("response", row["response"])
                note = " (in bfloat16 rounding depends on the batch: a text may)" if rounding else ""
                found.append((f"{row['row_id']}: {difference}{note}", not rounding))
    return found


def _other_models(row: Row, sources: Sources) -> str | None:
    """Whether the row was written by other weights than those here."""
    here = dict(sources.adapter_revisions)
    told = [("model", row["model"], sources.model_label), ("dtype", row["dtype"], sources.dtype)]
    told += [
        (f"adapter {name}", revision, here.get(name))
        for name, revision in zip(row["attributes"], row["adapters"], strict=True)
    ]
    for what, written, now in told:
        if written != now:
            return f"was written with {what} {written}, and here it is {now}; bring that one, or name it in --job"
    return None


def cell_of(row: Row, job: Job, settings: DecoderSettings, sources: Sources, systems: Systems) -> PlannedCell:
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
    (cell,) = plan_cells([Cell(prompt, persona, row["sample_index"])], settings, sources, job.seed, systems)
    return cell


def difference_of(row: Row, again: Row) -> str | None:
    """What is not the same in a row that was written again; ``None``: nothing."""
    if "reason" in again:
        return f"could not be decoded again ({again['reason']})"
    for name in ("response", "n_tokens", "finish_reason", "seed", "config_hash", "n_chunks"):
        if row[name] != again[name]:
            return f"{name} was {row[name]!r:.60} and is {again[name]!r:.60}"
    limit = 5 * ROUNDING[row["dtype"]] * math.sqrt(max(1, row["n_tokens"]))
    told = [("log_prob_reference", row["log_prob_reference"], again["log_prob_reference"])]
    told += [
        (f"log_ratios[{i}]", a, b) for i, (a, b) in enumerate(zip(row["log_ratios"], again["log_ratios"], strict=True))
    ]
    for what, was, now in told:
        if not abs(was - now) <= limit:
            return f"{what} was {was:.6g} and is {now:.6g}"
    return None
