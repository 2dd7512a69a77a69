"""The part of a job file that says what stands on the data set's card; no row depends on it."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from personas.words import show
from pipeline.job.fields import Frozen, Text
from pipeline.job.licence_terms import stated_problem


def _list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _is_language(value: str) -> str:
    """What the Hub takes: ISO 639-1, -2 or -3, or a word for code and for several."""
    if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", value):
        raise ValueError(f"{show(value)} is no language; give its ISO 639 code, e.g. en")
    return value


Language = Annotated[str, AfterValidator(_is_language)]


class Card(Frozen):
    """The data set's card (README.md): its template, and what nobody but its author knows."""

    template: Text | None = Field(
        None,
        description="Template of the card (Markdown with Jinja2), relative to the job file's folder; null: the one "
        "that ships, of which a template may replace single blocks, see docs/publishing.md.",
    )
    pretty_name: Text | None = Field(None, description="Title of the card; null: the job's name.")
    language: Annotated[tuple[Language, ...], BeforeValidator(_list, json_schema_input_type=str | list[str])] = Field(
        (), description="Languages of the texts by their ISO 639 codes, e.g. [en]; an empty list: not said."
    )
    tags: Annotated[tuple[Text, ...], BeforeValidator(_list, json_schema_input_type=str | list[str])] = Field(
        (), description="Tags on the Hub, beside the card's own."
    )
    license: Text | None = Field(
        None,
        description="The data set's licence, an identifier of the Hub, whatever its parts' are; null: what follows "
        "from them.",
    )
    license_name: Text | None = Field(None, description="Of license: other: an identifier of your own for it.")
    license_link: Text | None = Field(
        None, description="Of license: other: LICENSE, for a file of that name beside the card, or a URL."
    )

    @model_validator(mode="after")
    def _licence_can_be(self) -> Card:
        problem = stated_problem(self.license, self.license_name, self.license_link)
        if problem is not None:
            raise ValueError(f"{problem[0]}: {problem[1]}")
        return self
