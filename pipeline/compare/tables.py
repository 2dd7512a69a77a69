"""The tables of a comparison: their files, and rows of differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from evaluation.statistics.aggregate import Mean
from pipeline.compare.differences import Compared
from pipeline.compare.model import Comparison, Method

ARMS_FILE, DIFFERENCES_FILE, LEAKAGE_FILE = "arms.parquet", "differences.parquet", "leakage.parquet"
PAGE, PLOT = "compare.md", "pareto.png"
# A row a comparison of the final.
DIFFERENCES = pa.schema(
    [
        pa.field("task", pa.string(), nullable=False),
        pa.field("finalist", pa.string(), nullable=False),
        pa.field("baseline", pa.string(), nullable=False),
        pa.field("at", pa.string()),  # where the baseline stands: strengths with their shares; null: all tasks
        pa.field("side", pa.string()),  # equal, lower or higher perplexity, or mixed; null: not compared
        pa.field("finalist_perplexity", pa.float64()),
        pa.field("baseline_perplexity", pa.float64()),
        pa.field("finalist_score", pa.float64()),
        pa.field("baseline_score", pa.float64()),
        pa.field("finalist_joint", pa.float64()),
        pa.field("baseline_joint", pa.float64()),  # mixed as the score is
        pa.field("difference", pa.float64()),  # paired, of the units that both have
        pa.field("half_width", pa.float64()),  # of the 95 % interval, by prompt
        pa.field("relative", pa.float64()),  # to the baseline's score
        pa.field("p_value", pa.float64()),
        pa.field("p_holm", pa.float64()),  # corrected for all rows
        pa.field("n_pairs", pa.int32()),  # of persona and prompt
        pa.field("n_prompts", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Made:
    """By what: the command, where and when, in words."""

    command: str
    machine: str
    date: str


def difference_row(each: Compared) -> dict[str, Any]:
    mean = Mean(None, 0, 0) if each.difference is None else each.difference.mean
    return {
        "task": each.task,
        "finalist": each.finalist.label,
        "baseline": each.baseline,
        "at": None if each.place is None else each.place.label,
        "side": each.side,
        "finalist_perplexity": each.perplexity,
        "baseline_perplexity": each.its_perplexity,
        "finalist_score": each.score,
        "baseline_score": each.its_score,
        "finalist_joint": each.joint,
        "baseline_joint": each.its_joint,
        "difference": mean.value,
        "half_width": mean.half_width,
        "relative": each.relative,
        "p_value": None if each.difference is None else each.difference.p_value,
        "p_holm": each.corrected,
        "n_pairs": mean.n,
        "n_prompts": mean.n_clusters,
    }


def not_scored(comparison: Comparison) -> list[Method]:
    return [each for each in comparison.methods if each.not_scored is not None]
