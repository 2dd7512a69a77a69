"""Options made from a model's fields: nothing of a field is said twice."""

from __future__ import annotations

import argparse
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.commands.field_options import add_options, given, option_problems


class Oven(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["oven"] = Field(description="oven: bakes.")
    heat_c: float = Field(default=180.0, gt=0, description="Of the air, 100 % of the time.")
    trays: Annotated[int, Field(ge=1)] | None = Field(default=None, description="How many; null: as many as fit.")
    mode: Literal["fan", "grill"] = Field(default="fan", description="How.")


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_options(parser.add_argument_group("oven"), Oven)
    return parser.parse_args(arguments)


def test_what_is_left_out_is_not_given() -> None:
    assert given(parse(), Oven) == {}
    found = given(parse("--heat-c", "200", "--trays", "2", "--mode", "grill"), Oven)
    assert found == {"heat_c": 200.0, "trays": 2, "mode": "grill"} and isinstance(found["heat_c"], float)


def test_the_help_is_the_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert "of the air, 100 % of the time (180)" in printed and "how many; left out: as many as fit" in printed
    assert "--kind" not in printed and "--mode {fan,grill} how (fan)" in printed


def test_what_is_wrong_is_a_line_each() -> None:
    values = {"kind": "oven", **given(parse("--heat-c", "0", "--trays", "0"), Oven)}
    with pytest.raises(ValidationError) as caught:
        Oven.model_validate(values)
    assert option_problems(caught.value, values, Oven).splitlines() == [
        "--heat-c: 0.0 is out of range; give a number above 0",
        "--trays: 0 is out of range; give a number at least 1",
    ]


@pytest.mark.parametrize("arguments", [["--trays", "two"], ["--mode", "steam"]])
def test_what_is_of_another_type_is_a_mistake_of_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(*arguments)
