"""The parts of a job file: one frozen model for each section, with its ranges and descriptions."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import date as day
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    PlainValidator,
    Strict,
    field_validator,
    model_validator,
)

from mpg.settings import DEFAULT_DATE, JOB_DECODERS, MOST_STRENGTH, TELLS
from personas.attributes import Weights
from personas.profiles import placeholders
from personas.telling import DEFAULT_WORDING, WORDINGS
from personas.words import show

# A grid is held in memory and its table is read by people: more personas than this are a mistake.
MAX_PERSONAS = 100_000
# A plan is held in memory, at about a kilobyte a text.
MAX_CELLS = 50_000_000

Int = Annotated[int, Strict()]
Float = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Bool = Annotated[bool, Strict()]
Text = Annotated[str, Field(min_length=1)]


def _as_dict(value: Mapping[str, Any]) -> dict[str, Any]:
    return dict(value)


# Not `dict[str, Any]` itself: what a type says of its parameters, which pydantic asks, differs between Pythons.
AsDict = PlainSerializer(_as_dict)
WeightMap = Annotated[Mapping[str, Annotated[Float, Field(ge=0)]], AfterValidator(Weights), AsDict]

OneStrength = Annotated[Float, Field(gt=0, le=MOST_STRENGTH)]
StrengthMap = Annotated[Mapping[str, OneStrength], AfterValidator(Weights), AsDict]


def _strength(value: object) -> float | Weights:
    """One number for all attributes, or one for each; above 0 and finite."""
    numbers: Mapping[str, Any] = value if isinstance(value, Mapping) else {"": value}
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{show(value)} is no number; give one, or a mapping {{attribute: number}}")
        if not 0 < number <= MOST_STRENGTH:
            where = f"{name}: " if name else ""
            raise ValueError(f"{where}{show(number)} is out of range; give a number above 0, at most {MOST_STRENGTH:g}")
    return Weights(value) if isinstance(value, Mapping) else float(numbers[""])


_Above0 = Annotated[float, Field(gt=0, le=MOST_STRENGTH)]
Strength = Annotated[
    float | Mapping[str, float],
    PlainValidator(_strength, json_schema_input_type=_Above0 | dict[str, _Above0]),
    PlainSerializer(lambda value: dict(value) if isinstance(value, Mapping) else value),
]


class JsonMapping(Mapping[str, Any]):
    """Values that JSON has, by name; hashed by what they are."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Raises ValueError: what JSON has not."""
        self._text = json.dumps(dict(values), sort_keys=True, allow_nan=False)

    def __getitem__(self, name: str) -> Any:
        return json.loads(self._text)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(json.loads(self._text))

    def __len__(self) -> int:
        return len(json.loads(self._text))

    def __hash__(self) -> int:
        return hash(self._text)

    def __eq__(self, other: object) -> bool:
        return dict(self) == (dict(other) if isinstance(other, Mapping) else other)

    def __repr__(self) -> str:
        return self._text


def _arguments(values: Mapping[str, Any]) -> JsonMapping:
    """Raises ValueError: a name that no template could read, or a number that JSON has not; the key, value, remedy."""
    for name, value in values.items():
        if not name.isidentifier():
            raise ValueError(f"the key {show(name)} is no name that a template could read; give one, or remove it")
        for place, number in _numbers_in(value, name):
            if not math.isfinite(number):
                raise ValueError(f"{place}: {show(number)} is no number that JSON has; give a finite one, or remove it")
    return JsonMapping(values)


