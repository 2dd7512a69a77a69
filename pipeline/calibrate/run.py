"""A calibration from a job to strengths: pilot, choice, check on other prompts; what is written is kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from evaluation.statistics.control import ControlCurve, control_curve
from evaluation.statistics.dose import DECIMALS, LEAST_STRENGTH, Choice, Response, Unscored, choose, fit
from evaluation.statistics.linear import Effect
from pipeline.calibrate.stages import Attributes, Size, Stages, alone, attributes_of, times
from pipeline.compare.banks import forget, keep_loaded
from pipeline.job.model import Job
from pipeline.plan.errors import RunError
from pipeline.plan.sources import decoder_settings
from pipeline.publish.report.read import DataSet, ReportError, read_data_set
from pipeline.run.run import run_job
from pipeline.store.errors import output_errors
from pipeline.store.files import make_folder

logger = logging.getLogger(__name__)

Base = Literal["reference", "prompting"]


@dataclass(frozen=True)
class Asked:
    """What a calibration is asked for.

    Attributes:
        budget: the largest perplexity, as times the base's. base: whose. grid: strengths of the pilot, rising.
        texts: of each attribute and strength. lift: wanted of each attribute; ``None``: the most that all can have.
        before: whether the strengths that the job has are checked, too.
    """

    budget: float = 1.05
    base: Base = "reference"
    grid: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0)
    texts: int = 40
    lift: float | None = None
    before: bool = False


@dataclass(frozen=True)
class Seen:
    """What a check has to say of an attribute.

    Attributes:
        curve: its score against its weight. lift: over the reference, of the texts that weigh it, by ``weight``.
    """

    curve: ControlCurve
    lift: Effect
    weight: float


@dataclass(frozen=True)
class Check:
    """The job's personas at some strengths, on the prompts that the pilot has not seen.

    Attributes:
        seen: attribute -> what is seen of it. cost: log-perplexity over the reference's.
    """

    seen: Mapping[str, Seen]
    cost: Effect


@dataclass(frozen=True)
class Mixed:
    """Multiples of strengths in the job's own mixtures: mean score of a text's own attributes, log-perplexity."""

    lift: Response
    log_perplexity: Response
    factor: float


@dataclass(frozen=True)
class Calibration:
    """What came out.

    Attributes:
        attributes: that are calibrated, and those left as they are. now: attribute -> its strength in the job.
        lifts, log_perplexities: attribute -> its curve in the pilot. perplexity: of the reference there.
        base: log of the base's perplexity over the reference's; 0 where that is the base.
        allowed: log of the largest perplexity over the reference's.
        choice: strengths for an attribute alone. mixed: of mixtures, where strength means another thing there.
        strengths: attribute of the job -> what is written.
        size: of the stages. check: of the strengths chosen; ``None``: nothing was. before: of those that the job has.
        machines: that texts were decoded on.
    """

    attributes: Attributes
    now: Mapping[str, float]
    lifts: Mapping[str, Response]
    log_perplexities: Mapping[str, Response]
    perplexity: float
    base: Effect
    allowed: float
    choice: Choice
    mixed: Mixed | None
    strengths: Mapping[str, float]
    size: Size
    check: Check | None = None
    before: Check | None = None
    machines: Sequence[str] = ()


def calibrate(
    job: Job, asked: Asked, output: Path, beam_arguments: Sequence[str] = (), *, interruptible: bool = False
) -> Calibration:
    """Write the pilot, choose, and check; texts that are written already are read.

    Args:
        job: one without problems, see :func:`pipeline.calibrate.stages.problems_in`.
        output: folder of the stages' data sets, on this machine.
        beam_arguments, interruptible: see :func:`pipeline.run.run.run_job`.

    Raises:
        RunError: as `run_job`; no text of some attribute and strength has a score.
    """
    with output_errors(output):
        make_folder(output)
    try:
        return _Run(job, asked, output, tuple(beam_arguments), interruptible).result()
    except (ReportError, Unscored) as error:
        raise RunError(str(error)) from error
    finally:
        forget()


class _Run:
    def __init__(self, job: Job, asked: Asked, output: Path, beam_arguments: tuple[str, ...], interruptible: bool):
        self.job, self.asked = job, asked
        self.beam_arguments, self.interruptible = beam_arguments, interruptible
        self.attributes = attributes_of(job)
        size = Size.of(job, len(job.load_prompts()), asked.texts)
        self.stages = Stages(job, self.attributes.names, size, output)
        self.machines: list[str] = []

    def result(self) -> Calibration:
        asked, names = self.asked, self.attributes.names
        settings = decoder_settings(self.job)
        now = {name: settings.strength_of(name) for name in self.job.attribute_names}
        pilot = self.texts("pilot", self.stages.pilot(asked.grid))
        lifts, costs = {}, {}
        for name in names:
            at = _at(pilot, {alone(name, each): each for each in asked.grid})
            lifts[name] = _scores(pilot, at, _column(pilot, name))
            costs[name] = _log_perplexity(pilot, at)
        base = self.base(pilot)
        allowed = math.log(asked.budget) + (base.value or 0.0)
        # What is told is not the reference at strength 0: nothing is known below the smallest that was measured.
        least = asked.grid[0] if settings.tell != "none" else LEAST_STRENGTH
        choice = choose(lifts, costs, now, budget=allowed, lift=asked.lift, least=least)
        strengths = now | {name: each.strength for name, each in choice.of.items()}
        mixed = None
        if choice.lift is not None and self.stages.factors:
            apart = [name for name, each in choice.of.items() if each.told_apart]
            mixed = self.mixed(strengths, apart, allowed, least)
            more = {name: round(strengths[name] * mixed.factor, DECIMALS) for name in apart}
            strengths |= {name: max(LEAST_STRENGTH, each) for name, each in more.items()}
        perplexity = math.exp(costs[names[0]].reference.value or 0.0)
        check = None if choice.lift is None else self.check("check", strengths)
        before = self.check("before", now) if check is not None and asked.before else None
        return Calibration(self.attributes, now, lifts, costs, perplexity, base, allowed, choice, mixed, strengths,
                           self.stages.size, check, before, tuple(self.machines))  # fmt: skip

    def base(self, pilot: DataSet) -> Effect:
        """Log of the base's perplexity over the reference's."""
        if self.asked.base == "reference":
            return Effect(0.0, 0.0)
        told = self.texts("prompting", self.stages.prompting())
        both = [(pilot, pilot.control, 0.0), (told, ~told.control, 1.0)]
        values = np.concatenate([-(each.log_probs / each.n_tokens)[mine] for each, mine, _ in both])
        sizes = np.concatenate([each.n_tokens[mine] for each, mine, _ in both])
        strengths = np.concatenate([np.full(int(mine.sum()), s) for _, mine, s in both])
        prompts = [each.prompts[i] for each, mine, _ in both for i in each.prompt_of[mine]]
        return fit(strengths.tolist(), values.tolist(), prompts, sizes.tolist()).measured[0]

    def mixed(self, strengths: Mapping[str, float], apart: Sequence[str], allowed: float, least: float) -> Mixed:
        """The largest multiple within the budget; of those with as high a score the smallest."""
        factors = self.stages.factors
        data = self.texts("mixed", self.stages.mixed(strengths, apart, factors))
        names = {times(each.name, factor): factor for each in self.stages.personas() for factor in factors}
        at = _at(data, names)
        lift, cost = _scores(data, at, _own(data, apart)), _log_perplexity(data, at)
        most = cost.most(allowed) or least
        needed = lift.least(lift.at(most).value or 0.0)
        return Mixed(lift, cost, min(most, needed) if needed else most)

    def check(self, stage: str, strengths: dict[str, float]) -> Check:
        """What some strengths do on other prompts."""
        data = self.texts(stage, self.stages.check(stage, strengths))
        personas = {each.name: 1.0 for each in self.stages.personas()}
        cost = _log_perplexity(data, _at(data, personas)).measured[0]
        seen = {}
        for name in self.attributes.names:
            scores, weights = _column(data, name), data.weights[:, data.attributes.index(name)]
            prompts, mine = [data.prompts[i] for i in data.prompt_of], ~data.control
            curve = control_curve(
                weights[mine].tolist(),
                [None if math.isnan(each) else float(each) for each in scores[mine]],
                [prompt for prompt, there in zip(prompts, mine, strict=True) if there],
            )
            weighs = np.where(data.control, 0.0, np.where(weights > 0, 1.0, np.nan))
            lift = _scores(data, weighs, scores).measured[0]
            seen[name] = Seen(curve, lift, float(weights[weights > 0].mean()))
        return Check(seen, cost)

    def texts(self, stage: str, job: Job) -> DataSet:
        """Write what is not written, and read it: which texts of what is there still fit, a run knows."""
        n = job.n_cells(len(job.load_prompts()))
        logger.info("%s: %d texts of %d personas, in %s", stage, n, job.n_personas, job.output_folder)
        result = run_job(job, self.beam_arguments, interruptible=self.interruptible, load=keep_loaded)
        if result.ending.why is not None:
            logger.warning("%s: %s", stage, result.ending.why)
        data = read_data_set(Path(job.output_folder))
        for machine in data.run["computed_with"]["machines"]:
            said = ", ".join(f"{machine[key]}" for key in ("processor", "device") if key in machine)
            if said not in self.machines:
                self.machines.append(said)
        return data


def _column(data: DataSet, name: str) -> np.ndarray:
    """``[texts]``: scores of an attribute. Raises Unscored: no judge that counts has given any."""
    if name not in data.judged:
        raise Unscored(f"no judge that counts has scored {name}")
    return data.scores[:, data.judged.index(name)]


def _at(data: DataSet, strengths: Mapping[str, float]) -> np.ndarray:
    """``[texts]``: the strength that each text's persona stands for, 0 of the reference alone; nan: it is another's."""
    of_persona = np.array([strengths.get(name, np.nan) for name in data.personas])
    return np.where(data.control, 0.0, of_persona[data.persona_of])


def _own(data: DataSet, names: Sequence[str]) -> np.ndarray:
    """``[texts]``: mean lift of the attributes that a text weighs, of all where it weighs none; nan: any is missing.

    The reference's means are taken for certain here.
    """
    scores = data.scores[:, [data.judged.index(name) for name in names]]
    scores = scores - np.nanmean(scores[data.control], axis=0)
    weights = data.weights[:, [data.attributes.index(name) for name in names]]
    counts = (weights > 0) | data.control[:, None]
    n = counts.sum(axis=1)
    return np.where(n > 0, np.where(counts, scores, 0.0).sum(axis=1) / np.maximum(n, 1), np.nan)


def _scores(data: DataSet, at: np.ndarray, scores: np.ndarray) -> Response:
    """Of the texts that stand for a strength."""
    mine = ~np.isnan(at)
    return fit(at[mine].tolist(), scores[mine].tolist(), data.prompt_of[mine].tolist())


def _log_perplexity(data: DataSet, at: np.ndarray) -> Response:
    """Nats a token under the reference that is told nothing of attributes, of the texts that stand for a strength."""
    mine = ~np.isnan(at) & (data.n_tokens > 0)
    values = -data.log_probs[mine] / data.n_tokens[mine]
    return fit(at[mine].tolist(), values.tolist(), data.prompt_of[mine].tolist(), data.n_tokens[mine].tolist())
