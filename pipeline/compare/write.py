"""What a comparison leaves for readers: tables as Parquet, one page of Markdown, one plot."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.statistics.pareto import pareto_front
from pipeline.compare.leaks import LEAKAGE
from pipeline.compare.measures import ARMS
from pipeline.compare.model import Comparison
from pipeline.compare.page import label_of, page, says_something
from pipeline.compare.run import Results
from pipeline.compare.tables import (
    ARMS_FILE,
    DIFFERENCES,
    DIFFERENCES_FILE,
    LEAKAGE_FILE,
    PAGE,
    PLOT,
    Made,
    difference_row,
    not_scored,
)
from pipeline.store.files import remove, write_bytes


def write_tables(comparison: Comparison, results: Results, made: Made) -> list[Path]:
    """Write all that there is; the plot where the extra ``report`` is installed and anything is scored.

    Raises:
        OSError: a file can't be written.
    """
    from pipeline.publish.report.figures import is_installed, png

    folder = comparison.output_folder
    rows = [difference_row(each) for each in results.differences]
    tables = [(ARMS_FILE, ARMS, results.arms), (DIFFERENCES_FILE, DIFFERENCES, rows)]
    tables.append((LEAKAGE_FILE, LEAKAGE, results.leakage))
    written = []
    notes = {f"mpg.{name}": words for name, words in vars(made).items()}
    notes |= {f"mpg.not_scored.{each.name}": str(each.not_scored) for each in not_scored(comparison)}
    for name, schema, content in tables:
        if content:
            buffer = io.BytesIO()
            pq.write_table(pa.Table.from_pylist(content, schema=schema.with_metadata(notes)), buffer)
            write_bytes(buffer.getvalue(), folder / name)
            written.append(folder / name)
        else:  # of another run of it
            remove(folder / name)
    figures = _figures(comparison, results) if is_installed() else []
    if figures:
        write_bytes(png(figures), folder / PLOT)
        written.append(folder / PLOT)
    else:
        remove(folder / PLOT)
    write_bytes(page(comparison, results, made, has_plot=bool(figures)).encode(), folder / PAGE)
    return [*written, folder / PAGE]


def _ends(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Of the interval of joint adherence; none where it says nothing."""
    width = row["joint_half_width"]
    if not says_something(width, row["n_prompts"]):
        return {"low": None, "high": None}
    return {"low": max(0.0, row["joint"] - width), "high": min(1.0, row["joint"] + width)}


def _figures(comparison: Comparison, results: Results) -> list[Any]:
    """A plot for each task, of its last stage together with what the screening alone has."""
    from pipeline.publish.report import charts
    from pipeline.publish.report.parts import Figure

    figures = []
    for task in comparison.tasks:
        last = {label_of(row): row for row in results.arms if row["task"] == task.name}  # the final's come last
        rows = [row for row in last.values() if row["joint"] is not None and math.isfinite(row["perplexity"])]
        if not rows:
            continue
        points = [
            {
                "perplexity": row["perplexity"],
                "joint": row["joint"],
                **_ends(row),
                "curve": row["curve"],
                "set": row["method"],
                "row": label_of(row),
                "order": row["strength"] or 0.0,
                "texts": row["n_texts"],
            }
            for row in rows
        ]
        known = [(point["perplexity"], point["joint"]) for point in points]
        front = [points[i] for i in pareto_front(known, more_is_better=(False, True))]
        methods = [m.name for m in comparison.methods if any(point["set"] == m.name for point in points)]
        told = "; ".join(f"{p['row']}: {p['joint']:.2f} at {p['perplexity']:.2f}" for p in points)
        label = f"Joint adherence against perplexity, {task.name}. {told}."
        figures.append(Figure(charts.strengths(points, front, methods), task.name, label))
    return figures
