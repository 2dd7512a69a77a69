"""What a card and a record say of a data set's rows, as sums over parts that are put together in any order.

What they hold grows with personas, judges, and the prompts that may still get rows, not with rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from evaluation.statistics.aggregate import ExactSum, Mean
from pipeline.publish.summary import PersonaSummary, Place, Summariser, Summary, samples_of


@dataclass(frozen=True)
class Bound:
    """Of an approximate decoder's texts: the measured bounds on their law's distance from the target.

    Attributes:
        n: texts that have one, ``of`` those that are not exact.
    """

    n: int = 0
    of: int = 0
    mean: float | None = None
    largest: float | None = None


@dataclass(frozen=True)
class Digest:
    """See the module.

    Attributes:
        n_cut: texts that were cut off at their longest.
        n_rejected: dead letters that were cells.
        judges: label -> judgments, and those of them with a score.
        first_rows: of each persona, in the order in which they appear.
        shown: the first rows of ``generations``, with their ``judgments``.
    """

    summary: Summary
    n_rows: int
    n_prompts: int
    n_tokens: int
    n_cut: int
    n_rejected: int
    judges: Mapping[str, tuple[int, int]]
    bound: Bound
    first_rows: Sequence[Mapping[str, Any]]
    shown: Mapping[str, pa.Table]

    @property
    def n_judgments(self) -> int:
        return sum(n for n, _ in self.judges.values())

    @property
    def n_unscored(self) -> int:
        return sum(n - n_scored for n, n_scored in self.judges.values())

    @property
    def is_cut(self) -> bool:
        """Whether there are more rows than are shown."""
        return self.n_rows > self.shown["generations"].num_rows


class Sums:
    """Of some rows, with all judgments of them. Args: as :func:`pipeline.publish.digest.digest_of`."""

    def __init__(self, attributes: Sequence[str], judges: Collection[str], *, panel_rule: str = "mean") -> None:
        self._of_personas = Summariser(attributes, judges, panel_rule=panel_rule)
        self._prompts, self._n_closed = set[str](), 0
        self._judged, self._scored = Counter[str](), Counter[str]()
        self._bounds = _Bounds()
        self._n_tokens = self._n_cut = self.n_rows = 0

    def add(self, rows: pa.Table, judgments: pa.Table, at: Place | None = None) -> None:
        """Rows, or none, and judgments. Args: at: of the first row; ``None``: behind all others."""
        self._of_personas.add(rows, judgments, (0, self.n_rows) if at is None else at)
        self._prompts.update(pc.unique(rows.column("prompt_id")).to_pylist())
        for row in judgments.group_by("judge").aggregate([("score", "count"), ("judge", "count")]).to_pylist():
            self._judged[row["judge"]] += row["judge_count"]
            self._scored[row["judge"]] += row["score_count"]
        self._bounds.add(rows)
        self.n_rows += rows.num_rows
        self._n_tokens += pc.sum(rows.column("n_tokens")).as_py() or 0
        self._n_cut += pc.sum(pc.equal(rows.column("finish_reason"), "length")).as_py() or 0

    def close(self, but: Collection[str]) -> None:
        """No prompts but these will get other rows, here or in a part that is put together with this one."""
        self._of_personas.close(but)
        self._n_closed += len(self._prompts.difference(but))
        self._prompts.intersection_update(but)

    def merge(self, other: Sums) -> None:
        """All of another's, of other rows."""
        self._of_personas.merge(other._of_personas)
        self._prompts |= other._prompts
        self._n_closed += other._n_closed
        self._judged.update(other._judged)
        self._scored.update(other._scored)
        self._bounds.merge(other._bounds)
        self.n_rows += other.n_rows
        self._n_tokens += other._n_tokens
        self._n_cut += other._n_cut

    def result(self, shown: Mapping[str, pa.Table], n_rejected: int) -> Digest:
        """Args: shown: the first rows, of any table. n_rejected: dead letters that were cells."""
        return Digest(
            summary=self._of_personas.result(shown["generations"]),
            n_rows=self.n_rows,
            n_prompts=self._n_closed + len(self._prompts),
            n_tokens=self._n_tokens,
            n_cut=self._n_cut,
            n_rejected=n_rejected,
            judges={label: (self._judged[label], self._scored[label]) for label in sorted(self._judged)},
            bound=self._bounds.found(),
            first_rows=self._of_personas.first_rows,
            shown=shown,
        )


class _Bounds:
    def __init__(self) -> None:
        self._n = self._of = 0
        self._sum, self._largest = ExactSum(), -math.inf

    def add(self, rows: pa.Table) -> None:
        steered = rows.filter(pc.invert(rows.column("exact")))
        bounds = steered.column("tv_bound").drop_null().to_pylist()
        self._n, self._of = self._n + len(bounds), self._of + steered.num_rows
        self._largest = max(self._largest, *bounds) if bounds else self._largest
        for bound in bounds:
            self._sum.add(bound)

    def merge(self, other: _Bounds) -> None:
        self._n, self._of = self._n + other._n, self._of + other._of
        self._largest = max(self._largest, other._largest)
        self._sum.merge(other._sum)

    def found(self) -> Bound:
        return Bound(self._n, self._of, self._sum.total / self._n, self._largest) if self._n else Bound(of=self._of)


def to_json(found: Digest) -> dict[str, Any]:
    """A digest as JSON can hold it, without the rows that are shown."""
    return asdict(replace(found, shown={}))


def of_json(content: Mapping[str, Any], shown: Mapping[str, pa.Table]) -> Digest:
    """What :func:`to_json` has made, with the rows that are shown."""
    said = content["summary"]
    personas = tuple(
        PersonaSummary(**{**each, "adherence": {name: Mean(**mean) for name, mean in each["adherence"].items()}})
        for each in said["personas"]
    )
    firsts = {row["persona"]: row for row in content["first_rows"]}
    judges = {label: (n, n_scored) for label, (n, n_scored) in content["judges"].items()}
    summary = Summary(tuple(said["attributes"]), personas, samples_of(firsts, shown["generations"]))
    return Digest(
        **{**content, "summary": summary, "bound": Bound(**content["bound"]), "judges": judges, "shown": shown}
    )
