"""An endpoint's settings: what makes no sense is refused where it is said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from evaluation.endpoint.settings import OpenAISettings


@pytest.mark.parametrize(
    ("changes", "field", "kind"),
    [
        ({"model": ""}, "model", "string_too_short"),
        ({"in_flight": 0}, "in_flight", "greater_than_equal"),
        ({"in_flight": "4"}, "in_flight", "int_type"),
        ({"in_flight": True}, "in_flight", "int_type"),
        ({"structured": "xml"}, "structured", "literal_error"),
        ({"timeout_s": 0}, "timeout_s", "greater_than"),
        ({"timeout_s": float("nan")}, "timeout_s", "finite_number"),
        ({"prompt_price": -1.0}, "prompt_price", "greater_than_equal"),
        ({"base_url": ""}, "base_url", "string_too_short"),
        ({"timeout": 5.0}, "timeout", "extra_forbidden"),
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, Any], field: str, kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        OpenAISettings.model_validate({"model": "m"} | changes)
    assert [(error["loc"][0], error["type"]) for error in caught.value.errors()] == [(field, kind)]


def test_a_budget_needs_a_price() -> None:
    with pytest.raises(ValidationError) as caught:
        OpenAISettings(model="m", budget=1.0)
    (error,) = caught.value.errors()
    assert error["loc"] == ("budget",) and "1 needs prompt_price or completion_price" in error["msg"]
    assert OpenAISettings(model="m", budget=1.0, completion_price=2.0).budget == 1.0
    assert OpenAISettings(model="m", budget=0.0, prompt_price=0.5).budget == 0.0


def test_settings_are_frozen_and_say_what_an_answer_depends_on() -> None:
    settings = OpenAISettings(model="m", temperature=1, seed=3, in_flight=2)
    with pytest.raises(ValidationError):
        settings.seed = 4  # type: ignore[misc]
    assert settings.answer_parameters == {"model": "m", "temperature": 1.0, "max_tokens": 600, "seed": 3}
