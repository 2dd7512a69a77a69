"""A job as it was checked: which personas write to which prompts, how, and where the corpus goes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from personas import weights as grids
from personas.attributes import Attribute, Persona, mbti_type
from personas.data_sets import DataSet
from personas.files import PersonaError, load_personas
from personas.prompts import NO_PROMPT, Prompt, PromptError, PromptTable, read_prompts, read_prompts_of
from personas.records import Grid
from pipeline.job.adapters import attribute_of, resolved
from pipeline.job.card_section import Card
from pipeline.job.deadline import Deadline
from pipeline.job.fields import Accept, AttributeEntry, Decoder, Float, Frozen, Int, Model, Text
from pipeline.job.gate_section import Gate
from pipeline.job.interval import Interval, day_of, seed_of
from pipeline.job.judge_fields import ClassifierJudge, Judges, PersonaMatchJudge
from pipeline.job.persona_fields import (
    CoverPersonas,
    DirichletPersonas,
    ExplicitPersonas,
    FilePersonas,
    MbtiPersonas,
    OneHotPersonas,
    Personas,
    SimplexPersonas,
)
from pipeline.job.prompt_source import PromptSource
from pipeline.job.recorded import recorded
from pipeline.job.split import Split
from pipeline.store.copies import here
from pipeline.store.places import is_local, joined

SHIPPED_ADAPTERS = Path(__file__).parents[2] / "mpg" / "adapters"


class Job(Frozen):
    """A job: which personas write to which prompts, how, and where the corpus goes."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Name of the job and of its data set: letters, digits, and . _ - inside.",
    )
    model: Model = Field(description="The reference model, e.g. {id: embedded/smollm2-135m-instruct}.")
    attributes: tuple[AttributeEntry, ...] = Field(
        min_length=1,
        description="Shipped adapters by name, or {name, adapter, reference, description, opposite, system}.",
    )
    personas: Personas = Field(
        discriminator="kind", description="The weight vectors, by kind, e.g. {kind: simplex, steps: 2}."
    )
    prompts: PromptSource = Field(
        description="{file: prompts.jsonl} or {dataset: ..., split}, with column, id_column, ...: see there."
    )
    samples_per_cell: Int = Field(1, ge=1, description="Texts for each prompt and persona.")
    decoder: Decoder = Field(default_factory=lambda: Decoder.model_validate({}), description="How to decode.")
    judges: tuple[Judges, ...] = Field(
        (ClassifierJudge(kind="classifier"), PersonaMatchJudge(kind="persona-match")),
        description="What scores the texts, each what it knows; an empty list: nothing.",
    )
    panel: Literal["mean", "median", "majority"] = Field(
        "mean", description="How several independent judges' scores of a text become one in reports."
    )
    batch_size: Int = Field(32, ge=1, description="Rows decoded together by one worker; never changes a row's text.")
    rows_per_shard: Annotated[Int, Field(ge=1)] | None = Field(
        None,
        description="Rows in one unit of work; null: decided once for a data set, by its size, batch_size and workers.",
    )
    threads: Annotated[Int, Field(ge=1)] | None = Field(
        None,
        description="Threads of a decoding pass, on which last digits of measured columns may depend; null: the "
        "machine's cores, shared out among the workers of the data set's first run.",
    )
    max_rejected_fraction: Float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of rejected rows above which the job stops; of the prompts' rows that can't be used, too.",
    )
    control_tokens: Literal["text", "reject", "allow"] = Field(
        "text",
        description="What becomes of the model's control tokens (<|im_end|>) in the text of a prompt, system message "
        "or persona: read as the text that they are; the row rejected; or read as control tokens.",
    )
    max_unscored_fraction: Float = Field(
        0.05, ge=0, le=1, description="Share of judgments without a score above which the job is not done."
    )
    accept: Accept | None = Field(
        None, description="{min_score, rows_per_cell, max_candidates}: draw texts until enough pass the judges."
    )
    split: Split | None = Field(
        None,
        description="{by: prompt, test_fraction: 0.1} or {by: weights, region: {E: [0.4, 0.6]}}: which texts are the "
        "data set's test split; null: all are train. May be changed later: no text is made anew.",
    )
    deadline: Deadline | None = Field(
        None, description="When to stop cleanly: a duration from the start (6h) or a time (2026-11-26T07:00)."
    )
    budget: Annotated[Float, Field(gt=0)] | None = Field(
        None,
        description="What the data set may cost, all its runs together, in the currency of its prices; then it stops.",
    )
    device_price: Float = Field(0.0, ge=0, description="Of one device (a worker's) for an hour.")
    card: Card = Field(
        default_factory=lambda: Card.model_validate({}),
        description="{template, pretty_name, language, tags, license}: what stands on the data set's card.",
    )
    gate: Gate = Field(
        default_factory=lambda: Gate.model_validate({}),
        description="What `mpg gate` lets pass: {min_adherence, max_perplexity_rise, ...}; no text depends on it.",
    )
    seed: Int = Field(0, ge=0, description="Of the run; with a row's id it gives the row's seed.")
    interval: Interval | None = Field(
        None,
        description="Start of the interval that a scheduled run is of (2026-11-23, or a date and time): part of the "
        "run's seed, the day that a chat template reads, and {interval} in output and prompts; null: none.",
    )
    output: Text = Field(
        description="Folder of the data set, relative to the job file's folder, or s3://, gs://; {interval} in it is "
        "the job's interval."
    )

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _shipped: dict[str, Path] = PrivateAttr(default_factory=lambda: shipped_adapters())

    def model_post_init(self, context: Any, /) -> None:
        """Take the job file's folder and the shipped adapters from the validation's context."""
        if context:
            self._folder, self._shipped = context["folder"], context["shipped"]

    @property
    def folder(self) -> Path:
        """The job file's folder, absolute."""
        return self._folder

    @property
    def output_folder(self) -> Path:
        """The data set's folder, absolute."""
        path = joined(self._folder, self.output)
        return path.resolve() if is_local(path) and ".." in path.parts else path

    @property
    def run_seed(self) -> int:
        """By which rows get their ids and seeds: of the job's seed and its interval."""
        return seed_of(self.seed, self.interval)

    @property
    def day(self) -> str | None:
        """That a chat template reads: the model's ``date``, else that of the interval; ``None``: the default."""
        return self.model.date or (None if self.interval is None else day_of(self.interval))

    @property
    def shipped_names(self) -> tuple[str, ...]:
        """Attributes that this job may name without an adapter."""
        return tuple(self._shipped)

    def changed(self, **fields: Any) -> Job:
        """The same job with some fields otherwise, as a file would give them. Raises ValidationError."""
        context = {"folder": self._folder, "shipped": self._shipped}
        return Job.model_validate(self.model_dump(mode="json") | fields, context=context)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names in the job's order: the order of every weight vector."""
        return tuple(each.name for each in self.attributes)

    def described_attributes(self) -> tuple[Attribute, ...]:
        """The attributes as the job describes them, else as their adapters' cards do, or their well-known names."""
        described = []
        for each in self.attributes:
            place = None if each.adapter is None else self.resolve(each.adapter)
            known = attribute_of(each.name, place, each.revision, each.subfolder)
            given = {name: getattr(each, name) for name in ("description", "opposite", "system")}
            described.append(replace(known, **{name: value for name, value in given.items() if value is not None}))
        return tuple(described)

    def resolve(self, place: str) -> str:
        """A model's or data set's place: an absolute path if such a folder exists, else as it is."""
        return resolved(self._folder, place)

    def adapter_places(self) -> dict[str, str]:
        """Attribute -> absolute folder (its subfolder) or Hub id of its adapter. Raises KeyError: none is shipped."""
        places = {}
        for each in self.attributes:
            place = str(self._shipped[each.name]) if each.adapter is None else self.resolve(each.adapter)
            inside = each.subfolder is not None and Path(place).is_dir()
            places[each.name] = str(Path(place) / str(each.subfolder)) if inside else place
        return places

    def reference_places(self) -> dict[str, str]:
        """Attribute -> absolute folder or Hub id, for attributes with a reference of their own."""
        return {each.name: self.resolve(each.reference) for each in self.attributes if each.reference}

    def load_prompts(self) -> list[Prompt]:
        """The prompts. Raises PromptError, see :meth:`read_prompts`."""
        return list(self.read_prompts().prompts)

    def read_prompts(self) -> PromptTable:
        """The prompts, and the rows of their source that are none; read once.

        Raises:
            PromptError: the source can't be read (see `personas.prompts`), has no prompt, or more rows that are none
                than ``max_rejected_fraction`` allows.
        """
        return self._prompt_table

    @cached_property
    def _prompt_table(self) -> PromptTable:
        source = self.prompts
        shared: dict[str, Any] = {
            "column": source.column,
            "id_column": source.id_column,
            "skip": source.skip,
            "limit": source.limit,
        }
        if source.file is not None:
            place = source.file
            table = read_prompts(_here(self._folder, source.file), encoding=source.encoding, **shared)
        else:
            assert source.dataset is not None
            place = source.dataset
            data = DataSet(
                self.resolve(source.dataset),
                source.split,
                source.config,
                source.data_files,
                source.revision,
                source.streaming,
            )
            table = read_prompts_of(data, **shared)
        n_broken, n = len(table.broken), len(table.prompts) + len(table.broken)
        if n_broken > self.max_rejected_fraction * n:
            first = f"{table.broken[0].place}: {table.broken[0].problem}"
            most = f"more than max_rejected_fraction {self.max_rejected_fraction:g} allows"
            raise PromptError(place, f"{first}; {n_broken} of {n} rows can't be used, {most}")
        if not table.prompts:
            left_out = f"holds {table.skipped} prompts, and skip leaves out all"
            raise PromptError(place, left_out if table.skipped else NO_PROMPT)
        return table

    @property
    def n_personas(self) -> int:
        """How many personas there are, the control included, without building them."""
        match self.personas:
            case ExplicitPersonas(weights=entries):
                n = len(entries)
            case OneHotPersonas():
                n = len(self.attributes)
            case SimplexPersonas(steps=steps):
                n = grids.simplex_size(len(self.attributes), steps)
            case DirichletPersonas(n=n) | CoverPersonas(n=n):
                pass
            case FilePersonas():
                n = len(self._filed_personas)
            case MbtiPersonas():
                n = 1
        return n * max(1, len(self.personas.strengths)) + self.personas.control

    @cached_property
    def _filed_personas(self) -> list[Persona]:
        """The personas of the job's file. Raises PersonaError, see `personas.files`."""
        assert isinstance(self.personas, FilePersonas)
        try:
            path = _here(self._folder, self.personas.file)
        except PromptError as error:
            raise PersonaError(error.source, error.problem) from error
        return load_personas(path, self.attribute_names, normalize=self.personas.normalize)

    def build_personas(self) -> tuple[Persona, ...]:
        """The personas, the control first; each weighs every attribute of the job, zeros included."""
        return self._personas

    @cached_property
    def _personas(self) -> tuple[Persona, ...]:
        names = self.attribute_names
        match self.personas:
            case ExplicitPersonas(weights=entries, normalize=normalize):
                built = [
                    grids.explicit(
                        names,
                        each.weights,
                        name=each.name,
                        normalize=normalize,
                        strengths=each.strengths,
                        profile=each.profile or "",
                        personality=each.personality or "",
                    )
                    for each in entries
                ]
            case OneHotPersonas():
                built = grids.one_hot(names)
            case SimplexPersonas(steps=steps):
                built = grids.simplex_lattice(names, steps)
            case DirichletPersonas(n=n, concentration=concentration, seed=seed):
                built = grids.dirichlet(names, n, concentration, seed)
            case CoverPersonas(n=n, method=method, seed=seed):
                built = grids.cover(names, n, method, seed)
            case FilePersonas():
                built = self._filed_personas
            case MbtiPersonas(type=code):
                built = [grids.explicit(names, mbti_type(code).weights, name=code)]
        shared = {"profile": self.personas.profile or "", "personality": self.personas.personality or ""}
        if any(shared.values()):
            built = [
                replace(
                    each,
                    profile=each.texts["profile"] or shared["profile"],
                    personality=each.texts["personality"] or shared["personality"],
                )
                for each in built
            ]
        if self.personas.strengths:
            built = grids.at_strengths(built, self.personas.strengths)
        return (*([grids.control()] if self.personas.control else []), *built)

    def work_hash(self) -> str:
        """Names what there is to do, whatever its limits and prices are, wherever it goes, in what form."""
        # A deadline is not recorded.
        others = ("budget", "device_price", "max_unscored_fraction", "split", "card", "gate")
        work = {name: value for name, value in recorded(self).items() if name not in others}
        if self.interval is None:  # what came later names nothing anew where it is left out
            del work["interval"]
        for section in (work["prompts"], *work["judges"]):
            section.pop("license", None)
        return hashlib.sha256(json.dumps(work).encode()).hexdigest()[:16]

    def n_cells(self, n_prompts: int) -> int:
        """How many texts the job writes for so many prompts."""
        return n_prompts * self.n_personas * self.samples_per_cell

    def cells(self, prompts: Sequence[Prompt]) -> Grid:
        """The grid prompt x persona x sample, prompt by prompt; cells are made when asked for."""
        return Grid(tuple(prompts), self.build_personas(), self.samples_per_cell)


def _here(folder: Path, place: str) -> Path:
    """A file that a job names, on this machine. Raises PromptError: it is in a store, and can't be had from there."""
    try:
        return here(joined(folder, place))
    except FileNotFoundError as error:
        raise PromptError(place, "no such file") from error
    except (OSError, ValueError) as error:
        raise PromptError(place, f"can't be fetched ({getattr(error, 'strerror', None) or error})") from error


def shipped_adapters(folder: Path | None = None) -> dict[str, Path]:
    """Name -> folder of the adapters that come with the project, sorted by name.

    A folder ships an adapter if it has an ``adapter_config.json``.
    """
    root = SHIPPED_ADAPTERS if folder is None else folder
    return {path.parent.name: path.parent for path in sorted(root.glob("*/adapter_config.json"))}


def job_schema() -> dict[str, Any]:
    """The JSON schema of a job file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Job.model_json_schema()}
