"""What ``run.json`` says of a run."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mpg
from evaluation.items import label_of
from pipeline.decode.bank import BATCH_SIZES, remembered_sizes
from pipeline.decode.machine import machines
from pipeline.job.model import Job
from pipeline.judging.registry import calls_of
from pipeline.plan.cells import Sources
from pipeline.plan.computed_with import ComputedWith
from pipeline.publish.card.template import TemplateProblem, template_text
from pipeline.publish.card.write import TEMPLATE
from pipeline.publish.licence_rules import PARTS, Part
from pipeline.publish.sums import Digest
from pipeline.run.ending import Ending, on_record
from pipeline.run.judges import RunJudges
from pipeline.run.rows import Written
from pipeline.store.dataset import PLAN_FILE
from pipeline.store.files import read_text

logger = logging.getLogger(__name__)

_VERSIONS_OF = ("torch", "transformers", "accelerate", "datasets", "apache-beam", "pyarrow")


@dataclass(frozen=True)
class Course:
    """How a run went, beside what it wrote.

    Attributes:
        started: in seconds since the epoch.
        decode_s: wall time of the decode stage.
        cost: of devices and judges, of this run. cost_in_all: of all runs of the data set.
        planned: cells; control: those with control tokens in their texts. written: rows.
        accepted: see :func:`pipeline.plan.accept.report`; ``None``: the job has no ``accept``.
    """

    started: float
    decode_s: float
    cost: float
    cost_in_all: float
    planned: int
    control: int
    written: Written
    accepted: dict[str, Any] | None


def record(
    job: Job,
    sources: Sources,
    computed_with: ComputedWith,
    judges: RunJudges,
    course: Course,
    ending: Ending,
    *,
    read_with: Mapping[str, str],
    work: Path,
    found: Digest,
    licences: Sequence[Part],
) -> dict[str, Any]:
    """Counts, times and costs, planned and actual; what it was computed with, with licences; versions.

    Args:
        found: of the data set's rows.
    """
    total_s, n_tokens = time.time() - course.started, course.written.n_tokens
    expected = expected_of(work, job)
    there = {name: (expected or {}).get(name, 0) for name in ("there", "there_tokens")}  # when it was planned
    return {
        "job": job.name,
        "ended": on_record(ending),
        "counts": {
            "planned": course.planned,
            "kept_from_earlier_runs": course.written.kept,
            "generated": course.written.generated,
            "rejected": found.n_rejected,
            "broken_prompts": len(job.read_prompts().broken),
            "control_tokens": course.control,
            "rows": found.n_rows,
            "judgments": found.n_judgments,
            "unscored": found.n_unscored,
            "tokens": n_tokens,
        },
        "timings": {
            "decode_s": round(course.decode_s, 3),
            "tokens_per_s": round(n_tokens / course.decode_s, 1) if course.decode_s else None,
            "total_s": round(total_s, 3),
            "began": _instant(course.started),
            "ended": _instant(course.started + total_s),
        },
        "planned": expected,
        "actual": {  # since then, or in all
            "cells": course.planned - there["there"],
            "tokens": found.n_tokens - there["there_tokens"],
            "generated_tokens": n_tokens,
            "seconds": round(total_s, 3),
            "cost": round(course.cost, 6),
            "cost_of_all_runs": round(course.cost_in_all, 6),
        },
        "accept": course.accepted,
        "control_tokens": job.control_tokens,
        "judges": sorted(judges.labels),
        "own_judges": judges.own,
        "calls": {label_of(judge): calls_of(judge) for judge in judges.remote},
        "model": sources.model_label,
        "adapters": dict(sources.adapter_revisions),
        TEMPLATE: _template(job),
        PARTS: [asdict(part) for part in licences],
        "dtype": sources.dtype,
        "read_with": dict(read_with),
        "computed_with": {
            **asdict(computed_with),
            "attributes": list(computed_with.attributes),
            "machines": machines(work),
            "smaller_batches": remembered_sizes(work / BATCH_SIZES),
        },
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS_OF}
        | {"mpg-scr": mpg.__version__, "python": platform.python_version()},
    }


def _template(job: Job) -> str | None:
    """The card's own template, which the data set has to have wherever its card is written again."""
    try:
        return template_text(job)
    except TemplateProblem as problem:  # it was there before the run
        logger.warning("%s: the card is made by the template that ships", problem)
        return None


def _instant(seconds: float) -> str:
    """A time in seconds since the epoch, as people and programs read it: ISO 8601, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def expected_of(work: Path, job: Job) -> dict[str, Any] | None:
    """What ``mpg plan`` expected, if it was asked about this very job."""
    try:
        expected: dict[str, Any] = json.loads(read_text(work / PLAN_FILE))
        return expected if expected["of"] == job.work_hash() else None
    except (FileNotFoundError, ValueError, KeyError):
        return None
