"""What a method's model still knows: an arm puts the project's questions with known answers to its personas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from evaluation.questionnaires.known_answers import QUESTIONS, is_right
from evaluation.statistics.aggregate import Mean, clustered_mean
from pipeline.compare.arms import Point, Stage, job_of
from pipeline.compare.model import Comparison, Task
from pipeline.job.model import Job
from pipeline.publish.report.read import read_data_set, read_rows
from pipeline.store.files import exists, write_bytes

STAGE = "known"
FILE = "known-questions.jsonl"
# An answer stands in its first sentence; what comes after is not paid for.
MOST_TOKENS = 32


def known_job(comparison: Comparison, task: Task, point: Point) -> Job:
    """The arm's job, put to the questions and judged by nobody.

    Raises:
        OSError: the file of questions can't be written.
    """
    path = comparison.output_folder / FILE
    if not exists(path):
        lines = [json.dumps({"id": f"known-{i}", "prompt": text}) for i, (text, _) in enumerate(QUESTIONS)]
        write_bytes("".join(f"{line}\n" for line in lines).encode(), path)
    job = job_of(comparison, task, point, Stage(STAGE, 0, len(QUESTIONS), 1))
    data: dict[str, Any] = job.model_dump(mode="json")
    data["prompts"] = {"file": str(path), "license": "apache-2.0"}
    data["judges"] = []
    data["decoder"]["max_new_tokens"] = min(MOST_TOKENS, job.decoder.max_new_tokens)
    return Job.model_validate(data, context={"folder": job.folder, "shipped": comparison.job.shipped})


def share_known(job: Job) -> Mean:
    """Share of answers that are right, by question, of a job of :func:`known_job` that is written.

    Raises:
        ReportError: the data set can't be read.
    """
    data = read_data_set(Path(job.output_folder))
    rows = read_rows(data, range(data.n), ("prompt", "response"))
    asked = [row["prompt"][-1]["content"] for row in rows]
    right = [float(is_right(question, row["response"])) for question, row in zip(asked, rows, strict=True)]
    return clustered_mean(right, asked)
