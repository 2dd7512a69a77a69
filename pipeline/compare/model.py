"""The comparison file: one frozen model of it. Tasks and methods are laid over a base job, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from mpg.settings import DECODERS, TABLE
from personas.attributes import REFERENCE
from pipeline.job.fields import AttributeEntry, Bool, Decoder, Float, Frozen, Int, OneStrength, Text
from pipeline.job.model import Job
from pipeline.job.persona_fields import OneHotPersonas, Personas
from pipeline.job.prompt_source import PromptSource
from pipeline.store.places import is_local, joined

# The decoder of one attribute has no rows: it is written as `routing` of all weight on one attribute.
SINGLE = "single"
# What methods are compared on beside each task, where there are several.
ALL_TASKS = "all"

_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Base(Job):
    """What all tasks and methods have in common: a job whose personas, prompts and places the comparison gives."""

    name: str = Field("base", description="Not read: a comparison has a name of its own.")
    personas: Personas = Field(
        OneHotPersonas(kind="one-hot"), discriminator="kind", description="Not read: tasks have them."
    )
    prompts: PromptSource = Field(PromptSource(file="-"), description="Not read: tasks have them.")
    output: Text = Field("-", description="Not read: a comparison has an output of its own.")

    @property
    def shipped(self) -> Mapping[str, Path]:
        """Name -> folder of the adapters that its attributes may name."""
        return self._shipped


class People(Frozen):
    """People whom personas are written as."""

    file: Text = Field(
        description="A table (JSONL, JSON, CSV, TSV, Parquet) with the columns profile and personality, relative to "
        "the comparison file's folder."
    )
    limit: Annotated[Int, Field(ge=1)] | None = Field(None, description="How many at most, from the first; null: all.")


class Task(Frozen):
    """Who is to be written as, and to what."""

    name: _Name = Field(description="Name of the task: letters, digits, and . _ - inside.")
    personas: Personas = Field(discriminator="kind", description="As in a job; without control and strengths.")
    people: People | None = Field(
        None, description="{file, limit}: every persona as each of these people; null: the personas' own texts."
    )
    prompts: PromptSource = Field(
        description="As in a job. A file that is missing, as data beside a clone may be, is named when it is needed."
    )
    stage: Literal["both", "screening", "final"] = Field(
        "both",
        description="screening: methods are chosen by it alone; final: nothing is chosen by it.",
    )

    questionnaires: tuple[Text, ...] = Field(
        (),
        description="Of MBTI types, put in words to the last stage's arms: own (the project's sixty), or files of "
        "items as mpg questionnaire reads them, relative to the comparison file's folder.",
    )
    shown: Int = Field(
        0,
        ge=0,
        description="Texts of each of the last stage's arms that the page shows, with every attribute found or not; of "
        "prompts that may be published.",
    )

    def is_in(self, stage: str) -> bool:
        """Whether it is written in a stage."""
        return self.stage in ("both", stage)


class MethodDecoder(Decoder):
    """What of the base's decoder a method has otherwise."""

    name: Literal[*DECODERS] = Field(  # type: ignore[valid-type]
        "scr-exact",
        description="As in a job; and single: each attribute of a persona alone, one after the other.",
    )


class Selection(Frozen):
    """Texts that a judge lets pass: ``accept`` of a job, for each text that is kept."""

    min_score: Float = Field(ge=0, le=1, description="As in a job's accept.")
    max_candidates: Int = Field(ge=1, description="Most texts to draw, for each that is to be kept.")
    by: tuple[Text, ...] = Field(
        min_length=1,
        description="Kinds of the judges that choose, e.g. [classifier]: they count in no method's score, chosen or "
        "not, so that all are measured by the same others.",
    )


class Method(Frozen):
    """A way to write, at one strength or several."""

    name: _Name = Field(description="Name of the method: letters, digits, and . _ - inside.")
    decoder: MethodDecoder = Field(
        default_factory=lambda: MethodDecoder.model_validate({}),
        description="What it has otherwise than the base's decoder, its name at least; may be left out beside models "
        "and not_scored.",
    )
    attributes: tuple[AttributeEntry, ...] = Field(
        (),
        description="Laid over the job's by name, as {name, adapter, ...}: other adapters that speak for the same, by "
        "folders relative to the comparison file's.",
    )
    models: Mapping[str, Text] = Field(
        default_factory=dict,
        description="Persona -> adapter (or whole model) that was trained for all that it asks for, which writes "
        "alone; judged as the persona. Of tasks of which every persona has one.",
    )
    not_scored: Text | None = Field(
        None, description="Why it is named and not scored: nothing is written by it, and its adapters are not needed."
    )
    strengths: tuple[OneStrength, ...] = Field(
        (), description="Its curve: each is written and measured; an empty list: at decoder.strength alone."
    )
    horizons: tuple[Annotated[Int, Field(ge=1)] | None, ...] = Field(
        (), description="A curve for each, null: none; an empty list: decoder.horizon alone."
    )
    system: Text | None = Field(
        None, description="System message that the reference reads, as model.system of a job; null: the base's."
    )
    accept: Selection | None = Field(
        None, description="{min_score, max_candidates, by}: of its texts those that judges let pass; null: all."
    )
    baseline: Bool = Field(False, description="Whether finalists are compared with it.")

    @model_validator(mode="before")
    @classmethod
    def _decoder_of_models(cls, data: Any) -> Any:
        """Of one model a persona: that model alone."""
        if isinstance(data, Mapping) and data.get("models") and "decoder" not in data:
            return {**data, "decoder": {"name": SINGLE}}
        return data

    @property
    def one_attribute(self) -> bool:
        """Whether it is each attribute alone, one after the other."""
        return self.decoder.name == SINGLE and not self.models

    @property
    def is_bare(self) -> bool:
        """Whether it is the base's reference as it is: told nothing of its own, at the base's settings."""
        return self.decoder.name == REFERENCE and self.decoder.model_fields_set == {"name"} and self.system is None

    @property
    def reads(self) -> tuple[str, ...]:
        """The settings that its texts depend on."""
        facts = TABLE[self.decoder.name]
        return ("strength",) if facts.text_depends_on is None else facts.text_depends_on

    def settings(self) -> dict[str, Any]:
        """The decoder's fields that the file gives, as a job file has them."""
        return self.decoder.model_dump(mode="json", include=set(self.decoder.model_fields_set))


