"""How a judge asks its endpoint: every setting once, with its range and its words.

The job file's entry (:class:`pipeline.job.fields.OpenAIJudge`) and the options of ``mpg judge`` are made from it.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails


class JudgeSetupError(ValueError):
    """A judge that can't begin; one line with field, value and remedy."""


class OpenAISettings(BaseModel):
    """A model behind any OpenAI-compatible endpoint; its key comes from the environment alone.

    Raises:
        pydantic.ValidationError: a field that is unknown, of another type or out of its range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    model: str = Field(min_length=1, description="As the endpoint names it.")
    base_url: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="Of the endpoint; null: OpenAI's own, or OPENAI_BASE_URL."
    )
    api_key_env: str = Field(
        default="OPENAI_API_KEY", min_length=1, description="Environment variable that holds the key."
    )
    structured: Literal["auto", "json_schema", "none"] = Field(
        default="auto",
        description="How the answer's form is asked for: by JSON schema, in words, or what the endpoint takes.",
    )
    temperature: float = Field(default=0.0, ge=0, description="Of the judge's answers.")
    max_tokens: int = Field(default=600, ge=1, description="Longest answer.")
    seed: int = Field(default=0, ge=0, description="Sent with every call.")
    in_flight: int = Field(default=32, ge=1, description="Calls at once at most.")
    per_minute: int = Field(default=0, ge=0, description="Calls in any minute at most; 0: no limit.")
    timeout_s: float = Field(default=60.0, gt=0, description="Of one call.")
    max_retries: int = Field(default=4, ge=0, description="After failures other than throttling.")
    patience_s: float = Field(default=900.0, ge=0, description="How long the server may refuse all calls.")
    budget: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Most that judging a data set may cost, in all runs, in the prices' currency; null: no limit.",
    )
    prompt_price: float = Field(default=0.0, ge=0, description="Per million prompt tokens.")
    completion_price: float = Field(default=0.0, ge=0, description="Per million completion tokens.")

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if self.budget is not None and self.prompt_price == self.completion_price == 0:
            remedy = "needs prompt_price or completion_price to know what a call costs; give them"
            # As pydantic's own error, so that it names the field and not the whole section.
            problem = InitErrorDetails(
                type="value_error",
                loc=("budget",),
                input=self.budget,
                ctx={"error": ValueError(f"{self.budget:g} {remedy}")},
            )
            raise ValidationError.from_exception_data(type(self).__name__, [problem])
        return self

    @property
    def answer_parameters(self) -> dict[str, Any]:
        """What an answer depends on beside the question."""
        return self.model_dump(include={"model", "temperature", "max_tokens", "seed"})


def key_of(settings: OpenAISettings) -> str:
    """The API's key, from the environment.

    Raises:
        JudgeSetupError: there is none.
    """
    key = os.environ.get(settings.api_key_env, "")
    if not key:
        remedy = "export it (any text for a server that asks for none)"
        raise JudgeSetupError(f"api_key_env: the environment has no {settings.api_key_env}; {remedy}")
    return key
