"""What a data set holds of the source of its prompts: their metadata, and the rows that are no prompts.

Neither is stored with the rows that are decoded: both are made anew at each gathering, and say what it says now.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from personas.prompts import BrokenRow, Prompt
from personas.text import storable
from pipeline.store.schema import REJECTED

PREFIX = "metadata_"
# Whole numbers up to here are exact in float64, too.
_EXACT_IN_FLOAT = 2**53


def metadata_of(prompts: Sequence[Prompt]) -> pa.Table:
    """Prompts' ids, and a column ``metadata_<key>`` for each key of their metadata.

    A column is text, int64, float64 or bool where all its values are of one kind; else each is written as JSON. A
    prompt without the key has null.
    """
    keys = dict.fromkeys(key for prompt in prompts for key in prompt.metadata)
    columns = {"prompt_id": pa.array([prompt.prompt_id for prompt in prompts], pa.string())}
    for key, name in _names(list(keys)).items():
        columns[name] = _column([prompt.metadata.get(key) for prompt in prompts])
    return pa.table(columns)


class Metadata:
    """The columns of :func:`metadata_of` beside rows of the table `generations`."""

    def __init__(self, of_prompts: pa.Table) -> None:
        ids = of_prompts.column("prompt_id").to_pylist() if of_prompts.num_columns > 1 else []
        self._columns = of_prompts.drop_columns(["prompt_id"])
        self._places = {prompt_id: i for i, prompt_id in enumerate(ids)}

    def beside(self, table: pa.Table) -> pa.Table:
        """Rows of the table with these columns."""
        if not self._columns.num_columns:
            return table
        places = pa.array([self._places.get(i) for i in table.column("prompt_id").to_pylist()], pa.int64())
        for name, column in zip(self._columns.column_names, self._columns.columns, strict=True):
            table = table.append_column(pa.field(name, column.type), column.take(places))
        return table


def broken_rows(broken: Sequence[BrokenRow]) -> pa.Table:
    """The rows of the prompts' source that are no prompts, as rows of the table `rejected`."""
    rows = [
        {"reason": each.reason, "message": storable(each.problem), "source": storable(each.source), "raw": each.raw}
        for each in broken
    ]
    return pa.Table.from_pylist(rows, schema=REJECTED)


def _names(keys: Sequence[str]) -> dict[str, str]:
    """Key -> name of its column: a plain word, no two the same."""
    names: dict[str, str] = {}
    for key in keys:
        word = re.sub(r"\W+", "_", key.removeprefix(PREFIX)).strip("_") or "column"
        name, n = f"{PREFIX}{word}", 1
        while name in names.values():
            n += 1
            name = f"{PREFIX}{word}_{n}"
        names[key] = name
    return names


def _column(values: Sequence[Any]) -> pa.Array:
    """The values of a key, in the type that holds them all."""
    given = [value for value in values if value is not None]
    kinds = {type(value) for value in given}
    whole = [value for value in given if type(value) is int]
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in whole):
        return pa.array(values, pa.int64())
    if kinds <= {int, float} and all(abs(value) <= _EXACT_IN_FLOAT for value in whole):
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    text = storable if kinds == {str} else _json
    return pa.array([None if value is None else text(value) for value in values], pa.string())


def _json(value: Any) -> Any:
    return storable(json.dumps(_plain(value), ensure_ascii=False, allow_nan=False, default=str))


def _plain(value: Any) -> Any:
    """The value as JSON can hold it: numbers that are none are null, bytes their text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