def _numbers_in(value: Any, place: str) -> Iterator[tuple[str, float]]:
    """Numbers with decimals, each with where it stands: ``a.b[0]``."""
    if isinstance(value, float):
        yield place, value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _numbers_in(each, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for index, each in enumerate(value):
            yield from _numbers_in(each, f"{place}[{index}]")


Arguments = Annotated[Mapping[str, JsonValue], AfterValidator(_arguments), AsDict]


def _template(value: str | None) -> str | None:
    if value is not None:
        placeholders(value)
    return value


class Frozen(BaseModel):
    """A section of the job file: immutable, and no field but its own."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)


class Model(Frozen):
    """The reference model."""

    id: Text = Field(description="embedded/smollm2-135m-instruct, a Hub id, or a folder relative to the job file's.")
    revision: Text | None = Field(None, description="Branch, tag or commit on the Hub; null: the newest.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Number format of the weights; auto picks the faster one of this machine."
    )
    untested: Bool = Field(
        False,
        description="Whether to take models of a type that docs/models.md does not name: their laws may be wrong. "
        "Types that it names as refused stay refused.",
    )
    system: Text | None = Field(
        None,
        description="System message that the reference reads before every prompt; {profile} and {personality} stand "
        "for the persona's texts (the control, which has none, then reads the bare prompt).",
    )

    system_role: Literal["template", "fold"] = Field(
        "template",
        description="Where a system message stands: as the model's chat template has it, or folded: in front of the "
        "user's next turn, for templates without one.",
    )
    template_arguments: Arguments = Field(
        default_factory=lambda: JsonMapping({}),
        description="What the chat template is given beside the messages, e.g. {enable_thinking: false}.",
    )
    date: str | None = Field(
        None,
        description="The day, YYYY-MM-DD, that a chat template reads which asks for today's date; null: "
        f"{DEFAULT_DATE}.",
        json_schema_extra={"pattern": r"^\d{4}-\d{2}-\d{2}$"},
    )

    _checked = field_validator("system")(_template)

    @field_validator("date")
    @classmethod
    def _is_a_day(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                as_written = day.fromisoformat(value).isoformat() == value
            except ValueError:
                as_written = False
            if not as_written:
                raise ValueError(f"{value!r} is no day of the calendar as YYYY-MM-DD; give one, e.g. {DEFAULT_DATE}")
        return value


class AttributeSpec(Frozen):
    """One attribute and the adapter that carries it."""

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_-]*$",
        description="Name of the attribute; without `adapter`, of a shipped one.",
    )
    adapter: Text | None = Field(
        None,
        description="Adapter, or whole model with the reference's tokenizer: a folder (relative to the job file's) or "
        "Hub id; null: the shipped adapter.",
    )
    reference: Text | None = Field(
        None,
        description="Model the adapter was trained from, a folder (relative to the job file's folder) or a "
        "Hub id; null: the job's model.",
    )
    revision: Text | None = Field(None, description="Branch, tag or commit of the adapter on the Hub; null: newest.")
    subfolder: Text | None = Field(None, description="Subfolder of the adapter's folder or Hub repository.")
    reference_revision: Text | None = Field(None, description="Branch, tag or commit of `reference` on the Hub.")
    any_base: Bool = Field(
        False, description="Whether the adapter may name another base than the job's model (base_model_name_or_path)."
    )
    description: Text | None = Field(None, description="One line for judges, prompts and reports.")
    opposite: Text | None = Field(None, description="Name or description of the other end of the scale.")
    system: Text | None = Field(
        None,
        description="System message that the attribute's preference model reads before the prompt, whatever the "
        "reference reads; {profile} and {personality} stand for the persona's texts. null: the reference's prompt.",
    )

    _checked = field_validator("system")(_template)


def _named(value: object) -> object:
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping | AttributeSpec):
        raise ValueError(f"{show(value)} is no attribute; give a name, or {{name: ..., adapter: ...}}")
    return value


AttributeEntry = Annotated[AttributeSpec, BeforeValidator(_named, json_schema_input_type=str | AttributeSpec)]


class Decoder(Frozen):
    """How to decode; lengths are in tokens."""

    name: Literal[*JOB_DECODERS] = Field(  # type: ignore[valid-type]
        "scr-exact",
        description="reference: the reference model alone; prompting: the reference, told what the attributes are "
        "like; scr: chunk-level rejection, approximate; scr-exact: the "
        "target itself, drafted and verified without loss; routing: one attribute per horizon; mod: the product, "
        "token by token; soup: one model with the weighted sum of the adapters; pad: the product over the reference's "
        "candidates; drift: the product; sequence-rejection, best-of-n: whole responses, approximate.",
    )
    aggregate: Literal["sum", "product"] = Field(
        "product",
        description="How attributes combine: a weighted product of density ratios, each token by all of them, or a "
        "mixture (sum), by one or another.",
    )
    horizon: Annotated[Int, Field(ge=1)] | None = Field(
        8,
        description="Tokens after which the weights of the sum, and of routing, are reset; null: never. Part of "
        "the target.",
    )
    chunk_len: Int = Field(8, ge=1, le=64, description="Tokens drafted a round.")
    max_new_tokens: Int = Field(96, ge=1, description="Longest response, its end-of-text token included.")
    temperature: Float = Field(
        0.8,
        ge=0,
        description="Divides every policy's logits. 0: greedy, the target's most probable token each time, whatever "
        "the seed; not for scr, sequence-rejection and best-of-n.",
    )
    top_p: Float = Field(0.95, gt=0, le=1, description="Nucleus kept of the target's token law; 1: off.")
    top_k: Int = Field(0, ge=0, description="Most probable tokens kept of the target's law; 0: off.")
    strength: Strength = Field(
        1.0,
        description="Exponent of the density ratios, above 0: one number, or a mapping attribute -> number.",
    )
    drafter: Literal["mixture", "reference"] | None = Field(
        None, description="scr-exact: who drafts; null: the mixture where nothing is truncated, else the reference."
    )
    verification: Literal["token", "block"] = Field(
        "token", description="scr-exact: drafts are verified token by token, or a block at a time."
    )
    n_candidates: Int = Field(8, ge=1, description="best-of-n: responses of which one is kept.")
    window: Int = Field(64, ge=1, description="scr: recent chunks whose largest ratio bounds acceptance.")
    max_tries: Int = Field(8, ge=1, description="scr, sequence-rejection: rejections in a row before a fallback.")
    salvage: Bool = Field(True, description="scr: whether a rejected chunk's longest accepted prefix is kept.")
    tell: Literal[*TELLS] = Field(  # type: ignore[valid-type]
        "none",
        description="Who reads in a system message what the persona's attributes are like: none; reference: the "
        "reference alone, the attributes' own models read the prompt without it; all: both. Not for prompting, which "
        "tells; for soup, which is one model, none or all. The control is told nothing.",
    )
    wording: Literal[*WORDINGS] = Field(  # type: ignore[valid-type]
        DEFAULT_WORDING,
        description="How tell and prompting say it, an attribute's description a line: shares: with its weight in "
        "percent; degrees: with its weight in words; list: without.",
    )
    token_log_ratios: Bool = Field(
        False,
        description="Whether rows say their log-ratios token by token, too, beside the text's pieces; changes no text.",
    )


class Accept(Frozen):
    """Draw candidates until enough pass the judges."""

    min_score: Float = Field(
        ge=0, le=1, description="Least mean score of a text's own attributes, by their weights, for it to be kept."
    )
    rows_per_cell: Int = Field(ge=1, description="Texts to keep for each prompt and persona.")
    max_candidates: Int = Field(ge=1, description="Most texts to draw for each prompt and persona.")
    by: tuple[Text, ...] | None = Field(
        None,
        min_length=1,
        description="Kinds of the judges that let a text pass, e.g. [encoder]: the others alone are reported. "
        "null: all that count do both, and their scores of the texts that they chose are no independent measure.",
    )

    @model_validator(mode="after")
    def _room(self) -> Accept:
        if self.max_candidates < self.rows_per_cell:
            remedy = f"is less than rows_per_cell {self.rows_per_cell}; raise it"
            raise ValueError(f"max_candidates {self.max_candidates} {remedy}")
        return self
