"""The one explicit Arrow schema of everything that is written; its version is part of every row id."""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 3


def _list_of(kind: pa.DataType) -> pa.DataType:
    """A list type whose item carries Parquet's own name, so that a file read back has this very schema."""
    return pa.list_(pa.field("element", kind))


_MESSAGES = _list_of(pa.struct([("role", pa.string()), ("content", pa.string())]))


def _schema(table: str, fields: list[tuple[str, pa.DataType, bool]]) -> pa.Schema:
    return pa.schema(
        [pa.field(name, kind, nullable=nullable) for name, kind, nullable in fields],
        metadata={"mpg.table": table, "mpg.schema_version": str(SCHEMA_VERSION)},
    )


# What a cell is, without anything generated: shared by `generations` and `rejected`.
_CELL: list[tuple[str, pa.DataType, bool]] = [
    ("row_id", pa.string(), False),
    ("prompt_id", pa.string(), False),
    ("prompt", _MESSAGES, False),
    ("persona", pa.string(), False),
    ("profile", pa.string(), True),  # who the persona is and what it is like, in words
    ("personality", pa.string(), True),
    ("system", pa.string(), True),  # what the reference was told before the prompt
    ("attributes", _list_of(pa.string()), False),  # those with a weight above 0
    ("weights", _list_of(pa.float64()), False),  # in the order of `attributes`
    ("sample_index", pa.int32(), False),
]

GENERATIONS = _schema(
    "generations",
    [
        *_CELL,
        ("response", pa.string(), False),
        ("finish_reason", pa.string(), False),  # stop | length
        ("n_tokens", pa.int32(), False),  # its EOS included
        ("strengths", _list_of(pa.float64()), False),  # in the order of `attributes`
        ("log_prob_reference", pa.float64(), False),  # nats, at the decoder's temperature
        ("log_ratios", _list_of(pa.float64()), False),  # nats, in the order of `attributes`
        ("decoder", pa.string(), False),
        ("exact", pa.bool_(), False),
        ("acceptance_rate", pa.float64(), True),
        ("n_chunks", pa.int32(), False),
        ("n_clipped", pa.int32(), False),
        ("n_salvaged", pa.int32(), False),
        ("n_fallbacks", pa.int32(), False),
        ("tv_bound", pa.float64(), True),  # null where no bound is known
        ("model", pa.string(), False),  # id@revision
        ("adapters", _list_of(pa.string()), False),  # revisions, in the order of `attributes`
        ("dtype", pa.string(), False),
        ("seed", pa.int64(), False),
        ("config_hash", pa.string(), False),
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
    ],
)

REJECTED = _schema("rejected", [*_CELL, ("reason", pa.string(), False), ("message", pa.string(), False)])

TABLES = {"generations": GENERATIONS, "judgments": JUDGMENTS, "rejected": REJECTED}
