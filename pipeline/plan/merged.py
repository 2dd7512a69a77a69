"""Which personas of a job come to one and the same row, or bear one and the same name, known without a model.

A row's id knows of a persona what its texts depend on and nothing else (:func:`pipeline.plan.cells.resolved`): two
personas that differ in nothing else would be written once, under one of their names.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from mpg.settings import TABLE
from personas import Persona, Prompt
from personas.attributes import REFERENCE
from personas.words import show
from pipeline.job.errors import Problem
from pipeline.job.model import Job
from pipeline.job.persona_fields import ExplicitPersonas, FilePersonas
from pipeline.plan.cells import resolved, row_key
from pipeline.plan.sources import decoder_settings
from pipeline.plan.systems import Systems

Pair = tuple[int, int]  # of places in the list of personas, the earlier first


@dataclass(frozen=True)
class Texts:
    """What a job's grid comes to.

    Attributes:
        prompts, personas, samples: that differ in something a text depends on.
        problems: personas that can't be told apart, a line each.
        note: where no persona is read, and that is meant.
    """

    prompts: int
    personas: int
    samples: int
    problems: tuple[Problem, ...] = ()
    note: str | None = None

    @property
    def n(self) -> int:
        """How many texts a run plans; with ``accept``, at first."""
        return self.prompts * self.personas * self.samples


def texts_of(job: Job, prompts: Iterable[Prompt] = ()) -> Texts:
    """Count what a run will plan, and say which personas it would merge."""
    settings, personas = decoder_settings(job), job.build_personas()
    systems = Systems.of(job.described_attributes(), job.model.system, job.decoder.wording)
    rows = [row_key(resolved(persona, settings, systems)) for persona in personas]
    n_rows, problems, note = len(set(rows)), [], None
    if not settings.facts.weighted:
        if len(personas) > 1 or not personas[0].is_control:
            n = len(personas)
            note = f"decoder {settings.name!r} reads no persona: the {n} of this job come to one, {REFERENCE!r}"
    else:
        problems = [*_same_names(job, personas), *_same_rows(job, personas, rows)]
    return Texts(
        prompts=len({prompt.messages for prompt in prompts}),
        personas=n_rows,
        samples=job.samples_per_cell if job.accept is None else job.accept.rows_per_cell,
        problems=tuple(problems),
        note=note,
    )


def _same_names(job: Job, personas: Sequence[Persona]) -> list[Problem]:
    names = [unicodedata.normalize("NFC", " ".join(each.name.split())) for each in personas]
    if "" in names:
        place = names.index("")
        return [Problem(_field(job, place), f"the name {personas[place].name!r} is blank; give one, or leave it out")]
    pairs = _twins(names)
    if not pairs:
        return []
    one, other = (personas[i] for i in pairs[0])
    if _entry(job, pairs[0][0]) == _entry(job, pairs[0][1]):
        field, remedy = "personas.strengths", "give strengths that differ in their first six digits"
        what = f"{show(list(job.personas.strengths))} make two personas named {one.name!r}"
    elif one.name == other.name:
        field, what, remedy = _field(job, pairs[0][1]), f"two personas are named {one.name!r}", "give another name"
    else:
        field, remedy = _field(job, pairs[0][1]), "give another name"
        what = f"the names {one.name!r} and {other.name!r} look the same"
    return [Problem(field, f"{what}; {remedy}{_more(pairs)}")]


def _same_rows(job: Job, personas: Sequence[Persona], rows: Sequence[Hashable]) -> list[Problem]:
    pairs = _twins(rows)
    if not pairs:
        return []
    one, other = (personas[i] for i in pairs[0])
    field = _field(job, pairs[0][1])
    unread = [name for name in one.texts if one.texts[name] != other.texts[name]]
    if unread:
        why = f"no model reads their {' and '.join(unread)}"
        remedy = f"remove one, or let model.system or an attribute's system name {{{unread[0]}}}"
    elif one.strengths != other.strengths:
        reads = "strength" in (TABLE[job.decoder.name].text_depends_on or ())
        why = "their strengths are the same where they have weight" if reads else "the decoder reads no strength"
        remedy = "remove one"
        if _entry(job, pairs[0][0]) == _entry(job, pairs[0][1]):
            field, remedy = "personas.strengths", "give one at most"
    else:
        why, remedy = "weights, strengths and texts are the same", "remove one, or raise samples_per_cell"
    return [Problem(field, f"{one.name!r} and {other.name!r} come to the same texts: {why}; {remedy}{_more(pairs)}")]


def _twins(keys: Sequence[Hashable]) -> list[Pair]:
    """Those whose key came before, with the first that had it."""
    first: dict[Hashable, int] = {}
    return [(first[key], i) for i, key in enumerate(keys) if first.setdefault(key, i) != i]


def _entry(job: Job, place: int) -> int:
    """The number of the persona as the job names it, whatever its strengths; -1: the control."""
    place -= job.personas.control
    return place // max(1, len(job.personas.strengths)) if place >= 0 else -1


def _field(job: Job, place: int) -> str:
    if isinstance(job.personas, ExplicitPersonas):
        return f"personas.weights[{_entry(job, place)}]"
    return "personas.file" if isinstance(job.personas, FilePersonas) else "personas"


def _more(pairs: Sequence[Pair]) -> str:
    return f" (and {len(pairs) - 1} more)" if len(pairs) > 1 else ""
