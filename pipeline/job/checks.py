"""What a well-formed job file may still have wrong: unknown names, weights that do not fit, missing files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mpg.settings import LEAST_TEMPERATURE, MOST_STRENGTH, TABLE, not_greedy, not_told
from personas import weights as grids
from personas.attributes import REFERENCE, WEIGHT_TOLERANCE, Weights
from personas.files import PersonaError
from personas.profiles import placeholders
from personas.prompts import PromptError
from personas.words import show
from pipeline.job.deadline import is_past
from pipeline.job.errors import Problem, did_you_mean
from pipeline.job.fields import MAX_CELLS, MAX_PERSONAS, AttributeSpec
from pipeline.job.judge_checks import judge_problems
from pipeline.job.judge_fields import OpenAIJudge
from pipeline.job.persona_fields import (
    CoverPersonas,
    DirichletPersonas,
    ExplicitPersonas,
    FilePersonas,
    MbtiPersonas,
    SimplexPersonas,
)
from pipeline.store.places import expanded, is_url, url_problem

if TYPE_CHECKING:
    from pipeline.job.model import Job

# Models that `mpg.models.embedded` knows; repeated here because a job file is checked without mpg.
EMBEDDED_MODELS = ("embedded/smollm2-135m-instruct",)
# What the Hub takes as an id: `name` or `owner/name`.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?")


def problems_in(job: Job) -> Iterator[Problem]:
    """All that is wrong between the fields of a job and with the files that it names."""
    found = [*_attribute_problems(job), *_persona_problems(job)]
    yield from found or _text_problems(job)
    if not found:
        yield from judge_problems(job)
    kinds = [judge.kind for judge in job.judges]
    for index, kind in enumerate(kinds):
        if kind in kinds[:index]:
            yield Problem(f"judges[{index}]", f"{kind!r} is judges[{kinds.index(kind)}] already; remove one")
    wrong = not_told(job.decoder.name, job.decoder.tell)
    if wrong is not None:
        yield Problem("decoder.tell", f"{job.decoder.tell!r} {wrong}")
    yield from _temperature_problems(job)
    yield from _horizon_problems(job)
    yield from _limit_problems(job)
    if job.split is not None:
        for name, ends in (job.split.region or {}).items():
            if name not in job.attribute_names:
                yield _stranger(f"split.region.{name}", ends, name, job)
    yield from _place_problems(job)


def size_problems(job: Job, n_prompts: int) -> Iterator[Problem]:
    """Whether the job plans more texts than can be held; nothing is built for it."""
    samples = job.samples_per_cell if job.accept is None else job.accept.rows_per_cell
    total = n_prompts * job.n_personas * samples
    if total <= MAX_CELLS:
        return
    kind = job.personas.kind
    fields = {"simplex": "personas.steps", "dirichlet": "personas.n", "cover": "personas.n", "file": "personas.file"}
    of_samples = "samples_per_cell" if job.accept is None else "accept.rows_per_cell"
    factors = {of_samples: samples, fields.get(kind, "personas"): job.n_personas, "prompts.limit": n_prompts}
    field = max(factors, key=lambda name: factors[name])
    how = f"{n_prompts:,} prompts x {job.n_personas:,} personas x {samples:,} samples"
    remedy = "lower it, or split the job into several"
    yield Problem(field, f"{factors[field]:,} makes {total:,} texts ({how}), more than {MAX_CELLS:,}; {remedy}")


def _temperature_problems(job: Job) -> Iterator[Problem]:
    """Temperatures that a decoder does not have, and texts that would be written twice, being greedy."""
    temperature, again = job.decoder.temperature, "is the same text again at decoder.temperature 0 (greedy)"
    if 0 < temperature < LEAST_TEMPERATURE:
        yield Problem("decoder.temperature", f"{temperature:g} must be 0 (greedy) or at least {LEAST_TEMPERATURE:g}")
    if temperature != 0:
        return
    if not TABLE[job.decoder.name].exact:
        yield Problem("decoder.temperature", f"{temperature:g} {not_greedy(job.decoder.name)}")
    remedy = "make it 1, or raise decoder.temperature"
    if job.accept is None and job.samples_per_cell > 1:
        yield Problem("samples_per_cell", f"{job.samples_per_cell}: each sample {again}; {remedy}")
    if job.accept is not None and job.accept.max_candidates > 1:
        yield Problem("accept.max_candidates", f"{job.accept.max_candidates}: each candidate {again}; {remedy}")


def _horizon_problems(job: Job) -> Iterator[Problem]:
    """A horizon without an aggregate: files that have it so are older than the default, and mean the sum."""
    decoder, given = job.decoder, job.decoder.model_fields_set
    if "horizon" in given and "aggregate" not in given and TABLE[decoder.name].target is None:
        what = f"{show(decoder.horizon)} is of the sum, and the product is the default"
        yield Problem("decoder.horizon", f"{what}; add aggregate: sum, or leave it out")


def _limit_problems(job: Job) -> Iterator[Problem]:
    priced = [
        judge for judge in job.judges if isinstance(judge, OpenAIJudge) and judge.prompt_price + judge.completion_price
    ]
    if job.budget is not None and job.device_price == 0 and not priced:
        remedy = "needs device_price, or a judge with prices, to know what the run costs; give one"
        yield Problem("budget", f"{job.budget:g} {remedy}")
    if job.deadline is not None and is_past(job.deadline, datetime.now()):
        yield Problem("deadline", f"{job.deadline!r} has passed; give a later one, or a duration")
    if job.accept is None:
        return
    if job.samples_per_cell != 1:
        remedy = "has no meaning beside accept, which draws as many as it needs; remove it"
        yield Problem("samples_per_cell", f"{job.samples_per_cell} {remedy}")
    if not TABLE[job.decoder.name].weighted:
        yield Problem(
            "accept", f"decoder {job.decoder.name!r} gives no persona's texts, which could pass or not; remove one"
        )


def _attribute_problems(job: Job) -> Iterator[Problem]:
    shipped = job.shipped_names
    seen: dict[str, int] = {}
    for index, each in enumerate(job.attributes):
        field = f"attributes[{index}]"
        if each.name in seen:
            yield Problem(field, f"{each.name!r} is attributes[{seen[each.name]}] already; remove or rename it")
            continue
        seen[each.name] = index
        if each.adapter is None and each.name not in shipped:
            known = f"choose from {', '.join(shipped)} or" if shipped else "none is shipped here yet,"
            yield Problem(field, f"{each.name!r} is not a shipped attribute; {known} give {{name, adapter}}")
        yield from _pin_problems(job, field, each)
        if each.adapter is not None:
            kinds = ["/".join(filter(None, (each.subfolder, name))) for name in ("adapter_config.json", "config.json")]
            yield from _folder_problems(job, f"{field}.adapter", each.adapter, *kinds)
            place = Path(job.resolve(each.adapter))
            if TABLE[job.decoder.name].soup and (place / kinds[1]).exists() and not (place / kinds[0]).exists():
                remedy = "is a whole model, and decoder 'soup' adds up adapters over one; use mod or scr-exact"
                yield Problem(f"{field}.adapter", f"{each.adapter!r} {remedy}")
        if each.reference is not None and TABLE[job.decoder.name].soup:
            remedy = "has no place in decoder 'soup', which adds up adapters over one model; use mod or scr-exact"
            yield Problem(f"{field}.reference", f"{each.reference!r} {remedy}")
        if each.reference is not None:
            yield from _folder_problems(job, f"{field}.reference", each.reference)
    facts = TABLE[job.decoder.name]
    teller = "decoder 'prompting'" if facts.told else f"decoder.tell {job.decoder.tell!r}"
    tells = facts.told or (facts.weighted and job.decoder.tell != "none")
    for index, described in enumerate(job.described_attributes()):
        if tells and not described.description:
            remedy = f"needs a description, which {teller} puts into the prompt; give one"
            yield Problem(f"attributes[{index}].description", f"{described.name!r} {remedy}")
        if TABLE[job.decoder.name].soup and described.system is not None:
            remedy = "reads a prompt of its own, and decoder 'soup' is one model; use mod or scr-exact"
            yield Problem(f"attributes[{index}].system", f"{described.name!r} {remedy}")
    if isinstance(job.decoder.strength, Mapping):
        for name, strength in job.decoder.strength.items():
            if name not in seen:
                yield _stranger(f"decoder.strength.{name}", strength, name, job)


def _pin_problems(job: Job, field: str, each: AttributeSpec) -> Iterator[Problem]:
    """Revisions of what is not on the Hub, and subfolders that lead nowhere."""
    pinned = (
        ("revision", each.revision, "adapter", each.adapter),
        ("subfolder", each.subfolder, "adapter", each.adapter),
        ("reference_revision", each.reference_revision, "reference", each.reference),
    )
    for name, value, of, place in pinned:
        if value is None:
            continue
        if place is None:
            yield Problem(f"{field}.{name}", f"{value!r} is of no {of}, as none is named; name one, or remove it")
        elif name == "subfolder":
            if Path(value).is_absolute() or ".." in Path(value).parts:
                yield Problem(f"{field}.{name}", f"{value!r} leads out of {place!r}; give a path inside it")
        elif Path(job.resolve(place)).exists():
            yield Problem(f"{field}.{name}", f"{value!r} is a revision on the Hub, and {place!r} a folder; remove it")


def _folder_problems(job: Job, field: str, place: str, *needed: str) -> Iterator[Problem]:
    """What is wrong with a folder or Hub id; ``needed``: files of which one must be there."""
    resolved = Path(job.resolve(place))
    if is_url(place) and not resolved.exists():
        yield Problem(field, f"{place!r}: {url_problem(place) or 'nothing can be fetched from there'}; check the place")
    elif not resolved.exists():
        if not HUB_ID.fullmatch(place):
            yield Problem(field, f"{place!r} is no folder in {str(job.folder)!r}; give a folder or a Hub id")
    elif not resolved.is_dir() or not any((resolved / name).exists() for name in needed or ("",)):
        what = f"no folder with {' or '.join(needed)}" if needed else "no folder"
        yield Problem(field, f"{place!r} is {what}; give one, or a Hub id")


def _stranger(field: str, value: object, name: str, job: Job) -> Problem:
    known = ", ".join(job.attribute_names)
    return Problem(field, f"{show(value)} is for {name!r}, not an attribute of this job ({known}); add it there")


def _persona_problems(job: Job) -> Iterator[Problem]:
    found = list(_explicit_problems(job, job.personas) if isinstance(job.personas, ExplicitPersonas) else ())
    if isinstance(job.personas, MbtiPersonas):
        missing = [pole for pole in job.personas.type if pole not in job.attribute_names]
        if missing:
            text = f"{job.personas.type!r} needs {', '.join(missing)}; add to attributes"
            found.append(Problem("personas.type", text))
    if isinstance(job.personas, SimplexPersonas) and job.n_personas > MAX_PERSONAS:
        size = f"makes {job.n_personas:,} personas, more than {MAX_PERSONAS:,}"
        remedy = "lower it, or draw some with kind dirichlet"
        found.append(Problem("personas.steps", f"{job.personas.steps} {size}; {remedy}"))
    if isinstance(job.personas, FilePersonas):
        where = f"{job.personas.file!r} (in {str(job.folder)!r})"
        try:
            count = job.n_personas
        except PersonaError as error:
            found.append(Problem("personas.file", f"{where}: {error.problem}"))
        else:
            found += _strong_problems(where, job)
            if count > MAX_PERSONAS:
                remedy = "split it into several jobs"
                found.append(Problem("personas.file", f"{where}: {count:,}, more than {MAX_PERSONAS:,}; {remedy}"))
    strengths = job.personas.strengths
    if len(set(strengths)) != len(strengths):
        found.append(Problem("personas.strengths", f"{show(list(strengths))} has one twice; remove it"))
    if not found and job.n_personas - job.personas.control > MAX_PERSONAS:
        size = f"makes {job.n_personas:,} personas, more than {MAX_PERSONAS:,}"
        found.append(Problem("personas.strengths", f"{show(list(strengths))} {size}; give fewer, or split the job"))
    if not found and isinstance(job.personas, DirichletPersonas | CoverPersonas):
        try:
            job.build_personas()
        except ValueError as error:
            found.append(Problem("personas.n", str(error).removeprefix("n: ")))
    yield from found


def _strong_problems(where: str, job: Job) -> Iterator[Problem]:
    """The first strength in a file of personas that no text could need; those of the job file are fields of it."""
    for persona in job.build_personas():
        for name, strength in persona.strengths.items():
            if strength > MOST_STRENGTH:
                text = f"{persona.name!r}: the strength of {name}, {strength:g}, is out of range"
                yield Problem("personas.file", f"{where}: {text}; give one above 0, at most {MOST_STRENGTH:g}")
                return


def _text_problems(job: Job) -> Iterator[Problem]:
    """Texts that a model is to read and a persona does not have; the first persona of each."""
    systems = {each.name: each.system for each in job.described_attributes() if each.system is not None}
    missing: dict[tuple[str, str], str] = {}
    for persona in job.build_personas():
        named = {name: systems[name] for name in persona.active if name in systems}
        if job.model.system is not None and not persona.is_control:
            named["the reference (model.system)"] = job.model.system
        for reader, template in named.items():
            for text in sorted(placeholders(template)):
                if not persona.texts[text]:
                    missing.setdefault((reader, text), persona.name)
    for (reader, text), name in missing.items():
        remedy = f"give the persona one, or personas.{text} for all"
        yield Problem(f"personas.{text}", f"{name!r} has none, and {reader} reads it; {remedy}")


def _explicit_problems(job: Job, personas: ExplicitPersonas) -> Iterator[Problem]:
    names: dict[str, int] = {}
    vectors: dict[tuple[Weights, Mapping[str, float], str, str], int] = {}
    for index, each in enumerate(personas.weights):
        field = f"personas.weights[{index}]"
        strangers = [name for name in each.weights if name not in job.attribute_names]
        for name in strangers:
            yield _stranger(f"{field}.weights.{name}", each.weights[name], name, job)
        for name in each.strengths:
            if name not in job.attribute_names:
                strangers.append(name)
                yield _stranger(f"{field}.strengths.{name}", each.strengths[name], name, job)
        total = math.fsum(each.weights.values())
        if personas.normalize and not total > 0:
            yield Problem(field, f"{show(each.weights)} sums to {total:.10g}; give at least one weight above 0")
        elif not personas.normalize and abs(total - 1) > WEIGHT_TOLERANCE:
            remedy = "make it 1, or set personas.normalize: true"
            yield Problem(field, f"{show(each.weights)} sums to {total:.10g}, not to 1; {remedy}")
        elif not strangers:
            built = grids.explicit(
                job.attribute_names,
                each.weights,
                name=each.name,
                normalize=personas.normalize,
                strengths=each.strengths,
            )
            vector = Weights(built.active), built.strengths, each.profile or "", each.personality or ""
            if vector in vectors:
                remedy = "remove one, or raise samples_per_cell"
                yield Problem(field, f"{show(each.weights)} is personas.weights[{vectors[vector]}] again; {remedy}")
            elif built.name in names or (personas.control and built.name == REFERENCE):
                yield Problem(field, f"the name {built.name!r} is taken; give another name")
            vectors.setdefault(vector, index)
            names.setdefault(built.name, index)


def _place_problems(job: Job) -> Iterator[Problem]:
    """What is wrong with the places that a job names: model, prompts, output."""
    if job.model.id.startswith("embedded/"):
        if job.model.id not in EMBEDDED_MODELS:
            hint = did_you_mean(job.model.id, EMBEDDED_MODELS)
            yield Problem("model.id", f"{job.model.id!r} is not an embedded model; {hint}")
    else:
        yield from _folder_problems(job, "model.id", job.model.id, "config.json")
    if job.model.revision is not None and Path(job.resolve(job.model.id)).exists():
        what = f"is a revision on the Hub, and {job.model.id!r} a folder; remove it"
        yield Problem("model.revision", f"{job.model.revision!r} {what}")
    yield from _prompt_problems(job)
    if job.output.startswith("~") and str(expanded(job.output)).startswith("~"):
        yield Problem("output", f"{job.output!r}: nobody of that name has a home here; write the path")
    if job.output.startswith("$"):
        yield Problem(
            "output", f"{job.output!r}: variables are not filled in; write the path, or give it with --output"
        )
    if "\0" in job.output or any(len(part.encode()) > 255 for part in Path(job.output).parts):
        yield Problem("output", f"{show(job.output)} is no name that a folder can have; give another")
        return
    problem = url_problem(job.output, writes=True) if is_url(job.output) else None
    if problem is not None:
        yield Problem("output", f"{job.output!r}: {problem}")
    elif job.output_folder.is_file():
        yield Problem("output", f"{job.output!r} is a file; name a folder")


def _prompt_problems(job: Job) -> Iterator[Problem]:
    """What is wrong with a file of prompts; of a data set, what is known without opening it."""
    source = job.prompts
    if source.file is not None:
        try:
            job.read_prompts()
        except PromptError as error:
            where = f"{source.file!r} (in {str(job.folder)!r})"
            remedy = "; check the path" if error.problem == "no such file" else ""
            yield Problem("prompts.file", f"{where}: {error.problem}{remedy}")
    elif source.dataset is not None:
        if Path(job.resolve(source.dataset)).is_file():
            yield Problem("prompts.dataset", f"{source.dataset!r} is a file; give it as prompts.file")
        else:
            yield from _folder_problems(job, "prompts.dataset", source.dataset)
        if source.revision is not None and Path(job.resolve(source.dataset)).exists():
            yield Problem(
                "prompts.revision", f"{source.revision!r} is for a data set of the Hub, not a folder; remove it"
            )
