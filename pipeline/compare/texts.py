"""An arm's texts with what is known of each: scores of what its persona asks for, and how usual it is."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.features.embedding import Embedder
from evaluation.items import kind_of
from evaluation.judges.persona_match import PersonaMatchJudge
from evaluation.statistics.control import ControlCurve
from evaluation.statistics.joint import carries_all
from mpg.settings import TABLE
from personas import Persona
from personas.attributes import REFERENCE
from pipeline.compare.arms import Point
from pipeline.compare.as_persona import scores_as
from pipeline.compare.bare import Bare, BareBook
from pipeline.job.model import Job
from pipeline.publish.report.measures import Measures
from pipeline.publish.report.read import DataSet, NoTexts, read_data_set, read_rows
from pipeline.store.dataset import RUN_FILE

# Of rows, what is measured.
_COLUMNS = (
    "row_id", "prompt_id", "prompt", "response", "system", "decoder", "weights", "strengths", "log_ratios", "n_tokens",
    "n_chunks",
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """A text as one of its task's personas.

    Attributes:
        persona: its name. prompt: a hash of it, the same in all tasks. scores: attribute -> score, of those that the
            persona weighs; ``None``: unscored.
        by_family: family of judges -> attribute -> score; independent or not.
        bare: under the bare reference. divergence: ``log q - log pi_0`` of the tokens that were drawn, nats; ``None``:
            unknown. n_tokens, n_chunks: as its row says. judged: as `scores`, of all attributes that were judged.
    """

    persona: str
    prompt: str
    response: str
    scores: Mapping[str, float | None]
    by_family: Mapping[str, Mapping[str, float | None]]
    bare: Bare
    divergence: float | None
    n_tokens: int
    n_chunks: int
    judged: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """Mean of its scores; ``None``: any is missing, or there are none."""
        return mean_of(self.scores.values())

    @property
    def carried(self) -> float | None:
        """Whether it carries all, see :func:`evaluation.statistics.joint.carries_all`."""
        return carries_all(list(self.scores.values())) if self.scores else None


def mean_of(scores: Any) -> float | None:
    """Of scores of which none is missing; ``None`` otherwise, or of none."""
    found = list(scores)
    return math.fsum(found) / len(found) if found and None not in found else None


@dataclass(frozen=True)
class Written:
    """What an arm has written.

    Attributes:
        run: its ``run.json``. prompts_hash: of its prompts: arms of a task and stage agree in it.
        control: attribute -> its curve, of those that the arm's own personas weigh differently.
    """

    texts: tuple[Text, ...]
    run: Mapping[str, Any]
    prompts_hash: str
    control: Mapping[str, ControlCurve] = field(default_factory=dict)


def read_texts(
    job: Job,
    personas: Sequence[Persona],
    book: BareBook,
    temperature: float,
    embedder: Embedder | None = None,
    not_counted: Collection[str] = (),
) -> Written:
    """The texts of an arm that is written, once for each persona that they stand for.

    Where the decoder knows no persona, the reference's texts stand for all, each judged as its persona's.

    Args:
        job: the arm's. personas: the task's. temperature: of the bare reference, above 0.
        embedder: of sentences, for judges that read a persona; ``None``: what they would say stays unscored.
        not_counted: kinds of judges that choose texts of this arm or of others.

    Raises:
        ReportError: the data set can't be read. RunError, OSError: see :class:`BareBook`.
    """
    try:
        data = read_data_set(Path(job.output_folder), not_counted)
    except NoTexts:
        if job.accept is None:
            raise
        run = json.loads((Path(job.output_folder) / RUN_FILE).read_text("utf-8"))
        return Written((), run, hashlib.sha256(b"[]").hexdigest())
    rows = read_rows(data, range(data.n), _COLUMNS)
    bare = book.of(job, str(data.run["dtype"]), temperature, rows)
    by_writer: dict[str, list[int]] = {}
    for i, which in enumerate(data.persona_of.tolist()):
        by_writer.setdefault(data.personas[which], []).append(i)
    texts = []
    for persona in personas:
        as_whom = {} if TABLE[job.decoder.name].weighted else scores_as(job, persona, rows, embedder)
        for i in by_writer.get(writer_of(job, personas, persona), ()):
            row = rows[i]
            given: dict[str, dict[str, float | None]] = {}
            for k, label in enumerate(data.judges):
                said = _scores(data, data.given[:, :, k], i, persona.active)
                mine = given.setdefault(family_of(label), {})
                mine |= {name: score for name, score in said.items() if score is not None or name not in mine}
            told = {name: scores[i] for name, scores in as_whom.items()}
            if told:
                given[PersonaMatchJudge.name] = given.get(PersonaMatchJudge.name, {}) | told
            if PersonaMatchJudge.name in not_counted:
                told = {}
            texts.append(
                Text(
                    persona.name,
                    hash_of(row["prompt"]),
                    row["response"],
                    _scores(data, data.scores, i, persona.active) | told,
                    given,
                    bare[i],
                    divergence_of(row, job, temperature),
                    row["n_tokens"],
                    row["n_chunks"],
                    _scores(data, data.scores, i, data.judged) | told,
                )
            )  # fmt: skip
    digest = hashlib.sha256(json.dumps(sorted({hash_of(row["prompt"]) for row in rows})).encode()).hexdigest()
    curves = {name: curve for name, curve in Measures(data).curves.items() if len(curve.points) > 1}
    return Written(tuple(texts), data.run, digest, curves)


def hash_of(prompt: Any) -> str:
    """Of a chat, 16 hex digits."""
    return hashlib.sha256(json.dumps(prompt).encode()).hexdigest()[:16]


def family_of(label: str) -> str:
    """What judges are told apart by, from ``name@version``: those beside adapters are one family, models of endpoints
    are families of their own."""
    name, _, version = label.partition("@")
    return f"{name} {version.rpartition('+')[0]}" if kind_of(label) == "openai" else name


def writer_of(job: Job, personas: Sequence[Persona], persona: Persona) -> str:
    """Name under which a persona's texts were written: of the first that comes to the same."""
    if not TABLE[job.decoder.name].weighted:
        return REFERENCE
    names = {each.name for each in job.build_personas()}
    if persona.name in names:
        return persona.name
    return next(each.name for each in personas if each.texts == persona.texts and each.name in names)


