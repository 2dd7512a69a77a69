"""What a comparison leaves for readers: two tables as Parquet, one page of Markdown, one plot."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.statistics.aggregate import LEAST_CLUSTERS, WIDEST, Mean
from evaluation.statistics.pareto import pareto_front
from evaluation.tables import code, escaped, markdown
from pipeline.compare.arms import point_label
from pipeline.compare.differences import Compared
from pipeline.compare.leaks import LEAKAGE
from pipeline.compare.measures import ARMS
from pipeline.compare.model import Comparison, Method
from pipeline.compare.run import Results
from pipeline.store.files import remove, write_bytes

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


def write_tables(comparison: Comparison, results: Results, made: Made) -> list[Path]:
    """Write all that there is; the plot where the extra ``report`` is installed and anything is scored.

    Raises:
        OSError: a file can't be written.
    """
    from pipeline.publish.report.figures import is_installed, png

    folder = comparison.output_folder
    rows = [_row(each) for each in results.differences]
    tables = [(ARMS_FILE, ARMS, results.arms), (DIFFERENCES_FILE, DIFFERENCES, rows)]
    tables.append((LEAKAGE_FILE, LEAKAGE, results.leakage))
    written = []
    notes = {f"mpg.{name}": words for name, words in vars(made).items()}
    notes |= {f"mpg.not_scored.{each.name}": str(each.not_scored) for each in _not_scored(comparison)}
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


def _row(each: Compared) -> dict[str, Any]:
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


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:{form}}"


def _says_something(half_width: float | None, n_prompts: int) -> bool:
    """As :attr:`evaluation.statistics.aggregate.Mean.shown` has it."""
    return half_width is not None and half_width <= WIDEST and n_prompts >= LEAST_CLUSTERS


def _with_width(value: float | None, half_width: float | None, n_prompts: int, form: str = ".3f") -> str:
    """``0.512±0.031``, of 95 %; ``0.512±?`` where the interval says nothing."""
    if value is None:
        return "-"
    width = f"{half_width:{form.lstrip('+')}}" if _says_something(half_width, n_prompts) else "?"
    return f"{value:{form}}±{width}"


_COLUMNS = (
    "point", "texts", "score", "joint", "worst", "perplexity", "KL", "known", "distinct-2", "self-BLEU", "spread",
    "between", "tokens/s", "rounds/token",
)  # fmt: skip


def page(comparison: Comparison, results: Results, made: Made, *, has_plot: bool) -> str:
    """All in Markdown. No text and no prompt stands in it."""
    parts = [
        f"# {escaped(comparison.name)}",
        f"{code(made.command)}, {escaped(made.machine)}, {made.date}.",
        _HOW.format(factor=_budget(comparison)),
    ]
    if has_plot:
        parts.append(f"![Joint adherence against perplexity, by task]({PLOT})")
        parts.append("Points that the final has written are its own, all others the screening's.")
    if results.differences:
        parts += ["## Finalists against baselines, at equal perplexity", _sizes(comparison, results)]
        parts.append(markdown(_DIFFERENCE_COLUMNS, [_cells(each) for each in results.differences], n_text=5))
    chosen = [point.label for point in results.chosen]
    leaks = [row for row in results.leakage if not chosen or _label(row) in chosen]
    parts += _leakage(leaks)
    if absent := _not_scored(comparison):
        parts.append("## Named and not scored")
        parts.append(markdown(["method", "why"], [[each.name, str(each.not_scored)] for each in absent], n_text=2))
    stages = list(dict.fromkeys(row["stage"] for row in results.arms))
    for stage in reversed(stages):
        for task in comparison.tasks:
            rows = [row for row in results.arms if (row["stage"], row["task"]) == (stage, task.name)]
            if not rows:
                continue
            parts += [f"## {stage}: {escaped(task.name)}", *_task(rows)]
    return "\n\n".join(parts) + "\n"


def _not_scored(comparison: Comparison) -> list[Method]:
    return [each for each in comparison.methods if each.not_scored is not None]


_HOW = """*score*: mean over texts of the mean of a text's own attributes, by the judges that count; *joint*: share of
texts in which all of them are above 0.5; ± is the half-width of a 95 % interval by prompt, `±?` one that says nothing.
*perplexity*: of the text as the tokenizer reads it, under the bare reference that is told nothing, at the base's
temperature; *KL*: nats a token to it, of the law before truncation, where books say it. *known*: share of the
project's questions with known answers that are answered rightly. *distinct-2*, *self-BLEU*,
*spread* (1 - cosine of embeddings): within a persona; *between*: of personas. *rounds/token*: drafts with their
verification, 1 is token by token.

