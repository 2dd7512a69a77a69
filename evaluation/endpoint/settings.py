"""How a judge asks its endpoint: every setting once, with its range and its words.

The job file's entry (:class:`pipeline.job.judge_fields.OpenAIJudge`) and the options of ``mpg judge`` are made from it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from personas.secrets import has_credentials, is_variable_name, looks_secret, names_a_secret, shown_name

# What has a field of its own, or is no matter of taste.
_OWN_FIELDS = ("model", "temperature", "max_tokens", "seed")
_NOT_EXTRA = {"messages": "is what is asked", "stream": "would change how answers come", "n": "would ask for several"}
_REMEDY = "put the key into an environment variable and name that in api_key_env"


class JudgeSetupError(ValueError):
    """A judge that can't begin; one line with field, value and remedy."""


class OpenAISettings(BaseModel):
    """A model behind any OpenAI-compatible endpoint; its key comes from the environment alone.

    Raises:
        pydantic.ValidationError: a field that is unknown, of another type or out of its range.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)

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
    temperature: Annotated[float, Field(ge=0)] | None = Field(
        default=0.0, description="Of the judge's answers; null: the server's own."
    )
    max_tokens: int = Field(default=600, ge=1, description="Longest answer.")
    seed: int = Field(default=0, ge=0, description="Sent with every call.")
    in_flight: int = Field(default=32, ge=1, description="Calls at once at most.")
    per_minute: int = Field(default=0, ge=0, description="Calls in any minute at most; 0: no limit.")
    extra_body: Mapping[str, Any] | None = Field(
        default=None, description="Fields of the server's own, sent with every call, e.g. {top_k: 1}; null: none."
    )
    timeout_s: float = Field(default=60.0, gt=0, description="Of one call, from its beginning to its last byte.")
    max_retries: int = Field(
        default=4,
        ge=0,
        description="After failures other than throttling; of a server that never answered, all in all.",
    )
    patience_s: float = Field(
        default=900.0, ge=0, description="How long the server may refuse all calls, or be away after it has answered."
    )
    budget: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Most that judging a data set may cost, in all runs, in the prices' currency; null: no limit.",
    )
    prompt_price: float = Field(default=0.0, ge=0, description="Per million prompt tokens.")
    completion_price: float = Field(default=0.0, ge=0, description="Per million completion tokens.")

    @field_validator("api_key_env")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not is_variable_name(value) and value not in os.environ:
            raise ValueError(
                "is no name of an environment variable; put the key there and give its name, e.g. JUDGE_KEY"
            )
        return value

    @field_validator("base_url")
    @classmethod
    def _is_no_secret(cls, value: str | None) -> str | None:
        if value is not None and has_credentials(value):
            raise ValueError(f"holds a user, a password or a key; leave it out, {_REMEDY}")
        return value

    @field_validator("extra_body")
    @classmethod
    def _is_sound(cls, value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        for name in value or {}:
            if name in _OWN_FIELDS or name == "max_completion_tokens":
                own = "max_tokens" if name == "max_completion_tokens" else name
                raise ValueError(f"{name} has a field of its own; give {own} beside it")
            if name in _NOT_EXTRA:
                raise ValueError(f"{name} {_NOT_EXTRA[name]}; leave it out")
        try:
            json.dumps(value, allow_nan=False).encode()
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, TypeError, RecursionError):
            raise ValueError("holds what JSON can't; give text, numbers, lists and mappings") from None
        if _holds_a_secret(value):
            raise ValueError(f"holds what looks like a key; leave it out, {_REMEDY}")
        return value

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
        more = {"extra_body": dict(self.extra_body)} if self.extra_body else {}
        return self.model_dump(include={"model", "temperature", "max_tokens", "seed"}) | more


def key_of(settings: OpenAISettings) -> str:
    """The API's key, from the environment.

    Raises:
        JudgeSetupError: there is none, or it is none; the message never shows it.
    """
    key = os.environ.get(settings.api_key_env, "").strip()
    named = shown_name(settings.api_key_env)
    if not key:
        remedy = "export it (any text for a server that asks for none)"
        missing = named or "variable of the name given (not shown: it may be a key)"
        raise JudgeSetupError(f"api_key_env: the environment has no {missing}; {remedy}")
    if not re.fullmatch(r"[!-~]+", key):
        what = named or "the variable"
        raise JudgeSetupError(
            f"api_key_env: what {what} holds is no key (a space or a sign outside ASCII); export it anew"
        )
    return key


def base_url_of(settings: OpenAISettings) -> str | None:
    """The endpoint's address, from the settings or the environment; ``None``: OpenAI's own.

    Raises:
        JudgeSetupError: it is no address of a server, or holds a key; the message never shows it then.
    """
    field, url = "base_url", settings.base_url
    if url is None:
        field, url = "OPENAI_BASE_URL", os.environ.get("OPENAI_BASE_URL") or None
    if url is None:
        return None
    if has_credentials(url):
        raise JudgeSetupError(f"{field}: holds a user, a password or a key; leave it out, {_REMEDY}")
    if not _is_address(url):
        raise JudgeSetupError(f"{field}: {url!r} is no address; give one like http://localhost:8000/v1")
    return url


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        known = parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of its port, or its brackets
        return False
    return known and not re.search(r"\s", url)


def _holds_a_secret(value: object) -> bool:
    if isinstance(value, Mapping):
        return any((names_a_secret(str(k)) and isinstance(v, str)) or _holds_a_secret(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return any(map(_holds_a_secret, value))
    return isinstance(value, str) and looks_secret(value)
