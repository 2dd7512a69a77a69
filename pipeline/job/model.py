"""A job as it was checked: which personas write to which prompts, how, and where the corpus goes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from personas import weights as grids
from personas.attributes import Attribute, Persona, mbti_type
from personas.files import load_personas
from personas.prompts import Prompt, PromptError, load_prompts_dataset, load_prompts_jsonl
from personas.records import Grid
from pipeline.job.adapters import attribute_of, resolved
from pipeline.job.deadline import Deadline
from pipeline.job.fields import (
    Accept,
    AttributeEntry,
    ClassifierJudge,
    CoverPersonas,
    Decoder,
    DirichletPersonas,
    ExplicitPersonas,
    FilePersonas,
    Float,
    Frozen,
    Int,
    Judges,
    MbtiPersonas,
    Model,
    OneHotPersonas,
    PersonaMatchJudge,
    Personas,
    PromptSource,
    SimplexPersonas,
    Text,
)

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
    prompts: PromptSource = Field(description="{file: prompts.jsonl} or {dataset: ..., split, column}.")
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
    rows_per_shard: Int = Field(64, ge=1, description="Rows in one unit of work.")
    threads: Annotated[Int, Field(ge=1)] | None = Field(
        None,
        description="Threads of a decoding pass, on which last digits of measured columns may depend; null: the "
        "machine's cores, shared out among the workers of the data set's first run.",
    )
    max_rejected_fraction: Float = Field(
        0.1, ge=0, le=1, description="Share of rejected rows above which the job stops."
    )
    max_unscored_fraction: Float = Field(
        0.05, ge=0, le=1, description="Share of judgments without a score above which the job is not done."
    )
    accept: Accept | None = Field(
        None, description="{min_score, rows_per_cell, max_candidates}: draw texts until enough pass the judges."
    )
    deadline: Deadline | None = Field(
        None, description="When to stop cleanly: a duration from the start (6h) or a time (2026-11-26T07:00)."
    )
    budget: Annotated[Float, Field(gt=0)] | None = Field(
        None,
        description="What the data set may cost, all its runs together, in the currency of its prices; then it stops.",
    )
    device_price: Float = Field(0.0, ge=0, description="Of one device (a worker's) for an hour.")
    seed: Int = Field(0, ge=0, description="Of the run; with a row's id it gives the row's seed.")
    output: Text = Field(description="Folder of the data set, relative to the current directory.")

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
    def shipped_names(self) -> tuple[str, ...]:
        """Attributes that this job may name without an adapter."""
        return tuple(self._shipped)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names in the job's order: the order of every weight vector."""
        return tuple(each.name for each in self.attributes)

    def described_attributes(self) -> tuple[Attribute, ...]:
        """The attributes as the job describes them, else as their adapters' cards do, or their well-known names."""
        described = []
        for each in self.attributes:
            known = attribute_of(each.name, None if each.adapter is None else self.resolve(each.adapter))
            given = {name: getattr(each, name) for name in ("description", "opposite", "system")}
            described.append(replace(known, **{name: value for name, value in given.items() if value is not None}))
        return tuple(described)

    def resolve(self, place: str) -> str:
        """A model's or data set's place: an absolute path if such a folder exists, else as it is."""
        return resolved(self._folder, place)

    def adapter_places(self) -> dict[str, str]:
        """Attribute -> absolute folder or Hub id of its adapter. Raises KeyError: none is shipped."""
        return {
            each.name: str(self._shipped[each.name]) if each.adapter is None else self.resolve(each.adapter)
            for each in self.attributes
        }

    def reference_places(self) -> dict[str, str]:
        """Attribute -> absolute folder or Hub id, for attributes with a reference of their own."""
        return {each.name: self.resolve(each.reference) for each in self.attributes if each.reference}

    def load_prompts(self) -> list[Prompt]:
        """The prompts, read now. Raises PromptError, see `personas.prompts`."""
        source = self.prompts
        last = None if source.limit is None else source.skip + source.limit
        if source.file is not None:
            found = load_prompts_jsonl(self._folder / Path(source.file).expanduser(), last)
        else:
            assert source.dataset is not None
            found = load_prompts_dataset(self.resolve(source.dataset), source.split, source.column, last)
        if len(found) <= source.skip:
            raise PromptError(
                source.file or str(source.dataset), f"holds {len(found)} prompts, and skip leaves out all"
            )
        return found[source.skip :]

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
        path = self._folder / Path(self.personas.file).expanduser()
        return load_personas(path, self.attribute_names, normalize=self.personas.normalize)

    def build_personas(self) -> tuple[Persona, ...]:
        """The personas, the control first; each weighs every attribute of the job, zeros included."""
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
        """Names what there is to do, whatever its limits and prices are and wherever it goes."""
        work = self.model_dump_json(exclude={"deadline", "budget", "device_price", "output", "max_unscored_fraction"})
        return hashlib.sha256(work.encode()).hexdigest()[:16]

    def n_cells(self, n_prompts: int) -> int:
        """How many texts the job writes for so many prompts."""
        return n_prompts * self.n_personas * self.samples_per_cell

    def cells(self, prompts: Sequence[Prompt]) -> Grid:
        """The grid prompt x persona x sample, prompt by prompt; cells are made when asked for."""
        return Grid(tuple(prompts), self.build_personas(), self.samples_per_cell)


def shipped_adapters(folder: Path | None = None) -> dict[str, Path]:
    """Name -> folder of the adapters that come with the project, sorted by name.

    A folder ships an adapter if it has an ``adapter_config.json``.
    """
    root = SHIPPED_ADAPTERS if folder is None else folder
    return {path.parent.name: path.parent for path in sorted(root.glob("*/adapter_config.json"))}


def job_schema() -> dict[str, Any]:
    """The JSON schema of a job file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Job.model_json_schema()}
