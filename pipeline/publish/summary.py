"""What a corpus holds: adherence by persona and attribute, acceptance, samples; from its Parquet."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from evaluation.items import heard
from evaluation.statistics.aggregate import ClusterSums, ExactSum, Mean, panel
from pipeline.store.schema import log_prob_bare, without_tokens


@dataclass(frozen=True)
class PersonaSummary:
    """One persona's texts."""

    persona: str
    n_rows: int
    adherence: dict[str, Mean]  # attribute -> mean judged score
    acceptance_rate: float | None
    n_tokens: int
    log_prob_bare: float  # nats, summed over the persona's texts, see pipeline.store.schema.log_prob_bare

    @property
    def perplexity(self) -> float:
        """Of the texts under the reference that is told nothing of the attributes, at the decoder's temperature."""
        return math.exp(-self.log_prob_bare / self.n_tokens) if self.n_tokens else math.nan


@dataclass(frozen=True)
class Summary:
    """A corpus by persona, in the order in which personas first appear, and two sample texts."""

    attributes: tuple[str, ...]
    personas: tuple[PersonaSummary, ...]
    samples: tuple[dict[str, Any], ...]


# Where a row stands: split (0 for train, 1 for test), and its place there. Rows are read in this order.
Place = tuple[int, int]


class Summariser:
    """A summary of rows that come in pieces, or of parts that are put together in any order.

    What it holds grows with personas and with the prompts that may still get rows (:meth:`close`), not with rows.

    Args:
        judges: labels of those that count. Judgments of a judge's older version stay in a data set.
    """

    def __init__(self, attributes: Sequence[str], judges: Collection[str], *, panel_rule: str = "mean") -> None:
        self._attributes, self._judges, self._rule = tuple(attributes), judges, panel_rule
        self._judged: set[str] = set()
        self._personas: dict[str, _Persona] = {}

    def add(self, generations: pa.Table, judgments: pa.Table, at: Place) -> None:
        """Rows, with all judgments of them. Args: at: of the first row; the others stand behind it."""
        scores = heard_scores(judgments, self._judges)
        self._judged.update(attribute for _, attribute in scores)
        for i, row in enumerate(without_tokens(generations).to_pylist(), at[1]):
            persona = self._personas.get(row["persona"])
            if persona is None:
                persona = self._personas[row["persona"]] = _Persona(row, (at[0], i))
            persona.count(row)
            for attribute in self._attributes:
                given = scores.get((row["row_id"], attribute))
                if given is not None:
                    persona.adherence[attribute].add(panel(given, self._rule), row["prompt_id"])

    def close(self, but: Collection[str]) -> None:
        """No prompts but these will get other rows, here or in a part that is put together with this one."""
        for persona in self._personas.values():
            for sums in persona.adherence.values():
                sums.close(but)

    def merge(self, other: Summariser) -> None:
        """All of another's, of other rows."""
        self._judged |= other._judged
        for name, persona in other._personas.items():
            if name in self._personas:
                self._personas[name].merge(persona)
            else:
                self._personas[name] = persona

    def result(self, shown: pa.Table, n_samples: int = 2) -> Summary:
        """Of all rows so far. Args: shown: the first of them, of which samples are."""
        judged = tuple(attribute for attribute in self._attributes if attribute in self._judged)
        personas = tuple(persona.summary(name, judged) for name, persona in self._in_order())
        firsts = {row["persona"]: row for row in self.first_rows}
        return Summary(judged, personas, samples_of(firsts, shown, n_samples))

    @property
    def first_rows(self) -> list[dict[str, Any]]:
        """The first row of each persona, in the order of these."""
        return [persona.first for _, persona in self._in_order()]

    def _in_order(self) -> list[tuple[str, _Persona]]:
        return sorted(self._personas.items(), key=lambda each: each[1].at)