A baseline stands at its own best at no more perplexity than the finalist: over all its curves the best point, or place
between two neighbouring strengths, where scores and the logarithm of the perplexity are mixed linearly (a corpus of
which that share is written at each). *side*: `equal`, or the place has a `lower` or (it has nothing so cheap) a
`higher` perplexity, or tasks are `mixed` in that. Differences are paired by persona and prompt, tested by Student's t
over prompts, and corrected for all comparisons by Holm's rule. The screening's prompts are not the final's. {factor}"""


def _budget(comparison: Comparison) -> str:
    final = comparison.final
    if final.perplexity_of is None:
        return "Finalists are the best by score, whatever their perplexity."
    return f"Finalists have at most {final.perplexity_factor:g} times the perplexity of {escaped(final.perplexity_of)}."


def _sizes(comparison: Comparison, results: Results) -> str:
    final, lines = comparison.final, []
    for task, size in results.sizes.items():
        n = f"{escaped(task)}: {size.n_prompts} prompts x {size.per_prompt} texts"
        if math.isfinite(size.power):
            n += f", power {size.power:.2f}{'' if size.enough else ' (as many as there may be)'}"
        lines.append(n)
    if final.texts is not None:
        return "As many texts as the file says. " + "; ".join(lines) + "."
    return (
        f"Sizes for finding a difference of {final.difference:g} with a power of {final.power:g} at a level of "
        f"{final.level:g} for all comparisons, from the screening's spread of paired differences: {'; '.join(lines)}."
    )


_DIFFERENCE_COLUMNS = (
    "task", "finalist", "baseline", "at", "side", "perplexity", "against", "joint", "against ", "score", "against  ",
    "difference", "relative", "p (Holm)",
)  # fmt: skip


def _cells(each: Compared) -> list[str]:
    row = _row(each)
    relative = None if row["relative"] is None else 100 * row["relative"]
    nowhere = "not scored" if row["side"] is None else "each task's"
    return [
        row["task"], row["finalist"], row["baseline"], row["at"] or nowhere, row["side"] or "-",
        *(_number(row[f"{who}_perplexity"], ".2f") for who in ("finalist", "baseline")),
        *(_number(row[f"{who}_{what}"]) for what in ("joint", "score") for who in ("finalist", "baseline")),
        _with_width(row["difference"], row["half_width"], row["n_prompts"], "+.3f"),
        "-" if relative is None else f"{relative:+.1f} %", _number(row["p_holm"], ".2g"),
    ]  # fmt: skip


