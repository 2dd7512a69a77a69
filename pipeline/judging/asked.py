"""Which texts all judges of a run have looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from evaluation.scores import UNASKED


@dataclass(frozen=True)
class Asked:
    """The judges of a run.

    Attributes:
        known: label and attributes of each.
        remote: labels of those behind endpoints, which could not be asked about a text at times.
    """

    known: tuple[tuple[str, tuple[str, ...]], ...]
    remote: frozenset[str]

    def unjudged(self, judgments: pa.Table, row_ids: Iterable[str]) -> int:
        """How many of these texts some judge has not looked at; one that could not be asked about a text has not."""
        asked: dict[str, dict[str, set[str]]] = {label: {} for label, _ in self.known}
        for row in judgments.select(["row_id", "attribute", "judge", "status"]).to_pylist():
            if row["judge"] in asked and not (row["judge"] in self.remote and row["status"] in UNASKED):
                asked[row["judge"]].setdefault(row["row_id"], set()).add(row["attribute"])
        ids = list(row_ids)
        left = {i for label, names in self.known for i in ids if not asked[label].get(i, set()).issuperset(names)}
        return len(left)
