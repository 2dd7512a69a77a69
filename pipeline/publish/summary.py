"""What a corpus holds: adherence by persona and attribute, acceptance, samples; from its Parquet."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pyarrow as pa

from evaluation.items import heard
from evaluation.statistics.aggregate import Mean, clustered_mean, panel
from pipeline.store.schema import without_tokens


@dataclass(frozen=True)
class PersonaSummary:
    """One persona's texts."""

    persona: str
    n_rows: int
    adherence: dict[str, Mean]  # attribute -> mean judged score
    acceptance_rate: float | None
    n_tokens: int
    log_prob_reference: float  # nats, summed over the persona's texts

    @property
    def perplexity(self) -> float:
        """Of the texts under the reference, at the decoder's temperature."""
        import math

        return math.exp(-self.log_prob_reference / self.n_tokens) if self.n_tokens else math.nan


@dataclass(frozen=True)
class Summary:
    """A corpus by persona, in the order in which personas first appear, and two sample texts."""

    attributes: tuple[str, ...]
    personas: tuple[PersonaSummary, ...]
    samples: tuple[dict[str, Any], ...]


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
    scores = heard_scores(judgments, set(judgments.column("judge").to_pylist()) if judges is None else judges)
    by_persona: dict[str, list[dict[str, Any]]] = {}
    for row in without_tokens(generations).to_pylist():
        by_persona.setdefault(row["persona"], []).append(row)
    judged = [a for a in attributes if any(key[1] == a for key in scores)]
    personas = []
    for persona, rows in by_persona.items():
        adherence = {}
        for attribute in judged:
            mine = [row for row in rows if (row["row_id"], attribute) in scores]
            values = [panel(scores[row["row_id"], attribute], panel_rule) for row in mine]
            adherence[attribute] = clustered_mean(values, [row["prompt_id"] for row in mine])
        rates = [row["acceptance_rate"] for row in rows if row["acceptance_rate"] is not None]
        personas.append(
            PersonaSummary(
                persona=persona,
                n_rows=len(rows),
                adherence=adherence,
                acceptance_rate=fmean(rates) if rates else None,
                n_tokens=sum(row["n_tokens"] for row in rows),
                log_prob_reference=sum(row["log_prob_reference"] for row in rows),
            )
        )
    return Summary(tuple(judged), tuple(personas), tuple(_samples(by_persona, n_samples)))


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


def _samples(by_persona: dict[str, list[dict[str, Any]]], count: int) -> list[dict[str, Any]]:
    """The same prompt under the first and the last personas: what the weights change is seen at once."""
    if not by_persona:
        return []
    names = list(by_persona)
    picked = [names[0], *names[-(count - 1) :]] if len(names) >= count else names
    first = by_persona[picked[0]][0]
    samples = []
    for name in dict.fromkeys(picked):
        rows = by_persona[name]
        samples.append(next((row for row in rows if row["prompt_id"] == first["prompt_id"]), rows[0]))
    return samples


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