def _scores(data: DataSet, scores: np.ndarray, i: int, names: Iterable[str]) -> dict[str, float | None]:
    """Of those attributes that any judge was asked about. Args: scores: ``[texts, judged]``."""
    found: dict[str, float | None] = {}
    for name in names:
        column = data.judged.index(name) if name in data.judged else None
        if column is not None and data.is_judged[:, column].any():
            value = float(scores[i, column])
            found[name] = None if math.isnan(value) else value
    return found


def divergence_of(row: Mapping[str, Any], job: Job, temperature: float) -> float | None:
    """``log q - log pi_0`` of a row's tokens in nats, where books say it; its mean estimates ``KL(q, pi_0)``.

    ``q`` is the decoder's law before truncation. Known is it of the reference (0), of one attribute alone at strength
    1, whose ratio it is, and of the sum that is never reset: ``log sum_i alpha_i r_i``, strengths 1. Not of one that
    was told, of texts that a judge has chosen, of products, whose normaliser is not on record, of attributes with
    references of their own, nor at another temperature than the bare reference is measured at.

    Args:
        temperature: that one.
    """
    chosen = job.accept is not None  # of the texts that pass the law is another
    if chosen or row["system"] is not None or job.reference_places() or job.decoder.temperature != temperature:
        return None
    weights, ratios = row["weights"], row["log_ratios"]
    if row["decoder"] == REFERENCE:
        return 0.0
    facts = TABLE[row["decoder"]]
    if not facts.exact or not weights or any(strength != 1 for strength in row["strengths"]):
        return None
    if len(weights) == 1:
        return float(ratios[0])
    target = facts.target or job.decoder.aggregate
    if target in ("sum", "routed") and job.decoder.horizon is None:
        return float(np.logaddexp.reduce(np.log(weights) + np.array(ratios)))
    return None


Unit = tuple[str, str]  # persona and prompt


def by_unit(texts: Sequence[Text]) -> dict[Unit, list[float]]:
    """Scores of the texts of each persona and prompt; without those that are unscored."""
    found: dict[Unit, list[float]] = {}
    for text in texts:
        if text.score is not None:
            found.setdefault((text.persona, text.prompt), []).append(text.score)
    return found


@dataclass(frozen=True)
class Found:
    """What is known of an arm: its place, its texts, and of its measures those that decide."""

    task: str
    point: Point
    written: Written
    score: float | None
    joint: float | None
    perplexity: float
