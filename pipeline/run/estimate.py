"""What a job is expected to take: tokens, time and money, extrapolated from a pilot on this machine.

The pilot decodes a few cells of each persona, with the run's own batch size, and throws their texts away. Tokens are
extrapolated persona by persona (stratified sampling: Cochran 1977, chapter 5), time by the pilot's tokens a second.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from scipy.stats import t as student_t

from evaluation.endpoint.rubrics import messages
from evaluation.items import Item
from evaluation.judges.weights_card import JudgeWeightsError
from pipeline.decode.bank import ProcessBank
from pipeline.decode.cells import decode_cells
from pipeline.job.adapters import own_judges
from pipeline.job.judge_fields import OpenAIJudge
from pipeline.job.known import assignments, is_remote
from pipeline.job.model import Job
from pipeline.judging.registry import JudgeError, item_of, load_assigned, rubrics_of, with_naturalness
from pipeline.plan.cells import PlannedCell, Sources
from pipeline.plan.computed_with import ComputedWith
from pipeline.plan.plan import Plan
from pipeline.run.left import MOST_CELLS, Left

logger = logging.getLogger(__name__)

COVERAGE = 0.95
# Cells that a pilot is drawn from, and personas' shares are told by, at most: a cell of a grid takes 50 us to make.
MOST_LOOKED_AT = 50_000
# How much faster or slower a machine may turn out than in the pilot's short time, as a share: no measured interval, a
# choice that the turns of benchmarks/overhead.py (4 % faster to 11 % slower) fit into.
SPEED_NOISE = 0.15
# Completion tokens of a judge behind an endpoint, for each attribute graded: two grades and a short reason.
_TOKENS_A_GRADE = (15, 60)


class EstimateError(RuntimeError):
    """A job whose pilot says nothing; one line."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def plus(self, other: Estimate) -> Estimate:
        """The sum of two that may err together: their intervals add up."""
        return Estimate(self.value + other.value, self.low + other.low, self.high + other.high)


@dataclass(frozen=True)
class Forecast:
    """What a job is expected to take from here on.

    Attributes:
        cells: rows to write (with ``accept`` at least); ``pilot_cells``: decoded for this.
        there: rows that are written already, with ``there_tokens``; the other figures are without them.
        tokens: generated in all. ``tokens_per_s``: of one worker, as measured, or given.
        seconds: wall time with ``workers`` workers that have a device each.
        device_hours: of all workers together.
        judge_prompt_tokens, judge_completion_tokens: of judges behind endpoints.
        cost: devices and judges, at the job's prices.
    """

    job: str
    cells: int
    there: int
    there_tokens: int
    pilot_cells: int
    workers: int
    tokens: Estimate
    tokens_per_s: float
    seconds: Estimate
    device_hours: Estimate
    judge_prompt_tokens: int
    judge_completion_tokens: Estimate
    cost: Estimate


