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


class Metadata:
    """The columns ``metadata_<key>`` of the table `generations`, one for each key of its prompts' metadata.

    A column is text, int64, float64 or bool where all its values are of one kind; else each is written as JSON. A row
    without the key has null.
    """

    def __init__(self, prompts: Sequence[Prompt]) -> None:
        of_prompt = {prompt.prompt_id: prompt.metadata for prompt in prompts}
        keys = dict.fromkeys(key for prompt in prompts for key in prompt.metadata)
        self._columns = {
            name: _typed({prompt_id: metadata.get(key) for prompt_id, metadata in of_prompt.items()})
            for key, name in _names(list(keys)).items()
        }

    def beside(self, table: pa.Table) -> pa.Table:
        """Rows of the table with these columns."""
        ids = table.column("prompt_id").to_pylist()
        for name, (of_type, values) in self._columns.items():
            column = pa.array([values.get(prompt_id) for prompt_id in ids], type=of_type)
            table = table.append_column(pa.field(name, of_type), column)
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


def _typed(values: Mapping[str, Any]) -> tuple[pa.DataType, dict[str, Any]]:
    """The type that holds all values of a key, and the values as it holds them."""
    given = [value for value in values.values() if value is not None]
    kinds = {type(value) for value in given}
    whole = [value for value in given if type(value) is int]
    if kinds == {bool}:
        return pa.bool_(), dict(values)
    if kinds == {int} and all(-(2**63) <= value < 2**63 for value in whole):
        return pa.int64(), dict(values)
    if kinds <= {int, float} and all(abs(value) <= _EXACT_IN_FLOAT for value in whole):
        return pa.float64(), {key: None if value is None else float(value) for key, value in values.items()}
    text = storable if kinds == {str} else _json
    return pa.string(), {key: None if value is None else text(value) for key, value in values.items()}


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
