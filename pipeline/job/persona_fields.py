"""The section ``personas`` of a job file: the kinds of grids and lists, each a frozen model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, field_validator

from personas.attributes import Weights, mbti_type
from personas.profiles import profile_text
from pipeline.job.fields import (
    MAX_PERSONAS,
    Bool,
    Float,
    Frozen,
    Int,
    OneStrength,
    StrengthMap,
    Text,
    WeightMap,
)

Profile = Annotated[str, PlainValidator(profile_text, json_schema_input_type=str | dict[str, str | int | list[str]])]


_PROFILE: Any = Field(None, description="Who the person is: text, or {name, age, gender, profession, hobbies, facts}.")
_PERSONALITY: Any = Field(None, description="What the person is like, in a sentence or two.")


class _Personas(Frozen):
    """What all kinds share; a persona without texts of its own has the ones given here."""

    control: Bool = Field(False, description="Whether to add the persona 'reference': the reference model alone.")
    strengths: tuple[OneStrength, ...] = Field(
        (), description="Every persona at every one of these strengths; an empty list: at decoder.strength."
    )
    profile: Profile | None = _PROFILE
    personality: Text | None = _PERSONALITY


class PersonaWeights(Frozen):
    """One persona, by hand."""

    name: Text | None = Field(None, description="Readable name; null: made from the weights, E0.50+N0.50.")
    weights: WeightMap = Field(description="Attribute -> weight; weights sum to 1, left out means 0.")
    strengths: StrengthMap = Field(
        default_factory=Weights, description="Attribute -> strength, for this persona; left out: decoder.strength."
    )
    profile: Profile | None = _PROFILE
    personality: Text | None = _PERSONALITY


class ExplicitPersonas(_Personas):
    """Personas one by one."""

    kind: Literal["explicit"] = Field(description="Personas one by one.")
    weights: tuple[PersonaWeights, ...] = Field(min_length=1, description="The personas.")
    normalize: Bool = Field(False, description="Whether to divide each persona's weights by their sum.")


class OneHotPersonas(_Personas):
    """Each attribute alone."""

    kind: Literal["one-hot"] = Field(description="Each attribute alone.")


class SimplexPersonas(_Personas):
    """All weights that are multiples of 1/steps."""

    kind: Literal["simplex"] = Field(description="All weight vectors with multiples of 1/steps.")
    steps: Int = Field(ge=1, description="1 is one-hot, 2 adds the pairs with half each, and so on.")


class DirichletPersonas(_Personas):
    """Weights drawn at random."""

    kind: Literal["dirichlet"] = Field(description="Weight vectors drawn from a symmetric Dirichlet law.")
    n: Int = Field(ge=1, le=MAX_PERSONAS, description="How many personas.")
    concentration: Float = Field(
        1.0, gt=0, description="1: uniform on the simplex; below 1 nearer to one-hot, above nearer to equal."
    )
    seed: Int = Field(0, ge=0, description="Of the draws; the run's seed does not move the personas.")


class CoverPersonas(_Personas):
    """Weights spread evenly."""

    kind: Literal["cover"] = Field(description="Weight vectors that fill the simplex evenly.")
    n: Int = Field(ge=1, le=MAX_PERSONAS, description="How many personas; powers of 2 suit sobol best.")
    method: Literal["sobol", "latin"] = Field("sobol", description="A Sobol sequence, or a Latin hypercube.")
    seed: Int = Field(0, ge=0, description="Of the scrambling; the run's seed does not move the personas.")


class FilePersonas(_Personas):
    """Personas from a file."""

    kind: Literal["file"] = Field(description="The personas of a file.")
    file: Text = Field(
        description="YAML, or a table (JSONL, JSON, CSV, TSV, Parquet), relative to the job file's folder."
    )
    normalize: Bool = Field(False, description="Whether to divide each persona's weights by their sum.")


class MbtiPersonas(_Personas):
    """One MBTI type."""

    kind: Literal["mbti"] = Field(description="One MBTI type: its four poles with equal weights.")
    type: str = Field(description="Four letters, one each of E/I, S/N, T/F, J/P, e.g. ENTJ.")

    @field_validator("type")
    @classmethod
    def _is_a_type(cls, value: str) -> str:
        mbti_type(value)
        return value


Personas = (
    ExplicitPersonas
    | OneHotPersonas
    | SimplexPersonas
    | DirichletPersonas
    | CoverPersonas
    | FilePersonas
    | MbtiPersonas
)
