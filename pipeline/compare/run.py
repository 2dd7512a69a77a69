"""A comparison from its file to its tables: screening, finalists, final; what is done is kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.features.embedding import Embedder, EmbeddingModelError, RecentTexts, SentenceEmbedder
from evaluation.questionnaires.questions import QuestionnaireError
from evaluation.statistics.paired import Size
from pipeline.compare.arms import Arm, Point, Stage, job_of, personas_of, points_of
from pipeline.compare.banks import forget, keep_loaded
from pipeline.compare.bare import BareBook
from pipeline.compare.checks import missing
from pipeline.compare.differences import Compared, compared, finalists, points_of_final, size_of_final
from pipeline.compare.leaks import leakage_of
from pipeline.compare.measures import bare_perplexity, measures
from pipeline.compare.model import FINAL, SCREENING, Comparison
from pipeline.compare.questions import answers_of, items, known_job, questionnaire_job, share_known
from pipeline.compare.tasks import TaskOfRun, tasks_of
from pipeline.compare.texts import Found, by_unit, read_texts
from pipeline.exit_status import ExitStatus
from pipeline.job.model import Job
from pipeline.plan.errors import RunError
from pipeline.publish.report.read import ReportError
from pipeline.run.done import is_done
from pipeline.run.run import run_job
from pipeline.store.errors import output_errors
from pipeline.store.files import make_folder
from pipeline.store.places import is_local

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shown:
    """A text that the page shows. Attributes: scores: of what its persona asks for; ``None``: unscored."""

    task: str
    point: str
    persona: str
    response: str
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class Results:
    """What a comparison came to.

    Attributes:
        arms: rows of :data:`pipeline.compare.measures.ARMS`, stage by stage.
        chosen: who went on. sizes: of the final, by task. differences: of the final; empty: there was none.
        leakage: rows of :data:`pipeline.compare.leaks.LEAKAGE`, of the last stage's points that all its tasks have.
        shown: texts of the last stage's arms, of tasks that show any, as :func:`pipeline.compare.page.page` has them.
        machines: that arms were decoded on, as their records have them.
    """

    arms: list[dict[str, Any]] = field(default_factory=list)
    chosen: list[Point] = field(default_factory=list)
    sizes: dict[str, Size] = field(default_factory=dict)
    differences: list[Compared] = field(default_factory=list)
    leakage: list[dict[str, Any]] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    machines: list[str] = field(default_factory=list)


def compare(comparison: Comparison, beam_arguments: Sequence[str] = (), *, interruptible: bool = False) -> Results:
    """Run a comparison, or go on with it: arms that are written are measured and not written again.

    Args:
        beam_arguments, interruptible: see :func:`pipeline.run.run.run_job`.

    Raises:
        RunError: a file is missing, a task has too few prompts, the output is no local folder; or as `run_job`.
    """
    absent = missing(comparison)
    if absent:
        raise RunError("\n".join(absent), ExitStatus.BAD_INPUT)
    if not is_local(comparison.output_folder):
        raise RunError(f"output: {comparison.output!r} is in a store; name a folder of this machine",
                       ExitStatus.BAD_INPUT)  # fmt: skip
    try:
        return _Run(comparison, tuple(beam_arguments), interruptible).results()
    finally:
        forget()


class _Run:
    def __init__(self, comparison: Comparison, beam_arguments: tuple[str, ...], interruptible: bool) -> None:
        self.of, self.beam_arguments, self.interruptible = comparison, beam_arguments, interruptible
        self.tasks = tasks_of(comparison)
        with output_errors(comparison.output_folder):
            make_folder(comparison.output_folder)
            self.book = BareBook(comparison.output_folder)
        self.embedder = sentence_embedder()
        # The base's own, as rows measure log-probabilities; what is greedy at 1.
        self.temperature = comparison.job.decoder.temperature or 1.0
        self.found = Results()

    def results(self) -> Results:
        plan = {
            name: (each.screening(self.of), self.points(each))
            for name, each in self.tasks.items()
            if each.task.is_in(SCREENING)
        }
        screened = self.stage(plan)
        of_final = [set(self.points(task)) for task in self.tasks.values() if task.task.is_in(FINAL)]
        possible = set.intersection(*of_final) if of_final else None
        self.found.chosen.extend(finalists(self.of, screened, possible))
        if self.of.final.finalists and not self.found.chosen:
            logger.warning("no method that is no baseline has a score within the perplexity allowed: there is no final")
        if not self.found.chosen:
            self.look_closer(plan, screened)
            return self.found
        logger.info("finalists: %s", ", ".join(point.label for point in self.found.chosen))
        plan = {}
        for name, task in ((name, task) for name, task in self.tasks.items() if task.task.is_in(FINAL)):
            size = size_of_final(
                self.of, screened, self.found.chosen, name, most_prompts=task.n_final, step=len(task.personas)
            )
            self.found.sizes[name] = size
            if not size.enough:
                n = size.n_prompts * size.per_prompt
                if math.isnan(size.power):
                    logger.warning("%s: %d texts of each arm; the screening has too few prompts that both sides "
                                   "have texts of, to say what they will find", name, n)  # fmt: skip
                else:
                    logger.warning("%s: %d texts of each arm are the most, and find %g with a power of %.2f only",
                                   name, n, self.of.final.difference, size.power)  # fmt: skip
            stage = Stage(FINAL, task.skip, size.n_prompts, size.per_prompt // len(task.personas))
            plan[name] = stage, points_of_final(self.of, screened, self.found.chosen, name, self.points(task))
        last = self.stage(plan)
        self.found.differences.extend(compared(self.of, last, self.found.chosen))
        self.look_closer(plan, last)
        return self.found

    def points(self, task: TaskOfRun) -> list[Point]:
        names = personas_of(self.of, task.task)
        return [point for method in self.of.methods for point in points_of(method, task.weighed, names)]

    def stage(self, plan: dict[str, tuple[Stage, list[Point]]]) -> list[Found]:
        """Write and measure the arms of a stage."""
        arms = [(name, stage, point) for name, (stage, points) in plan.items() for point in points]
        found = []
        for number, (name, stage, point) in enumerate(arms, 1):
            logger.info("%s %d of %d: %s", stage.name, number, len(arms), Arm(name, point).label)
            found.append(self.arm(self.tasks[name], point, stage))
        return found

    def arm(self, task: TaskOfRun, point: Point, stage: Stage) -> Found:
        """Write what is not written, and measure."""
        job = job_of(self.of, task.task, point, stage)
        self.write(job, Arm(task.task.name, point))
        try:
            with output_errors(self.of.output_folder):
                written = read_texts(job, task.personas, self.book, self.temperature, self.embedder, self.of.choosing)
        except ReportError as error:
            raise RunError(str(error)) from error
        row = measures(stage.name, task.task.name, point, written, self.embedder)
        self.found.arms.append(row)
        for machine in written.run["computed_with"]["machines"]:
            said = ", ".join(f"{machine[key]}" for key in ("processor", "device") if key in machine)
            if said not in self.found.machines:
                self.found.machines.append(said)
        n, wanted = len(by_unit(written.texts)), stage.limit * len(task.personas)
        if job.accept is not None and n < wanted:
            logger.warning("%d of %d prompts and personas have a text that has passed; it is compared on these, and "
                           "not at all where they are fewer than half", n, wanted)  # fmt: skip
        shown = {name: "-" if row[name] is None else f"{row[name]:.3g}" for name in ("score", "joint", "perplexity")}
        logger.info("score %(score)s, joint %(joint)s, perplexity %(perplexity)s", shown)
        return Found(task.task.name, point, written, row["score"], row["joint"], bare_perplexity(written.texts))

    def write(self, job: Job, arm: Arm) -> None:
        """Unless it is written."""
        if not is_done(job):
            result = run_job(job, self.beam_arguments, interruptible=self.interruptible, load=keep_loaded)
            if result.ending.why is not None:
                logger.warning("%s: %s", arm.label, result.ending.why)

    def look_closer(self, plan: dict[str, tuple[Stage, list[Point]]], arms: Sequence[Found]) -> None:
        """Measure of the last stage's arms what takes all of them, or more than their texts."""
        by_point: dict[Point, list[Found]] = {}
        for found in arms:
            by_point.setdefault(found.point, []).append(found)
        whole = [each for each in by_point.values() if len(each) == len(plan)]
        bare = next((each for each in whole if self.of.method(each[0].point.curve.method).is_bare), [])
        personas = {name: self.tasks[name].personas for name in plan}
        for each in whole:
            # Of an attribute alone the same texts stand for several personas, whose weights wrote none of them.
            if each is not bare and each[0].point.curve.attribute is None:
                self.found.leakage.extend(leakage_of(each, bare, personas))
        for found in arms:
            shown = found.written.texts[: self.tasks[found.task].task.shown]
            self.found.shown.extend(
                Shown(found.task, found.point.label, text.persona, text.response, text.scores) for text in shown
            )
        self.ask(plan)

    def ask(self, plan: dict[str, tuple[Stage, list[Point]]]) -> None:
        """Put questions to arms that are measured: those with known answers, and the task's questionnaires."""
        rows = {(row["stage"], row["task"], row["curve"], row["strength"]): row for row in self.found.arms}
        for name, (stage, points) in plan.items():
            task = self.tasks[name]
            for point in points:
                row, arm = rows[stage.name, name, point.curve.label, point.strength], Arm(name, point)
                try:
                    if self.of.final.known:
                        with output_errors(self.of.output_folder):
                            job = known_job(self.of, task.task, point)
                        self.write(job, arm)
                        share = share_known(job)
                        row |= {"known": share.value, "known_half_width": share.half_width}
                    for source in task.task.questionnaires:
                        with output_errors(self.of.output_folder):
                            job = questionnaire_job(self.of, task.task, point, source)
                        self.write(job, arm)
                        questions = items(self.of, source)
                        row["questionnaires"].append(answers_of(job, task.personas, questions, Path(source).stem))
                except (ReportError, QuestionnaireError) as error:
                    raise RunError(str(error)) from error


def sentence_embedder() -> Embedder | None:
    """Of sentences; ``None``, which is said: its package is not installed."""
    try:
        return RecentTexts(SentenceEmbedder())
    except EmbeddingModelError as error:
        logger.warning("embedding spread is not measured: %s", error)
        return None
