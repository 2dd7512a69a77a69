"""The part of a job file that says what `mpg gate` allows; no row depends on it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from pipeline.job.fields import Float, Frozen

Share = Annotated[Float, Field(ge=0, le=1)]
Positive = Annotated[Float, Field(gt=0)]
NotNegative = Annotated[Float, Field(ge=0)]


class Gate(Frozen):
    """How much worse than the last revision a data set may be, and how bad in itself."""

    max_rejected_fraction: Share | None = Field(
        None, description="Share of planned rows that may be rejected; null: the job's max_rejected_fraction."
    )
    max_unscored_fraction: Share | None = Field(
        None, description="Share of judgments that may lack a score; null: the job's max_unscored_fraction."
    )
    min_adherence: Share | None = Field(
        None, description="Least judged adherence of each persona, whatever it was before; null: any."
    )
    adherence_false_alarm: Annotated[Float, Field(gt=0, lt=1)] = Field(
        0.05,
        description="Chance that some persona's adherence is refused though nothing has changed: how wide the interval "
        "is below which it may not fall.",
    )
    adherence_tolerance: Share = Field(
        0.02, description="A fall by no more than this is let pass, however sure it is: large data sets see any change."
    )
    max_perplexity: Positive | None = Field(None, description="Highest perplexity; null: any.")
    max_perplexity_rise: NotNegative = Field(
        0.1, description="Share by which perplexity may rise over the last revision's."
    )
    max_duplicate_fraction: Share = Field(
        0.1, description="Share of texts that may almost repeat another one of their persona."
    )
    max_duplicate_rise: Share = Field(
        0.02, description="By how much that share may rise over the last revision's, of as many texts."
    )
    max_row_fall: Share = Field(0.1, description="Share by which rows may become fewer than the last revision's.")
