"""The judges of a run: those that Beam's workers ask, and those behind endpoints, which this process asks alone."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from evaluation.endpoint.rubrics import FLUENCY
from evaluation.endpoint.settings import JudgeSetupError, base_url_of, key_of
from evaluation.items import is_independent, label_of
from evaluation.judges.openai import OpenAIJudge
from evaluation.judges.weights_card import JudgeWeightsError
from pipeline.beam.to_do import keep_tasks
from pipeline.beam.work import JudgeTask, JudgeWork
from pipeline.exit_status import ExitStatus
from pipeline.job.adapters import judging_lines, own_judges
from pipeline.job.judge_checks import accept_problems
from pipeline.job.known import assignments, is_remote, known_to
from pipeline.job.model import Job
from pipeline.judging.asked import Asked
from pipeline.judging.registry import (
    JudgeError,
    check_judge,
    load_assigned,
    load_remote_judge,
    rubrics_of,
    with_naturalness,
)
from pipeline.judging.table import judged_attributes
from pipeline.judging.verdict import Unscored, status_of
from pipeline.run.asking import Texts, ToAsk
from pipeline.run.limits import Limits
from pipeline.store.errors import output_errors
from pipeline.store.shards import read_shards, shard_tables
from pipeline.store.stop import StopFile

logger = logging.getLogger(__name__)


# Label and attributes of a judge -> what it has not judged, each with its number of texts.
LeftToJudge = Callable[[str, tuple[str, ...]], Iterable[tuple[JudgeTask, int]]]


class RunJudges:
    """Loaded once a run, before anything is decoded.

    Raises:
        JudgeError: one can't be loaded, or has no key.
    """

    def __init__(self, job: Job, work: Path) -> None:
        self._job, self._work = job, work
        self._attributes = with_naturalness(job.described_attributes())
        try:
            own = own_judges(job)
        except JudgeWeightsError as error:
            raise JudgeError(f"attributes: {error}") from error
        if job.accept is not None:  # once more: adapters of the Hub are here only now
            for problem in accept_problems(job, own):
                raise JudgeError(f"{problem.field}: {problem.text}")
        assigned = assignments(job.judges, job.attribute_names, own)
        self._local = [(each, label_of(load_assigned(each))) for each in assigned if not is_remote(each.spec)]
        self.remote = [load_remote_judge(spec, self._attributes, work) for spec in job.judges if is_remote(spec)]
        self._remote_attributes = (*(each.name for each in self._attributes), FLUENCY)
        for line in judging_lines(job, own, counted=False):
            logger.warning("%s", line)

    @property
    def labels(self) -> set[str]:
        """Of all of them: name@version."""
        return {label for _, label in self._local} | {label_of(judge) for judge in self.remote}

    @property
    def own(self) -> dict[str, dict[str, str]]:
        """Attribute -> label and worth of the judge beside its adapter, for those that have one."""
        return {
            each.attributes[0]: {"judge": label, "worth": each.own.worth}
            for each, label in self._local
            if each.own is not None
        }

    @property
    def remote_labels(self) -> set[str]:
        """Of those behind endpoints whose scores count."""
        return {label for label in map(label_of, self.remote) if is_independent(label)}

    def why_unasked(self, reasons: Counter[str]) -> tuple[str, ExitStatus]:
        """Why judges behind endpoints gave no scores of some texts, and what a run that needs them ends with.

        Args:
            reasons: that they gave, see :func:`pipeline.plan.accept.why_waiting`.
        """
        for judge in self.remote:
            if judge.stopped is not None:
                return f"judge: {judge.stopped}", status_of(judge)
        why = reasons.most_common(1)[0][0] if reasons else "no answer"
        return f"judge: no text could be scored: {why}", ExitStatus.TRY_AGAIN

    def spent(self) -> dict[str, float]:
        """What judges behind endpoints have cost so far, by name."""
        return {judge.name: float(judge.budget.spent) for judge in self.remote}

    def unscored(self) -> Unscored:
        """What those behind endpoints have left unscored, of no texts yet."""
        return Unscored((judge, self._remote_attributes) for judge in self.remote)

    @property
    def asked(self) -> Asked:
        """What tells which texts all of them have looked at."""
        known = [(label, each.attributes) for each, label in self._local]
        known += [(label_of(judge), tuple(each.name for each in self._attributes)) for judge in self.remote]
        return Asked(tuple(known), frozenset(label_of(judge) for judge in self.remote))

    def of_workers(self, wanted: set[str]) -> list[JudgeWork]:
        """Those that workers ask, with what earlier runs have left them of the wanted rows."""
        return [
            JudgeWork(each, label, keep_tasks(self._work, left_to_judge(self._work, label, each.attributes, wanted)))
            for each, label in self._local
        ]

    def of_workers_by_file(self, left: LeftToJudge) -> list[JudgeWork]:
        """The same, where files of rows are judged whole.

        Args:
            left: label and attributes of a judge -> files that it has not judged, with their numbers of texts.
        """
        return [
            JudgeWork(each, label, keep_tasks(self._work, left(label, each.attributes))) for each, label in self._local
        ]

    def ask_endpoints(self, stop: StopFile, to_ask: ToAsk, limits: Limits) -> None:
        """Ask each that is behind an endpoint about all that it has not scored, until it, or the run, is stopped."""
        for judge in self.remote:
            if stop.reason() is None:
                with output_errors(self._work):
                    texts = to_ask(label_of(judge), self._remote_attributes)
                self._ask(judge, stop, texts, limits)

    def _ask(self, judge: OpenAIJudge, stop: StopFile, texts: Texts, limits: Limits) -> None:
        job, is_jobs = self._job, False
        judge.stop = stop.watcher()
        if job.budget is not None:
            left = max(0.0, job.budget - limits.cost() + judge.budget.spent) + judge.budget.earlier
            judge.budget.limit = left if judge.budget.limit is None else min(left, judge.budget.limit)
            is_jobs = judge.budget.limit == left
        with (
            output_errors(self._work),
            logging_redirect_tqdm(),
            tqdm(total=texts.n, desc=f"judging ({label_of(judge)})", unit="text", mininterval=1.0) as bar,
        ):
            texts.ask(judge, self._remote_attributes, bar.update)
        if judge.stopped is not None:
            logger.warning("judge: stopped: %s; the same command asks for the rest", judge.stopped)
            if is_jobs and judge.out_of_budget:
                spent = limits.out_of_budget()
                stop.request(spent.reason, spent.status)
            elif job.accept is not None:  # unjudged candidates must not be taken for bad ones
                stop.request(judge.stopped, status_of(judge))


def judge_problems(job: Job, *, keys: bool = True) -> list[str]:
    """What a run would miss of its judges, before it has a folder: packages and keys. None is loaded.

    Args:
        keys: whether those behind endpoints will be asked.
    """
    problems = []
    try:
        own = own_judges(job)
    except JudgeWeightsError as error:
        return [f"attributes: {error}"]
    for spec in job.judges:
        try:
            if is_remote(spec):
                if keys:
                    key_of(spec)
                    base_url_of(spec)
            elif known_to(spec, job.attribute_names, own):
                check_judge(spec)
        except JudgeError as error:
            problems.append(str(error))
        except JudgeSetupError as error:
            problems.append(f"judges: {spec.kind}: {error}")
    return problems


def rubric_problems(job: Job) -> list[str]:
    """Whether judges behind endpoints have descriptions to grade by; adapters of the Hub, and their cards, are here."""
    try:
        if any(map(is_remote, job.judges)):
            rubrics_of(with_naturalness(job.described_attributes()))
    except ValueError as error:
        return [f"attributes: {error}"]
    return []


def left_to_judge(
    work: Path, label: str, attributes: tuple[str, ...], wanted: set[str]
) -> Iterator[tuple[JudgeTask, int]]:
    """Rows of earlier runs that a judge has not scored on every attribute, and how many."""
    scored = judged_attributes(read_shards(work / "judgments", "judgments"), label, scored_only=False)
    for path, table in shard_tables(work / "generations", "generations", ["row_id"]):
        ids = table.column("row_id").to_pylist()
        left = tuple(i for i in ids if i in wanted and not scored.get(i, set()).issuperset(attributes))
        if left:
            yield JudgeTask(str(path), left), len(left)
