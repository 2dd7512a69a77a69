"""Questions that an arm puts to its personas: the project's with known answers, and questionnaires of MBTI types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation.questionnaires.answers import ask, result, wanted_of
from evaluation.questionnaires.known_answers import QUESTIONS, is_right
from evaluation.questionnaires.questions import ANSWER_TOKENS, OWN, Question, asked, items_of
from evaluation.statistics.aggregate import Mean, clustered_mean
from personas import Persona
from pipeline.compare.arms import Point, Stage, job_of
from pipeline.compare.model import Comparison, Task
from pipeline.compare.texts import writer_of
from pipeline.job.model import Job
from pipeline.publish.report.read import read_data_set, read_rows
from pipeline.store.copies import here
from pipeline.store.files import exists, read_bytes, write_bytes
from pipeline.store.places import joined

KNOWN = "known"
# An answer stands in its first sentence; what comes after is not paid for.
_KNOWN_TOKENS = 32


def known_job(comparison: Comparison, task: Task, point: Point) -> Job:
    """The arm's job, put to the questions with known answers and judged by nobody.

    Raises:
        OSError: the file of questions can't be written.
    """
    return _job_of(comparison, task, point, KNOWN, [text for text, _ in QUESTIONS], _KNOWN_TOKENS)


def share_known(job: Job) -> Mean:
    """Share of answers that are right, by question, of a job of :func:`known_job` that is written.

    Raises:
        ReportError: the data set can't be read.
    """
    data = read_data_set(Path(job.output_folder))
    rows = read_rows(data, range(data.n), ("prompt", "response"))
    questions = [row["prompt"][-1]["content"] for row in rows]
    right = [float(is_right(question, row["response"])) for question, row in zip(questions, rows, strict=True)]
    return clustered_mean(right, questions)


def items(comparison: Comparison, source: str) -> list[Question]:
    """Of a task's questionnaire. Raises QuestionnaireError, OSError: it can't be read."""
    return items_of(source if source == OWN else here(joined(comparison.folder, source)))


def questionnaire_job(comparison: Comparison, task: Task, point: Point, source: str) -> Job:
    """The arm's job, put to a questionnaire's items in words and judged by nobody.

    Raises:
        QuestionnaireError, OSError: the items can't be read, or their file can't be written.
    """
    texts = dict.fromkeys(map(asked, items(comparison, source)))  # items of the same words are asked once
    return _job_of(comparison, task, point, f"questionnaire-{Path(source).stem}", [*texts], ANSWER_TOKENS)


def answers_of(job: Job, personas: Sequence[Persona], questions: Sequence[Question], name: str) -> dict[str, Any]:
    """What a job of :func:`questionnaire_job` that is written answers like: one of the arms' ``questionnaires``.

    Args:
        personas: the task's; those who want no pole are left out.

    Raises:
        ReportError: the data set can't be read.
    """
    data = read_data_set(Path(job.output_folder))
    rows = read_rows(data, range(data.n), ("prompt", "response"))
    writers = [data.personas[which] for which in data.persona_of.tolist()]
    found = []
    for persona in personas:
        if wanted := wanted_of(persona):
            writer = writer_of(job, personas, persona)
            mine = [row for row, by in zip(rows, writers, strict=True) if by == writer]
            texts = {row["prompt"][-1]["content"]: row["response"] for row in mine}
            # What was rejected has no text, and is as unreadable as one.
            put = ask(questions, lambda given, texts=texts: [texts.get(each, "") for each in given])  # type: ignore[misc]
            found.append(result(questions, put, wanted))
    accuracy = [value for each in found for value in each.accuracy.values() if value is not None]
    errors = [each.absolute_error for each in found if each.absolute_error is not None]
    return {
        "questionnaire": name,
        "accuracy": fmean(accuracy) if accuracy else None,
        "types_right": fmean(bool(each.type_right) for each in found) if found else None,
        "absolute_error": fmean(errors) if errors else None,
        "n_items": len(questions) * len(found),
        "n_unreadable": sum(each.n_unreadable for each in found),
    }


def _job_of(
    comparison: Comparison, task: Task, point: Point, stage: str, questions: Sequence[str], most_tokens: int
) -> Job:
    """The arm's job, put to questions of a file in the comparison's output."""
    path = comparison.output_folder / f"{stage}-questions.jsonl"
    lines = [json.dumps({"id": f"{stage}-{i}", "prompt": text}) for i, text in enumerate(questions)]
    content = "".join(f"{line}\n" for line in lines).encode()
    if not exists(path) or read_bytes(path) != content:
        write_bytes(content, path)
    job = job_of(comparison, task, point, Stage(stage, 0, len(questions), 1))
    data: dict[str, Any] = job.model_dump(mode="json")
    data["prompts"] = {"file": str(path), "license": "apache-2.0"}
    data |= {"judges": [], "accept": None}
    data["decoder"]["max_new_tokens"] = min(most_tokens, job.decoder.max_new_tokens)
    return Job.model_validate(data, context={"folder": job.folder, "shipped": comparison.job.shipped})
