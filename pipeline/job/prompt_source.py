"""The part of a job file that says where its prompts are."""

from __future__ import annotations

import codecs
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator, model_validator

from personas.words import show
from pipeline.job.fields import Bool, Frozen, Int, Text
from pipeline.job.licence_terms import checked_part

_OF_A_FILE = ("encoding",)
_OF_A_DATA_SET = ("split", "config", "data_files", "revision", "streaming")


def _list(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class PromptSource(Frozen):
    """Where the prompts are: a file or a data set, one of the two."""

    file: Text | None = Field(
        None,
        description="A table (JSONL, JSON, CSV, TSV or Parquet, also compressed), relative to the job file's folder; a "
        "row has `prompt`, `messages` or `conversations`, and may have an `id`.",
    )
    dataset: Text | None = Field(
        None,
        description="Hub id, or a folder (relative to the job file's folder) that `datasets` opens.",
    )
    column: Text | None = Field(
        None,
        description="Column of the prompts: text, or lists of chat messages; null: `prompt`, `messages` or "
        "`conversations`, whichever there is.",
    )
    id_column: Text | None = Field(
        None, description="Column of the prompts' ids; null: a file's `id`, or else they are made from the messages."
    )
    encoding: Text | None = Field(None, description="Of a file's text, e.g. latin-1; null: UTF-8, or what it marks.")
    split: Text = Field("train", description="Split of the data set.")
    config: Text | None = Field(None, description="Configuration (subset) of the data set; null: its default one.")
    data_files: Annotated[tuple[Text, ...], BeforeValidator(_list, json_schema_input_type=str | list[str])] = Field(
        (), description="Files of the data set to read, by name (no patterns); an empty list: those of the split."
    )
    revision: Text | None = Field(None, description="Branch, tag or commit of a Hub data set; null: the newest.")
    streaming: Bool | None = Field(
        None,
        description="Whether the rows of a Hub data set are read as they come (true), or all of it is downloaded and "
        "kept first (false); null: as they come where there is a limit.",
    )
    skip: Int = Field(0, ge=0, description="How many prompts to leave out at the beginning.")
    limit: Annotated[Int, Field(ge=1)] | None = Field(None, description="How many prompts to use at most; null: all.")
    license: Text | None = Field(
        None,
        description="Of the prompts, which stand in the data set: an identifier of the Hub, e.g. cc-by-4.0; null: what "
        "the card of their data set says.",
    )

    @field_validator("license")
    @classmethod
    def _is_a_licence(cls, value: str | None) -> str | None:
        return value if value is None else checked_part(value)

    @field_validator("encoding")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                "".encode(value)
                codecs.lookup(value)
            except LookupError as error:
                raise ValueError(f"{value!r} is no encoding of text; give one like utf-8, latin-1, cp1252") from error
        return value

    @model_validator(mode="after")
    def _one_source(self) -> PromptSource:
        given = {"file": self.file, "dataset": self.dataset}
        if (self.file is None) == (self.dataset is None):
            what = "names both" if self.file else "names neither"
            raise ValueError(f"{show(given)} {what}; give either prompts.file or prompts.dataset")
        others, whose = (_OF_A_DATA_SET, "a data set") if self.file is not None else (_OF_A_FILE, "a file")
        for name in others:  # as in a dump, a default says nothing
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} {show(getattr(self, name))} belongs to {whose}; remove it")
        return self