def _task(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A stage's tables of one task."""
    best = set(pareto_front([(row["perplexity"], row["joint"]) for row in rows], more_is_better=(False, True)))
    arms, scores, control, judged = list[list[str]](), list[list[str]](), list[list[str]](), list[list[str]]()
    names = list(dict.fromkeys(each["attribute"] for row in rows for each in row["attributes"]))
    families = list(dict.fromkeys(each["family"] for row in rows for each in row["families"]))
    for i, row in enumerate(rows):
        label = _label(row)
        unscored = f" ({row['n_unscored']} unscored)" if row["n_unscored"] else ""
        worst = "-" if row["worst_attribute"] is None else f"{row['worst_attribute']} {_number(row['worst_score'])}"
        arms.append([
            label + (" *" if i in best else ""), f"{row['n_texts']}{unscored}",
            *(_with_width(row[key], row[f"{key}_half_width"], row["n_prompts"]) for key in ("score", "joint")),
            worst, _number(row["perplexity"], ".2f"), _number(row["kl_per_token"]),
            _with_width(row["known"], row["known_half_width"], LEAST_CLUSTERS, ".2f"),
            *(_number(row[key], ".2f") for key in ("distinct_2", "self_bleu", "spread_within", "spread_between")),
            _number(row["tokens_per_s"], ".0f"), _number(row["rounds_per_token"], ".2f"),
        ])  # fmt: skip
        of = {each["attribute"]: each for each in row["attributes"]}
        by = {each["family"]: each for each in row["families"]}
        missing = {"mean": None, "half_width": None}
        both = [of.get(name, missing) for name in names] + [by.get(name, missing) for name in families]
        n = row["n_prompts"]
        scores.append([label, *(_with_width(each["mean"], each["half_width"], n, ".2f") for each in both)])
        control += [
            [label, each["attribute"], *(_number(each[key], ".2f") for key in ("slope", "spearman")),
             "-" if each["monotone"] is None else "yes" if each["monotone"] else "no"]
            for each in row["control"]
        ]  # fmt: skip
        judged += [
            [label, each["attribute"], each["judges"], f"{each['n']}", _number(each["kappa"], ".2f"),
             _number(each["spearman"], ".2f")]
            for each in row["agreement"]
        ]  # fmt: skip
    parts = [markdown(_COLUMNS, arms), "\\* on the front of joint adherence against perplexity.",
             markdown(["point", *names, *(f"score by {family}" for family in families)], scores)]  # fmt: skip
    if control:
        parts.append(markdown(["point", "weight of", "slope of its score", "Spearman", "monotone"], control, n_text=2))
    if judged:
        columns = ["point", "attribute", "judges", "texts", "kappa", "Spearman"]
        parts.append("<details><summary>Agreement of the families of judges</summary>\n\n"
                     f"{markdown(columns, judged, n_text=3)}\n\n</details>")  # fmt: skip
    return parts


def _leakage(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A point's matrix a table, of all tasks together."""
    parts = []
    for label in dict.fromkeys(map(_label, rows)):
        mine = [row for row in rows if _label(row) == label]
        judged = list(dict.fromkeys(row["score_of"] for row in mine))
        lines = []
        for name in dict.fromkeys(row["weight_of"] for row in mine):
            of = {row["score_of"]: row for row in mine if row["weight_of"] == name}
            lines.append([name, *(_effect(of.get(each)) for each in judged)])
        source = "the reference's texts" if mine[0]["baseline"] == "reference" else "what other attributes do"
        parts += [f"## Leakage: {escaped(label)}, from {source}",
                  markdown(["weight of", *(f"score of {name}" for name in judged)], lines)]  # fmt: skip
    return parts


def _effect(row: Mapping[str, Any] | None) -> str:
    return "-" if row is None else _with_width(row["effect"], row["half_width"], LEAST_CLUSTERS, "+.2f")


def _label(row: Mapping[str, Any]) -> str:
    return point_label(row["curve"], row["strength"])


def _ends(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Of the interval of joint adherence; none where it says nothing."""
    width = row["joint_half_width"]
    if not _says_something(width, row["n_prompts"]):
        return {"low": None, "high": None}
    return {"low": max(0.0, row["joint"] - width), "high": min(1.0, row["joint"] + width)}


def _figures(comparison: Comparison, results: Results) -> list[Any]:
    """A plot for each task, of its last stage together with what the screening alone has."""
    from pipeline.publish.report import charts
    from pipeline.publish.report.parts import Figure

    figures = []
    for task in comparison.tasks:
        last = {_label(row): row for row in results.arms if row["task"] == task.name}  # the final's come last
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
                "row": _label(row),
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
