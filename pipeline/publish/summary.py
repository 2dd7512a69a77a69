"""What a corpus holds: adherence by persona and attribute, acceptance, samples; from its Parquet."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

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


class Summariser:
    """A summary of rows that come in pieces: what it holds grows with personas and prompts, not with rows.

    Args:
        judges: labels of those that count. Judgments of a judge's older version stay in a data set.
    """

    def __init__(
        self, attributes: Sequence[str], judges: Collection[str], *, n_samples: int = 2, panel_rule: str = "mean"
    ) -> None:
        self._attributes, self._judges, self._n_samples, self._rule = tuple(attributes), judges, n_samples, panel_rule
        self._judged: set[str] = set()
        self._personas: dict[str, _Persona] = {}
        self._first_prompt: str | None = None

    def add(self, generations: pa.Table, judgments: pa.Table) -> None:
        """The next rows, with all judgments of them."""
        scores = heard_scores(judgments, self._judges)
        self._judged.update(attribute for _, attribute in scores)
        for row in without_tokens(generations).to_pylist():
            if self._first_prompt is None:
                self._first_prompt = row["prompt_id"]
            persona = self._personas.setdefault(row["persona"], _Persona(row))
            persona.count(row, of_first_prompt=row["prompt_id"] == self._first_prompt)
            for attribute in self._attributes:
                given = scores.get((row["row_id"], attribute))
                if given is not None:
                    persona.adherence[attribute].add(panel(given, self._rule), row["prompt_id"])

    def result(self) -> Summary:
        """Of all rows so far."""
        judged = tuple(attribute for attribute in self._attributes if attribute in self._judged)
        personas = tuple(persona.summary(name, judged) for name, persona in self._personas.items())
        return Summary(judged, personas, tuple(self._samples()))

    @property
    def first_rows(self) -> list[dict[str, Any]]:
        """The first row of each persona."""
        return [persona.first for persona in self._personas.values()]

    def _samples(self) -> list[dict[str, Any]]:
        """The same prompt under the first and the last personas: what the weights change is seen at once."""
        names = list(self._personas)
        picked = [names[0], *names[-(self._n_samples - 1) :]] if len(names) >= self._n_samples else names
        return [self._personas[name].sample for name in dict.fromkeys(picked)]


class _Persona:
    """Sums over one persona's texts, and its first one."""

    def __init__(self, first: dict[str, Any]) -> None:
        self.first, self._of_first_prompt = first, dict[str, Any]()
        self.adherence: defaultdict[str, ClusterSums] = defaultdict(ClusterSums)
        self._n_rows = self._n_tokens = self._n_rates = 0
        self._log_prob, self._rates = ExactSum(), ExactSum()

    def count(self, row: dict[str, Any], *, of_first_prompt: bool) -> None:
        self._n_rows += 1
        self._n_tokens += row["n_tokens"]
        self._log_prob.add(log_prob_bare(row))
        if row["acceptance_rate"] is not None:
            self._n_rates += 1
            self._rates.add(row["acceptance_rate"])
        if of_first_prompt and not self._of_first_prompt:
            self._of_first_prompt = row

    @property
    def sample(self) -> dict[str, Any]:
        return self._of_first_prompt or self.first

    def summary(self, name: str, judged: Sequence[str]) -> PersonaSummary:
        return PersonaSummary(
            persona=name,
            n_rows=self._n_rows,
            adherence={attribute: self.adherence[attribute].mean() for attribute in judged},
            acceptance_rate=self._rates.total / self._n_rates if self._n_rates else None,
            n_tokens=self._n_tokens,
            log_prob_bare=self._log_prob.total,
        )


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
    found = Summariser(attributes, counted, n_samples=n_samples, panel_rule=panel_rule)
    found.add(generations, judgments)
    return found.result()


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
