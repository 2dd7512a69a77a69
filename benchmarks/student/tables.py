"""What a study leaves for readers: two tables as Parquet, and a page of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.student.measures import DIFFERENCES, WRITERS, difference_rows, writer_rows
from benchmarks.student.run import Found
from benchmarks.student.study import UNTRAINED, Study
from evaluation.statistics.aggregate import LEAST_CLUSTERS, WIDEST
from evaluation.tables import aligned
from pipeline.compare.tables import Made

_WRITERS = ("texts", "writer", "seed", "n", "score", "joint", "perplexity", "words", "distinct-2", "self-BLEU")
_DIFFERENCES = ("test", "against", "measure", "mean", "its", "difference", "relative", "by seed", "p (Holm)")


def write_tables(study: Study, found: Found, made: Made, folder: Path) -> list[Path]:
    """Write ``<date>-<name>.txt``, ``-writers.parquet`` and ``-differences.parquet`` into a folder. Raises OSError."""
    writers, differences = writer_rows(study, found), difference_rows(study, found)
    folder.mkdir(parents=True, exist_ok=True)
    stem, notes = f"{made.date}-{study.name}", {f"mpg.{name}": words for name, words in vars(made).items()}
    paths = []
    for name, schema, rows in (("writers", WRITERS, writers), ("differences", DIFFERENCES, differences)):
        paths.append(folder / f"{stem}-{name}.parquet")
        pq.write_table(pa.Table.from_pylist(rows, schema=schema.with_metadata(notes)), paths[-1])
    paths.append(folder / f"{stem}.txt")
    paths[-1].write_text(page(study, found, made, writers, differences) + "\n", encoding="utf-8")
    return paths


def page(
    study: Study,
    found: Found,
    made: Made,
    writers: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]],
) -> str:
    """All in text; no text of a writer stands in it.

    Args:
        writers, differences: rows of the two tables.
    """
    training = study.training
    n_taught = study.keep * len(study.seen_personas())
    lines = [
        f"{made.date}, {made.machine}",
        made.command,
        f"Students: LoRA of rank {training.rank}, {training.steps} steps of {training.batch_size} texts, seeds "
        f"{', '.join(map(str, training.seeds))}, on the {n_taught} texts of each corpus that {_chooser(study)} highest "
        f"({study.keep} of {study.samples_per_cell} x {_n_prompts(study)} a mix, {len(study.seen_personas())} mixes).",
        f"Tests: {len(study.test_prompts_of())} unseen prompts under the mixes seen, and under "
        f"{len(study.unseen_personas())} unseen ones. All are told who they write as in the same words; {UNTRAINED} is "
        "the model before.",
        f"{_scorers(study)} ± of 95 %, by prompt; perplexity under the bare model.",
        "",
        aligned(_WRITERS, [_writer(row) for row in writers], n_text=2),
        "",
        f"Students of {study.corpora[0].name} less others, paired by mix and prompt, means over seeds ({_SEED_NOTE}); "
        "nats: a token, under the bare model, of which perplexity is the exponential.",
        "",
        aligned(_DIFFERENCES, [_difference(row) for row in differences], n_text=3),
    ]
    if found.seconds:
        took = ", ".join(
            f"{phase} {seconds:.0f} s ({found.processor_s[phase]:.0f} s of its cores together)"
            for phase, seconds in found.seconds.items()
        )
        lines += ["", f"this run took: {took}"]
    return "\n".join(lines)


_SEED_NOTE = "the interval is over prompts: how far seeds differ stands beside it"


def _chooser(study: Study) -> str:
    return "the judges score" if study.chosen_by is None else f"the {study.chosen_by} scores"


def _scorers(study: Study) -> str:
    if study.chosen_by is None:
        return "The judges that score are those that chose the texts, alike for all."
    kinds = [each.kind for each in study.job.judges if each.kind != study.chosen_by]
    return f"Scores are by who has chosen nothing: {', '.join(kinds)}."


def _n_prompts(study: Study) -> str:
    n = len(study.corpus_job(study.corpora[0]).load_prompts())
    return f"{n} prompt{'s' * (n != 1)}"


def _writer(row: Mapping[str, Any]) -> list[str]:
    unscored = f" ({row['n_unscored']} unscored)" if row["n_unscored"] else ""
    return [
        row["stage"], row["writer"], "all" if row["seed"] is None else str(row["seed"]),
        f"{row['n_texts']}{unscored}",
        *(_number(row[name]) + _width(row[f"{name}_half_width"], row["n_prompts"]) for name in ("score", "joint")),
        *(_number(row[name], form) for name, form in (("perplexity", ".2f"), ("words", ".1f"))),
        *(_number(row[name], ".2f") for name in ("distinct_2", "self_bleu")),
    ]  # fmt: skip


def _difference(row: Mapping[str, Any]) -> list[str]:
    relative = "-" if not row["other_mean"] or row["measure"] == "nats" else (
        f"{100 * row['difference'] / row['other_mean']:+.1f} %"
    )  # fmt: skip
    return [
        row["test"], row["other"], row["measure"], _number(row["mean"]), _number(row["other_mean"]),
        _number(row["difference"], "+.3f") + _width(row["half_width"], row["n_prompts"]), relative,
        " ".join(_number(each, "+.3f") for each in row["by_seed"]), _number(row["p_holm"], ".2g"),
    ]  # fmt: skip


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:{form}}"


def _width(half_width: float | None, n_prompts: int) -> str:
    """As :attr:`evaluation.statistics.aggregate.Mean.shown` has it; and none says nothing, either."""
    if half_width and half_width <= WIDEST and n_prompts >= LEAST_CLUSTERS:
        return f"±{half_width:.3f}"
    return "±?"