def pilot_of(cells: Sequence[PlannedCell], per_persona: int, at_least: int) -> list[PlannedCell]:
    """Some cells of every persona (of some personas, where there are very many), the same in every call."""
    rng = random.Random(0)
    groups: dict[str, list[PlannedCell]] = {}
    for cell in some_of(cells):
        groups.setdefault(cell.persona, []).append(cell)
    names = list(groups)
    if len(names) * per_persona > MOST_CELLS:
        names = sorted(rng.sample(names, MOST_CELLS // per_persona), key=names.index)
    each = max(per_persona, -(-min(at_least, MOST_CELLS) // len(names)))
    return [cell for name in names for cell in rng.sample(groups[name], min(each, len(groups[name])))]


def some_of(cells: Sequence[PlannedCell]) -> Sequence[PlannedCell]:
    """The cells, or of very many some that were drawn, the same in every call."""
    if len(cells) <= MOST_LOOKED_AT:
        return cells
    return [cells[i] for i in sorted(random.Random(1).sample(range(len(cells)), MOST_LOOKED_AT))]


def personas_of(cells: Sequence[PlannedCell]) -> dict[str, int]:
    """Persona -> how many of the cells are its; of very many cells by those that were drawn, to within a few in 100."""
    found = Counter(cell.persona for cell in some_of(cells))
    return {name: max(n, round(n * len(cells) / found.total())) for name, n in found.items()}


def forecast(
    plan: Plan,
    left: Left,
    computed_with: ComputedWith,
    per_persona: int,
    workers: int,
    tokens_per_s: float | None = None,
) -> Forecast:
    """Decode a pilot and extrapolate.

    Args:
        left: of the plan.
        per_persona: cells of each persona that the pilot decodes.
        workers: that share the work.
        tokens_per_s: of one worker, where it is another machine's than this; ``None``: as the pilot was.

    Raises:
        EstimateError: no cell of the pilot can be decoded, or a judge can't be loaded.
    """
    job, cells = plan.job, left.cells
    started = time.perf_counter()
    bank = ProcessBank(plan.sources, threads=computed_with.threads, batch_size=computed_with.batch_size)
    loading_s = time.perf_counter() - started
    pilot = pilot_of(cells, per_persona, at_least=2 * computed_with.batch_size) if cells else []
    started = time.perf_counter()
    rows = _decoded(bank, pilot, plan.sources)
    decode_s = time.perf_counter() - started
    n_tokens = sum(row["n_tokens"] for row in rows)
    lengths: dict[str, list[int]] = {}
    for row in rows:
        lengths.setdefault(row["persona"], []).append(row["n_tokens"])
    tokens = total_of(lengths, personas_of(cells)) if cells else Estimate(0.0, 0.0, 0.0)
    judging_s = _judging_s(job, rows or left.rows, left)
    busy = tokens.times(decode_s / max(1, n_tokens) if tokens_per_s is None else 1 / tokens_per_s)
    noise = 1 + SPEED_NOISE
    decoding = Estimate(busy.value, busy.low / noise, busy.high * noise)
    judging = Estimate(judging_s, judging_s / noise, judging_s * noise)
    seconds = decoding.plus(judging).times(1 / workers).plus(Estimate(loading_s, loading_s / noise, loading_s * noise))
    hours = seconds.times(workers / 3600)
    asked, answered, judge_cost = _endpoints(job, rows or left.rows, left, bank.bank.tokenizer)
    return Forecast(
        job=job.name,
        cells=len(cells),
        there=left.there,
        there_tokens=left.tokens,
        pilot_cells=len(rows),
        workers=workers,
        tokens=tokens,
        tokens_per_s=n_tokens / decode_s if tokens_per_s is None else tokens_per_s,
        seconds=seconds,
        device_hours=hours,
        judge_prompt_tokens=asked,
        judge_completion_tokens=answered,
        cost=hours.times(job.device_price).plus(judge_cost),
    )


def _decoded(bank: ProcessBank, pilot: Sequence[PlannedCell], sources: Sources) -> list[dict[str, Any]]:
    rows = []
    for cell, outcome in decode_cells(bank, pilot, sources):
        if isinstance(outcome, dict):
            rows.append(outcome)
        else:
            logger.warning("prompt %s: %s", cell.prompt_id, outcome.message)
    if pilot and not rows:
        raise EstimateError(f"prompts: none of the {len(pilot)} cells of the pilot can be decoded; see the warnings")
    return rows


def total_of(lengths: Mapping[str, Sequence[int]], sizes: Mapping[str, int]) -> Estimate:
    """A total from samples of strata: a persona's mean times its cells; those without a sample have the others' mean.

    Args:
        lengths: persona -> what was measured of some of its cells.
        sizes: persona -> its cells.
    """
    n_known = sum(sizes[name] for name in lengths)
    known = math.fsum(sizes[name] * fmean(found) for name, found in lengths.items())
    # Variances of the strata's totals, with the correction for those that are nearly exhausted; their sum's degrees of
    # freedom by Satterthwaite's rule (Cochran 1977, 5.16).
    parts = {
        name: (sizes[name] ** 2 * (1 - len(found) / sizes[name]) * variance(found) / len(found), len(found) - 1)
        for name, found in lengths.items()
        if len(found) > 1
    }
    spread = math.fsum(part for part, _ in parts.values())
    against = math.fsum(part**2 / freedom for part, freedom in parts.values())
    freedom = spread**2 / against if against > 0 else 1.0
    scale = sum(sizes.values()) / n_known
    reach = float(student_t.ppf((1 + COVERAGE) / 2, max(1.0, freedom))) * math.sqrt(max(0.0, spread)) * scale
    value = known * scale
    return Estimate(value, max(0.0, value - reach), value + reach)


def _judging_s(job: Job, rows: Sequence[Mapping[str, Any]], left: Left) -> float:
    """Seconds that the embedded judges take for what is left, timed on some rows."""
    total = 0.0
    items: list[Item] = [item_of(row) for row in rows]
    try:
        own = own_judges(job)
    except JudgeWeightsError as error:
        raise EstimateError(f"attributes: {error}") from error
    for each in assignments(job.judges, job.attribute_names, own):
        if is_remote(each.spec):
            continue
        try:
            judge = load_assigned(each)
        except JudgeError as error:
            raise EstimateError(str(error)) from error
        judge.judge(items[:1], each.attributes)  # the first call loads
        started = time.perf_counter()
        judge.judge(items, each.attributes)
        n_texts = len(left.cells) + left.unjudged.get(each.called, 0)
        total += (time.perf_counter() - started) / len(items) * n_texts
    return total


def _endpoints(
    job: Job, rows: Sequence[Mapping[str, Any]], left: Left, tokenizer: Any
) -> tuple[int, Estimate, Estimate]:
    """Prompt tokens, completion tokens and cost of judges behind endpoints, by the model's own tokenizer."""
    asked, answered, cost = 0, Estimate(0.0, 0.0, 0.0), Estimate(0.0, 0.0, 0.0)
    remote = [spec for spec in job.judges if isinstance(spec, OpenAIJudge)]
    if not remote:
        return asked, answered, cost
    rubrics = rubrics_of(with_naturalness(job.described_attributes()))
    chats = [messages(item_of(row), rubrics) for row in rows]
    each = fmean(sum(len(tokenizer(m["content"]).input_ids) for m in chat) for chat in chats)
    for spec in remote:
        n_cells = len(left.cells) + left.unjudged.get(spec.kind, 0)
        prompts = round(each * n_cells)
        few, many = (n_cells * (len(rubrics) * count + 10) for count in _TOKENS_A_GRADE)
        completions = Estimate((few + many) / 2, few, many)
        asked, answered = asked + prompts, answered.plus(completions)
        paid = completions.times(spec.completion_price / 1e6)
        fixed = prompts * spec.prompt_price / 1e6
        cost = cost.plus(paid).plus(Estimate(fixed, fixed, fixed))
    return asked, answered, cost
