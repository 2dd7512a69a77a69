"""A corpus as its student reads it: the best texts of each persona, as `mpg export` puts them, in tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.student.study import Study
from evaluation.items import of_kinds
from mpg.models.hub import Place
from mpg.models.pretrained import load_tokenizer
from mpg.train.sft import sft_row
from pipeline.compare.texts import hash_of
from pipeline.exit_status import ExitStatus
from pipeline.job.model import Job
from pipeline.plan.errors import RunError
from pipeline.plan.sources import chat_style
from pipeline.plan.systems import Systems
from pipeline.publish.data_set import table_of
from pipeline.publish.forms import Row, Source, make_form
from pipeline.publish.wanted import Wanted
from pipeline.store.dataset import RUN_FILE

# What `mpg export --format prompt-completion` makes.
_FORM = Wanted(form="prompt-completion", system="persona")


def told(study: Study) -> dict[str, str]:
    """Persona's name -> the system message under which students answer as it: that of texts which are exported."""
    job = study.job
    systems = Systems.of(job.described_attributes(), job.model.system, job.decoder.wording)
    found = {each.name: systems.for_reference(each, told=True) for each in study.test_personas()}
    return {name: message for name, message in found.items() if message is not None}


@dataclass(frozen=True)
class Lesson:
    """A text that is taught.

    Attributes:
        prompt: a hash, as of texts that are measured. chat: before the answer, who is to answer included.
        ended: whether the text ended by itself.
    """

    prompt: str
    persona: str
    chat: Sequence[dict[str, str]]
    answer: str
    ended: bool


def lessons(study: Study, job: Job) -> list[Lesson]:
    """Of a corpus that is written those that its student reads: each persona's ``keep`` best by who chooses.

    Texts without a score, or that say nothing, are none of them; of equal ones the first by row id is better.

    Raises:
        RunError: a persona has fewer.
    """
    folder = Path(job.output_folder)
    tables = {name: table_of(folder, name) for name in ("generations", "judgments")}
    run = json.loads((folder / RUN_FILE).read_text("utf-8"))
    choose = of_kinds(run["judges"], None if study.chosen_by is None else [study.chosen_by])
    source = Source.of(tables, frozenset(), job.described_attributes(), choose, job.panel)
    rows: dict[str, Row] = {row["row_id"]: row for row in source.rows}
    scored: dict[str, list[tuple[float, str]]] = {persona.name: [] for persona in job.build_personas()}
    exported = {each["row_id"]: each for each in make_form(source, _FORM).table.to_pylist()}
    for row_id in exported:
        score = source.score(rows[row_id])
        if score is not None:
            scored[rows[row_id]["persona"]].append((-score, row_id))
    found = []
    for persona, candidates in scored.items():
        if len(candidates) < study.keep:
            text = f"{study.keep}, and {job.name} has {len(candidates)} scored texts as {persona!r}"
            raise RunError(f"keep: {text}; lower it, or raise samples_per_cell", ExitStatus.BAD_INPUT)
        for _, row_id in sorted(candidates)[: study.keep]:
            each = exported[row_id]
            answer, ended = each["completion"][0]["content"], rows[row_id]["finish_reason"] != "length"
            found.append(Lesson(hash_of(rows[row_id]["prompt"]), persona, each["prompt"], answer, ended))
    return found


def in_tokens(job: Job, taught: Sequence[Lesson]) -> list[dict[str, Any]]:
    """Lessons as rows for :func:`mpg.train.sft.train_sft`."""
    tokenizer, style = load_tokenizer(Place(job.resolve(job.model.id), job.model.revision)), chat_style(job)
    return [sft_row(tokenizer, each.chat, each.answer, style, ended=each.ended) for each in taught]
