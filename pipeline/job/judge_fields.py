"""The section ``judges`` of a job file: the kinds of judges, each a frozen model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from evaluation.endpoint.settings import OpenAISettings
from pipeline.job.fields import Float, Frozen
from pipeline.job.licence_terms import NO_TRAINING, UNRESTRICTED, checked_part


class ClassifierJudge(Frozen):
    """The embedded classifier, independent of the generator."""

    kind: Literal["classifier"] = Field(
        description="classifier: the embedded classifier of MBTI poles, and the judges beside adapters of one's own."
    )
    abstain: Float = Field(
        0.0, ge=0, lt=0.5, description="Scores nearer to 0.5 than this are left unscored ('refused'); 0: none are."
    )


class EncoderJudge(Frozen):
    """The other embedded judge of MBTI poles, on a sentence encoder alone."""

    kind: Literal["encoder"] = Field(
        description="encoder: the embedded judge of MBTI poles that reads a sentence encoder's layers and no n-gram; "
        "beside the classifier, a second family."
    )
    abstain: Float = Field(
        0.0, ge=0, lt=0.5, description="Scores nearer to 0.5 than this are left unscored ('refused'); 0: none are."
    )


class PersonaMatchJudge(Frozen):
    """The embedded judge of role-play."""

    kind: Literal["persona-match"] = Field(
        description="persona-match: whether a text is nearer to its own profile or personality than to other people's."
    )


class LogRatioJudge(Frozen):
    """The preference models' own opinion, never counted as independent."""

    kind: Literal["log-ratio"] = Field(description="log-ratio: the preference models' own log-ratios, as a score.")


class _BehindAnEndpoint(Frozen):
    kind: Literal["openai"] = Field(description="openai: a model behind an OpenAI-compatible endpoint, by rubrics.")


class OpenAIJudge(OpenAISettings, _BehindAnEndpoint):  # this order puts `kind` first in the schema
    """A model behind any OpenAI-compatible endpoint; its key comes from the environment alone."""

    license: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="Terms of its answers, which are published as judgments: an identifier of the Hub (of the model's "
        "licence, where you serve it), unrestricted, or no-training where the operator forbids to train models with "
        "them; null: unknown.",
    )

    @field_validator("license")
    @classmethod
    def _is_a_licence(cls, value: str | None) -> str | None:
        return value if value is None else checked_part(value, UNRESTRICTED, NO_TRAINING)


Judges = Annotated[
    ClassifierJudge | EncoderJudge | PersonaMatchJudge | LogRatioJudge | OpenAIJudge, Field(discriminator="kind")
]
