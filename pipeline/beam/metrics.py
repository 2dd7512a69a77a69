"""What is counted while a graph runs, as Beam's own metrics (namespace ``mpg``), which every runner shows.

Counters: ``rows``, ``rejected``, ``tokens``, ``judged`` (texts, once for each judge), ``judgments``, ``unscored``.
Distributions, which Beam keeps as integers:
``seconds_a_shard``, and ``acceptance_per_mille`` of each row that has one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from apache_beam.metrics import Metrics, MetricsFilter

from pipeline.beam.work import DecodedShard

NAMESPACE = "mpg"


def count_shard(shard: DecodedShard) -> None:
    """Count what a worker made of a shard; called by the step that has written it."""
    _add("rows", len(shard.rows))
    _add("rejected", len(shard.rejected))
    _add("tokens", sum(row["n_tokens"] for row in shard.rows))
    _distribution("seconds_a_shard", round(shard.ended_s - shard.started_s))
    for row in shard.rows:
        if row["acceptance_rate"] is not None:
            _distribution("acceptance_per_mille", round(1000 * row["acceptance_rate"]))


def count_judgments(n_texts: int, rows: Sequence[Mapping[str, Any]]) -> None:
    """Count judgments that were written, and the texts that they are of."""
    _add("judged", n_texts)
    _add("judgments", len(rows))
    _add("unscored", sum(row["score"] is None for row in rows))


def counts_of(result: Any) -> dict[str, int]:
    """Counter -> its value so far, of a graph that runs or has ended; a runner that has none says so by an error."""
    found: dict[str, int] = {}
    for each in result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]:
        name = each.key.metric.name
        found[name] = found.get(name, 0) + (each.result or 0)
    return found


def _add(name: str, n: int) -> None:
    Metrics.counter(NAMESPACE, name).inc(n)


def _distribution(name: str, value: int) -> None:
    Metrics.distribution(NAMESPACE, name).update(value)