class _Persona:
    """Sums over one persona's texts, and its first one."""

    def __init__(self, first: dict[str, Any], at: Place) -> None:
        self.first, self.at = first, at
        self.adherence: defaultdict[str, ClusterSums] = defaultdict(ClusterSums)
        self._n_rows = self._n_tokens = self._n_rates = 0
        self._log_prob, self._rates = ExactSum(), ExactSum()

    def count(self, row: dict[str, Any]) -> None:
        self._n_rows += 1
        self._n_tokens += row["n_tokens"]
        self._log_prob.add(log_prob_bare(row))
        if row["acceptance_rate"] is not None:
            self._n_rates += 1
            self._rates.add(row["acceptance_rate"])

    def merge(self, other: _Persona) -> None:
        if other.at < self.at:
            self.first, self.at = other.first, other.at
        self._n_rows += other._n_rows
        self._n_tokens += other._n_tokens
        self._n_rates += other._n_rates
        self._log_prob.merge(other._log_prob)
        self._rates.merge(other._rates)
        for attribute, sums in other.adherence.items():
            self.adherence[attribute].merge(sums)

    def summary(self, name: str, judged: Sequence[str]) -> PersonaSummary:
        return PersonaSummary(
            persona=name,
            n_rows=self._n_rows,
            adherence={attribute: self.adherence[attribute].mean() for attribute in judged},
            acceptance_rate=self._rates.total / self._n_rates if self._n_rates else None,
            n_tokens=self._n_tokens,
            log_prob_bare=self._log_prob.total,
        )


def samples_of(firsts: Mapping[str, dict[str, Any]], shown: pa.Table, n: int = 2) -> tuple[dict[str, Any], ...]:
    """The same prompt under the first and the last personas: what the weights change is seen at once.

    Args:
        firsts: the first row of each persona, in the order of these: those that lack that prompt among the rows shown
            are there with it. shown: the first rows.
    """
    names = list(firsts)
    picked = [names[0], *names[-(n - 1) :]] if len(names) >= n else names
    of_first_prompt: dict[str, dict[str, Any]] = {}
    if shown.num_rows:
        same = shown.filter(pc.equal(shown.column("prompt_id"), shown.column("prompt_id")[0]))
        for row in reversed(without_tokens(same).to_pylist()):
            of_first_prompt[row["persona"]] = row
    return tuple(of_first_prompt.get(name, firsts[name]) for name in dict.fromkeys(picked))


def summarise(
    generations: pa.Table,
    judgments: pa.Table,
    attributes: Sequence[str],
    *,
    n_samples: int = 2,
    panel_rule: str = "mean",
    judges: Collection[str] | None = None,
) -> Summary:
    """Group rows by persona; a text has one score of its independent judges, a mean an interval by prompt.

    Args:
        judges: labels of those that count; ``None``: all. Judgments of a judge's older version stay in a data set.
    """
    counted = set(judgments.column("judge").to_pylist()) if judges is None else judges
    found = Summariser(attributes, counted, panel_rule=panel_rule)
    found.add(generations, judgments, (0, 0))
    return found.result(generations, n_samples)


def heard_scores(judgments: pa.Table, labels: Collection[str]) -> dict[tuple[str, str], list[float | None]]:
    """(row id, attribute) -> what the judges that count gave.

    Args:
        labels: of those that may count.
    """
    scores: dict[tuple[str, str], list[float | None]] = {}
    counts = heard(labels)
    for row in judgments.select(["row_id", "attribute", "score", "judge"]).to_pylist():
        if counts(row["judge"], row["attribute"]):
            scores.setdefault((row["row_id"], row["attribute"]), []).append(row["score"])
    return scores


def header(summary: Summary) -> list[str]:
    """Column titles of :func:`table_rows`."""
    return ["persona", "rows", *summary.attributes, "acceptance", "perplexity"]


def table_rows(summary: Summary) -> list[list[str]]:
    """The table persona x attribute as text, for the terminal and the card."""
    return [
        [
            p.persona,
            str(p.n_rows),
            *(p.adherence[a].shown for a in summary.attributes),
            "-" if p.acceptance_rate is None else f"{p.acceptance_rate:.2f}",
            f"{p.perplexity:.2f}",
        ]
        for p in summary.personas
    ]
