"""Invented data sets on which a template is tried before anything is run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from pipeline.job.model import Job
from pipeline.publish.card.values import Facts, values_of
from pipeline.publish.digest import digest_of_pieces
from pipeline.publish.licence_rules import LicenceError, Part, Resolved
from pipeline.store.schema import TABLES

_JUDGE = "classifier@0"
_ACCEPT = {"min_score": 0.5, "rows_per_cell": 1, "max_candidates": 2, "candidates": 2, "rows": 1, "short": []}


def samples(job: Job) -> Iterator[dict[str, Any]]:
    """What a template is given of a data set where everything is there, and of one that has nothing but a text."""
    yield _values(job, judged=True)
    yield _values(job, judged=False)


def _values(job: Job, *, judged: bool) -> dict[str, Any]:
    name = job.attribute_names[0]
    persona = {"persona": "invented", "attributes": [name], "weights": [1.0], "strengths": [1.0], "log_ratios": [0.0]}
    rows = [_row("generations") | {"row_id": "0"} | (persona if judged else {"persona": "reference"})]
    judgments = [_row("judgments") | {"row_id": "0", "attribute": name, "judge": _JUDGE, "score": 0.5, "status": "ok"}]
    tables = (
        pa.Table.from_pylist(rows, schema=TABLES["generations"]),
        pa.Table.from_pylist(judgments if judged else [], schema=TABLES["judgments"]),
    )
    run: dict[str, Any] = {"judges": [_JUDGE], "accept": _ACCEPT, "versions": {"mpg-scr": "0"}} if judged else {}
    digest = digest_of_pieces([tables], job.attribute_names, set(run.get("judges", ())))
    part = Part("model", "invented", "mit")
    return values_of(
        Facts(
            job,
            digest,
            run,
            {},
            Resolved("mit", None, None, (part,)) if judged else LicenceError(["license: unknown"]),
            (part,) if judged else (),
            [("figures/invented.png", "invented")] if judged else [],
        )
    )


def _row(table: str) -> dict[str, Any]:
    """A row of nothing, as far as the schema allows it."""
    return {field.name: None if field.nullable else _nothing(field.type) for field in TABLES[table]}


def _nothing(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_boolean(kind):
        return True
    return "" if pa.types.is_string(kind) else 0
