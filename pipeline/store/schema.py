"""The one explicit Arrow schema of everything that is written, and what becomes of tables of an older one.

A new column raises ``SCHEMA_VERSION`` and has to be nullable: tables without it are read with nulls there. No row id
depends on the version (:func:`personas.row_id`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 6
_VERSION_KEY = b"mpg.schema_version"


def list_of(kind: pa.DataType) -> pa.DataType:
    """A list type whose item carries Parquet's own name, so that a file read back has this very schema."""
    return pa.list_(pa.field("element", kind))


MESSAGES = list_of(pa.struct([("role", pa.string()), ("content", pa.string())]))


def _schema(table: str, fields: list[tuple[str, pa.DataType, bool]]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, nullable=nullable) for name, kind, nullable in fields],
        metadata={"mpg.table": table, _VERSION_KEY: str(SCHEMA_VERSION)},
    )


# What a cell is, without anything generated: shared by `generations` and `rejected`.
_CELL: list[tuple[str, pa.DataType, bool]] = [
    ("row_id", pa.string(), False),
    ("prompt_id", pa.string(), False),
    ("prompt", MESSAGES, False),
    ("persona", pa.string(), False),
    ("profile", pa.string(), True),  # who the persona is and what it is like, in words
    ("personality", pa.string(), True),
    ("system", pa.string(), True),  # what the reference was told before the prompt
    ("attributes", list_of(pa.string()), False),  # those with a weight above 0
    ("weights", list_of(pa.float64()), False),  # in the order of `attributes`
    ("sample_index", pa.int32(), False),
]

GENERATIONS = _schema(
    "generations",
    [
        *_CELL,
        ("response", pa.string(), False),
        ("finish_reason", pa.string(), False),  # stop | length
        ("n_tokens", pa.int32(), False),  # its EOS included
        ("strengths", list_of(pa.float64()), False),  # in the order of `attributes`
        ("log_prob_reference", pa.float64(), False),  # nats, at the decoder's temperature
        # The same of the reference untold, where `system` says what the attributes are like; since 6.
        ("log_prob_untold", pa.float64(), True),
        ("log_ratios", list_of(pa.float64()), False),  # nats, in the order of `attributes`
        ("decoder", pa.string(), False),
        ("exact", pa.bool_(), False),
        ("acceptance_rate", pa.float64(), True),
        ("n_chunks", pa.int32(), False),
        ("n_clipped", pa.int32(), False),
        ("n_salvaged", pa.int32(), False),
        ("n_fallbacks", pa.int32(), False),
        ("tv_bound", pa.float64(), True),  # null where no bound is known; before 6 another estimate of the same
        ("model", pa.string(), False),  # id@revision
        ("adapters", list_of(pa.string()), False),  # revisions, in the order of `attributes`
        ("dtype", pa.string(), False),
        ("seed", pa.int64(), False),
        ("config_hash", pa.string(), False),
        # Where `decoder.token_log_ratios` asked for them; since 5. Pieces of `response`, one a token, which join to it.
        ("tokens", list_of(pa.string()), True),
        # The terms of `log_ratios`: in the order of `attributes`, each in that of `tokens`.
        ("token_log_ratios", list_of(list_of(pa.float32())), True),
    ],
)

JUDGMENTS = _schema(
    "judgments",
    [
        ("row_id", pa.string(), False),
        ("attribute", pa.string(), False),
        ("judge", pa.string(), False),  # name@version
        ("score", pa.float64(), True),  # 0..1; null unless status is ok
        ("status", pa.string(), False),  # ok | parse_error | refused | throttled | failed
        ("rationale", pa.string(), True),
        ("prompt_tokens", pa.int64(), True),
        ("completion_tokens", pa.int64(), True),
        ("judged_hash", pa.string(), True),  # of what was judged (`evaluation.items.Item.content_hash`); since 4
    ],
)

# Cells that could not be decoded, and rows of the job's source that never were cells: these have a `source` alone.
REJECTED = _schema(
    "rejected",
    [
        *((name, kind, True) for name, kind, _ in _CELL),
        ("reason", pa.string(), False),
        ("message", pa.string(), False),
        ("source", pa.string(), True),  # name and place: "prompts.jsonl: line 3"; since 4
        ("raw", pa.string(), True),  # the row as it stands there, cut where it is very long; since 4
    ],
)


def log_prob_bare(row: Mapping[str, Any]) -> float:
    """In nats, of a row of ``generations`` under the reference that is not told what the attributes are like.

    What perplexities are of, whatever the decoder: those of told and of untold texts can be compared.
    """
    untold: float | None = row["log_prob_untold"]
    told: float = row["log_prob_reference"]
    return told if untold is None else untold


_BY_TOKEN = ("tokens", "token_log_ratios")

TABLES = {"generations": GENERATIONS, "judgments": JUDGMENTS, "rejected": REJECTED}


def without_tokens(generations: pa.Table) -> pa.Table:
    """The table but its columns of many values a row, for those who read whole tables and none of these."""
    return generations.drop_columns([name for name in _BY_TOKEN if name in generations.column_names])


class NewerSchema(ValueError):
    """A table that a later version of this project wrote: reading it would lose columns."""


def version_of(schema: pa.Schema) -> int:
    """The version that a table was written as; today's, where it does not say."""
    return int((schema.metadata or {}).get(_VERSION_KEY, SCHEMA_VERSION))


def refuse_newer(schema: pa.Schema) -> None:
    """Raises NewerSchema: it is of a later version than this one knows."""
    version = version_of(schema)
    if version > SCHEMA_VERSION:
        raise NewerSchema(f"is of schema {version}, and this mpg-scr knows {SCHEMA_VERSION}; install a newer one")


def as_of_today(table: pa.Table, name: str) -> pa.Table:
    """A table read from a file, under the schema of its kind: columns that its version did not have are null.

    Args:
        name: of the kind of table, see ``TABLES``.

    Raises:
        NewerSchema: it is of a later version. ValueError: a column is missing that may not be null, or is of another
            type.
    """
    refuse_newer(table.schema)
    columns = []
    for field in TABLES[name]:
        if field.name in table.column_names:
            columns.append(table.column(field.name).cast(field.type))
        elif field.nullable:
            columns.append(pa.nulls(table.num_rows, field.type))
        else:
            raise ValueError(f"has no column {field.name!r}")
    return pa.table(columns, schema=TABLES[name])
