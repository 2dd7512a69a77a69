"""An endpoint's settings: what makes no sense is refused where it is said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from evaluation.endpoint.settings import JudgeSetupError, OpenAISettings, key_of

KEY = "q7Zp-Secret-0123456789"


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


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key_env": "sk-hunter2-0123"},
        {"api_key_env": "hunter2 "},
        {"base_url": "https://user:hunter2@host/v1"},
        {"extra_body": {"api_key": "hunter2"}},
        {"extra_body": {"a": [{"auth": "hunter2"}]}},
        {"extra_body": {"x": "Bearer hunter2hunter2"}},
        {"api_key": "hunter2"},
    ],
)
def test_settings_that_hold_a_secret_are_refused_without_showing_it(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        OpenAISettings.model_validate({"model": "m"} | changes)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("extra_body", "says"),
    [
        ({"model": "x"}, "model has a field of its own"),
        ({"max_completion_tokens": 3}, "give max_tokens beside it"),
        ({"stream": True}, "stream would change how answers come"),
        ({"x": float("nan")}, "holds what JSON can't"),
        ({"x": "\ud800"}, "holds what JSON can't"),
    ],
)
def test_extra_fields_that_make_no_sense(extra_body: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        OpenAISettings(model="m", extra_body=extra_body)


def test_a_variable_that_is_not_there_is_named_if_it_is_surely_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JudgeSetupError, match="the environment has no NO_SUCH_KEY; export it"):
        key_of(OpenAISettings(model="m", api_key_env="NO_SUCH_KEY"))
    with pytest.raises(JudgeSetupError) as caught:
        key_of(OpenAISettings(model="m", api_key_env="hunter"))
    assert "hunter" not in str(caught.value) and "not shown" in str(caught.value)
    monkeypatch.setenv("q7ZpSecret0123456789", f" {KEY}\n")  # a name after all: it is there
    assert key_of(OpenAISettings(model="m", api_key_env="q7ZpSecret0123456789")) == KEY