# Stages, in their order.
SCREENING, FINAL = "screening", "final"


class Screening(Frozen):
    """The first stage: all methods at all strengths, on few texts."""

    texts: Int = Field(40, ge=4, description="Of each task, method and strength, at least.")
    prompts: Float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of a task's prompts, from its first, that the screening may use; the rest is the final's, "
        "so that nothing is reported of what it was chosen by.",
    )


class Final(Frozen):
    """The second stage: the best methods and every baseline, on prompts that the screening has not seen."""

    finalists: Int = Field(2, ge=0, description="Methods that are no baselines and go on; 0: there is no final.")
    difference: Float = Field(
        0.05, gt=0, lt=1, description="Smallest paired difference of the mean score that is to be found."
    )
    power: Float = Field(0.8, gt=0, lt=1, description="Probability with which it is to be found.")
    level: Float = Field(0.05, gt=0, lt=1, description="Of all comparisons together: of any false finding (Holm).")
    texts: Annotated[Int, Field(ge=4)] | None = Field(
        None, description="Of each task, method and strength; null: what difference, power and level take."
    )
    most_texts: Int = Field(400, ge=4, description="Never more than so many, whatever they take.")
    perplexity_of: _Name | None = Field(
        None, description="Method whose perplexity bounds that of finalists; null: nothing does."
    )
    perplexity_factor: Float = Field(1.05, gt=0, description="Times that perplexity is the most.")
    known: Bool = Field(
        True, description="Whether arms of the last stage answer the project's questions with known answers, too."
    )


class Comparison(Frozen):
    """A comparison: which methods write what for which tasks, and where the tables go."""

    name: _Name = Field(description="Name of the comparison: letters, digits, and . _ - inside.")
    job: Annotated[Base, BeforeValidator(lambda value: value, json_schema_input_type=str | Base)] = Field(
        description="What all have in common: {model, attributes, decoder, judges, seed, ...} as in a job file, or the "
        "path of one; its name, personas, prompts, samples_per_cell and output are not read."
    )
    tasks: tuple[Task, ...] = Field(min_length=1, description="Who is to be written as, to which prompts.")
    methods: tuple[Method, ...] = Field(min_length=1, description="How; those marked as baseline are compared with.")
    screening: Screening = Field(
        default_factory=lambda: Screening.model_validate({}), description="{texts, prompts}: the first stage."
    )
    final: Final = Field(
        default_factory=lambda: Final.model_validate({}),
        description="{finalists, difference, power, level, texts, most_texts, perplexity_of}: the second stage.",
    )
    output: Text = Field(description="Folder of all data sets and tables, relative to the comparison file's folder.")

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    def model_post_init(self, context: Any, /) -> None:
        """Take the comparison file's folder from the validation's context."""
        if context:
            self._folder = context["here"]

    @property
    def folder(self) -> Path:
        """The comparison file's folder, absolute."""
        return self._folder

    @property
    def output_folder(self) -> Path:
        """Where all goes, absolute."""
        path = joined(self._folder, self.output)
        return path.resolve() if is_local(path) and ".." in path.parts else path

    def tasks_of(self, stage: str) -> list[Task]:
        """The tasks that are written in a stage, in the file's order."""
        return [task for task in self.tasks if task.is_in(stage)]

    @property
    def scored(self) -> tuple[Method, ...]:
        """The methods that write."""
        return tuple(each for each in self.methods if each.not_scored is None)

    @property
    def choosing(self) -> frozenset[str]:
        """Kinds of the judges that let any method's texts pass: they count for none."""
        return frozenset(kind for each in self.scored if each.accept is not None for kind in each.accept.by)

    def method(self, name: str) -> Method:
        """By its name. Raises KeyError: there is none."""
        return {each.name: each for each in self.methods}[name]


def comparison_schema() -> dict[str, Any]:
    """The JSON schema of a comparison file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Comparison.model_json_schema()}
