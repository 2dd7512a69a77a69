"""The job file's field ``split``; what it means for texts is :mod:`pipeline.plan.split`'s."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, PlainValidator, model_validator

from personas.words import show
from pipeline.job.fields import AsDict, Float, Frozen, Int, JsonMapping


def _region(value: object) -> JsonMapping:
    """Attribute -> (least, greatest) weight."""
    if not isinstance(value, Mapping) or not value:
        what = "names no attribute" if isinstance(value, Mapping) else "is no mapping"
        raise ValueError(f"{show(value)} {what}; give {{attribute: [least, greatest]}}, e.g. {{E: [0.4, 0.6]}}")
    for name, bounds in value.items():
        ends = list(bounds) if isinstance(bounds, list | tuple) else []
        numbers = [end for end in ends if isinstance(end, int | float) and not isinstance(end, bool)]
        if len(ends) != 2 or len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] <= 1:
            remedy = "give [least, greatest], two numbers from 0 to 1"
            raise ValueError(f"{name}: {show(bounds)} is no range of weights; {remedy}")
    return JsonMapping({str(name): [float(end) for end in bounds] for name, bounds in value.items()})


_Ends = Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)]
Region = Annotated[
    Mapping[str, list[float]],
    PlainValidator(_region, json_schema_input_type=dict[str, _Ends]),
    AsDict,
]


class Split(Frozen):
    """Which texts are the test split: of prompts, or of mixtures, that the train split does not have."""

    by: Literal["prompt", "weights"] = Field(
        description="prompt: a share of the prompts, by their content; weights: the personas of a region."
    )
    test_fraction: Annotated[Float, Field(gt=0, lt=1)] | None = Field(
        None, description="by prompt: the chance of each prompt to be in the test split; null: 0.1."
    )
    seed: Annotated[Int, Field(ge=0)] | None = Field(
        None, description="by prompt: of those chances; null: 0. The run's seed does not move the split."
    )
    region: Region | None = Field(
        None,
        description="by weights: attribute -> [least, greatest] weight of the test split's personas, ends included; "
        "weights of attributes that are not named may be any. The control is in the train split.",
    )

    @property
    def fraction(self) -> float:
        """Of the prompts."""
        return 0.1 if self.test_fraction is None else self.test_fraction

    @model_validator(mode="after")
    def _of_one_kind(self) -> Split:
        for name, by in (("test_fraction", "prompt"), ("seed", "prompt"), ("region", "weights")):
            value = getattr(self, name)
            if value is not None and by != self.by:
                raise ValueError(f"{name} {show(value)} belongs to by: {by}; remove it, or set by: {by}")
        if self.by == "weights" and self.region is None:
            raise ValueError("by: weights needs a region; add one, e.g. region: {E: [0.4, 0.6]}")
        return self
