"""``mpg questionnaire``: put questions to a job's personas, in words and by how likely each option is."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.questionnaires.answers import Result, ask, choose, result, wanted_of
from evaluation.questionnaires.questions import (
    ANSWER_TOKENS,
    DIMENSIONS,
    OWN,
    Question,
    QuestionnaireError,
    asked,
    items_of,
)
from evaluation.tables import aligned
from personas import Grid, Message, Prompt
from pipeline.commands.arguments import add_words, place, source
from pipeline.commands.shared import InputError, Outcome, job_of
from pipeline.plan.cells import PlannedCell
from pipeline.plan.computed_with import cores

if TYPE_CHECKING:
    from pipeline.decode.bank import ProcessBank
    from pipeline.plan.cells import Sources
    from pipeline.plan.plan import Plan

logger = logging.getLogger(__name__)

METHODS = ("text", "options")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options, beside the job file."""
    add_words(parser, "--items", positional="job", metavar="FILE",
              help=f"JSON files of items; {OWN}: the project's sixty ({OWN})")  # fmt: skip
    parser.add_argument("--by", choices=(*METHODS, "both"), default="both",
                        help="read the answers' texts, or take the likeliest option, or both (both)")  # fmt: skip
    parser.add_argument("--output", type=place, metavar="FILE.json", help="write every answer there, too")


def questionnaire(options: argparse.Namespace) -> Outcome:
    """Put every item to every persona of a job; the report.

    Raises:
        InputError: before a model is loaded where that can be known.
    """
    job, _ = job_of(options)
    files = [source(each) for each in options.items or (OWN,)]
    try:
        items = {Path(file).stem: items_of(file) for file in files}
    except QuestionnaireError as error:
        raise InputError(f"--items {error}") from error
    if len(items) < len(files):
        raise InputError(f"--items {' '.join(files)}: two files of one name; rename one")
    if options.output is not None and options.output.is_dir():
        raise InputError(f"--output {options.output}: is a folder; name a file")
    if options.output is not None and not options.output.absolute().parent.is_dir():
        raise InputError(f"--output {options.output}: its folder does not exist; make it first")
    from pipeline.plan.plan import Plan

    plan = Plan.of(job)
    methods = METHODS if options.by == "both" else (options.by,)
    answers = _put(replace(plan, settings=replace(plan.settings, max_new_tokens=ANSWER_TOKENS)), items, methods)
    problem = None
    if options.output is not None:
        text = json.dumps([_as_json(entry) for entry in answers], indent=2)
        try:
            options.output.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            problem = f"--output {options.output}: can't be written ({error.strerror})"
    return Outcome(_report(answers), problem)


Entry = tuple[str, str, str, dict[str, str | None], Result]  # file, persona, method, answers by item, result


def _put(plan: Plan, items: Mapping[str, Sequence[Question]], methods: Sequence[str]) -> list[Entry]:
    from tqdm import tqdm

    from pipeline.decode.bank import ProcessBank

    job = plan.job
    bank = ProcessBank(plan.sources, threads=job.threads or cores(), batch_size=job.batch_size)
    decoder = _Decoder(bank, plan.sources)
    personas = job.build_personas()
    entries = []
    total = len(personas) * len(methods) * sum(map(len, items.values()))
    with tqdm(total=total, desc="asking", unit="item", mininterval=1.0) as bar:
        for file, questions in items.items():
            texts = list(dict.fromkeys(map(asked, questions)))  # items of the same words are asked once
            prompts = tuple(Prompt(f"{file}:{i}", (Message("user", text),)) for i, text in enumerate(texts))
            for persona in personas:
                decoder.persona = plan.cells(Grid(prompts, (persona,)))
                for method in methods:
                    put = ask(questions, decoder.texts) if method == "text" else choose(questions, decoder.likely)
                    found = result(questions, put, wanted_of(persona))
                    keyed = {q.key: choice for q, choice in zip(questions, put, strict=True)}
                    entries.append((file, persona.name, method, keyed, found))
                    bar.update(len(questions))
    return entries


class _Decoder:
    """A model bank as questionnaires want it; ``persona`` holds the cells of all questions, asked under one persona."""

    def __init__(self, handle: ProcessBank, sources: Sources) -> None:
        self._handle, self._sources = handle, sources
        self.persona: Sequence[PlannedCell] = ()

    def _of(self, questions: Sequence[str]) -> list[PlannedCell]:
        cells = {cell.messages[-1][1]: cell for cell in self.persona}
        return [cells[question] for question in questions]

    def texts(self, questions: Sequence[str]) -> list[str]:
        """What is answered; nothing where a question can't be decoded, which is counted as unreadable."""
        from pipeline.decode.cells import decode_cells

        found = {}
        for cell, outcome in decode_cells(self._handle, self.persona, self._sources):
            if not isinstance(outcome, dict):
                logger.warning("%s: %s", cell.prompt_id, outcome.message)
            found[cell.row_id] = outcome["response"] if isinstance(outcome, dict) else ""
        return [found[cell.row_id] for cell in self._of(questions)]

    def likely(self, questions: Sequence[str], options: Sequence[Sequence[str]]) -> list[list[float]]:
        """Log-probabilities of the options."""
        from mpg.score.choices import choice_log_probs
        from pipeline.decode.requests import RejectedCell, request_of

        bank, cells = self._handle.bank, self._of(questions)
        try:
            requests = [request_of(bank, cell) for cell in cells]
        except RejectedCell as error:
            raise InputError(f"--items: a question can't be put to {cells[0].persona!r}: {error}") from error
        tokens = [[bank.tokenizer(n.capitalize(), add_special_tokens=False).input_ids for n in o] for o in options]
        return choice_log_probs(bank, list(zip(requests, tokens, strict=True)), cells[0].decoder)


def _report(entries: Sequence[Entry]) -> str:
    """A line for each file, persona and method."""
    dimensions = list(dict.fromkeys(DIMENSIONS.values()))
    head = ["items", "persona", "by", *(d[0] for d in dimensions), "accuracy", "type", "error", "unread"]
    rows = []
    for file, persona, method, _, found in entries:
        known = [value for value in found.accuracy.values() if value is not None]
        right = "-" if found.type_right is None else "right" if found.type_right else "wrong"
        accuracy = sum(known) / len(known) if known else None
        shares = [_shown(found.shares[d]) for d in dimensions]
        unread = f"{found.n_unreadable}/{found.n}"
        rows.append([file, persona, method, *shares, _shown(accuracy), right, _shown(found.absolute_error), unread])
    lines = [aligned(head, rows, n_text=3)]
    lines.append(
        "E, S, T, J: share of the answers read that speak for this pole; accuracy, type, error: against the persona's "
        "own poles; by options: the likelier answer, nothing is written"
    )
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _as_json(entry: Entry) -> dict[str, Any]:
    file, persona, method, choices, found = entry
    return {"items": file, "persona": persona, "by": method, "answers": choices, **asdict(found)}
