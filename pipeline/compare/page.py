"""A comparison on one page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.statistics.aggregate import LEAST_CLUSTERS, WIDEST
from evaluation.statistics.joint import CARRIED
from evaluation.statistics.pareto import pareto_front
from evaluation.tables import code, escaped, markdown
from pipeline.compare.arms import point_label
from pipeline.compare.differences import Compared
from pipeline.compare.model import Comparison
from pipeline.compare.run import Results, Shown
from pipeline.compare.tables import PLOT, Made, difference_row, not_scored


def _number(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:{form}}"


def says_something(half_width: float | None, n_prompts: int) -> bool:
    """As :attr:`evaluation.statistics.aggregate.Mean.shown` has it."""
    return half_width is not None and half_width <= WIDEST and n_prompts >= LEAST_CLUSTERS


def _with_width(value: float | None, half_width: float | None, n_prompts: int, form: str = ".3f") -> str:
    """``0.512±0.031``, of 95 %; ``0.512±?`` where the interval says nothing."""
    if value is None:
        return "-"
    width = f"{half_width:{form.lstrip('+')}}" if says_something(half_width, n_prompts) else "?"
    return f"{value:{form}}±{width}"


_COLUMNS = (
    "point", "texts", "score", "joint", "worst", "perplexity", "KL", "known", "distinct-2", "self-BLEU", "spread",
    "between", "tokens/s", "rounds/token", "drawn",
)  # fmt: skip


def page(comparison: Comparison, results: Results, made: Made, *, has_plot: bool) -> str:
    """All in Markdown. No text and no prompt stands in it."""
    parts = [
        f"# {escaped(comparison.name)}",
        f"{code(made.command)}, {escaped(made.machine)}, {made.date}.",
        _HOW.format(factor=_budget(comparison), chosen=_chosen(comparison)),
    ]
    if has_plot:
        parts.append(f"![Joint adherence against perplexity, by task]({PLOT})")
        parts.append("Points that the final has written are its own, all others the screening's.")
    if results.differences:
        parts += ["## Finalists against baselines, at equal perplexity", _sizes(comparison, results)]
        parts.append(markdown(_DIFFERENCE_COLUMNS, [_cells(each) for each in results.differences], n_text=5))
    chosen = [point.label for point in results.chosen]
    leaks = [row for row in results.leakage if not chosen or label_of(row) in chosen]
    parts += _leakage(leaks)
    if absent := not_scored(comparison):
        parts.append("## Named and not scored")
        parts.append(markdown(["method", "why"], [[each.name, str(each.not_scored)] for each in absent], n_text=2))
    stages = list(dict.fromkeys(row["stage"] for row in results.arms))
    parts += _of_all([row for row in results.arms if stages and row["stage"] == stages[-1]])
    for stage in reversed(stages):
        for task in comparison.tasks:
            rows = [row for row in results.arms if (row["stage"], row["task"]) == (stage, task.name)]
            if not rows:
                continue
            parts += [f"## {stage}: {escaped(task.name)}", *_task(rows)]
            if stage == stages[-1]:
                parts += _shown([each for each in results.shown if each.task == task.name])
    return "\n\n".join(parts) + "\n"


_HOW = """*score*: mean over texts of the mean of a text's own attributes, by the judges that count; *joint*: share of
texts in which all of them are above 0.5; ± is the half-width of a 95 % interval by prompt, `±?` one that says nothing.
*perplexity*: of the text as the tokenizer reads it, under the bare reference that is told nothing, at the base's
temperature; *KL*: nats a token to it, of the law before truncation, where books say it. *known*: share of the
project's questions with known answers that are answered rightly. Of a questionnaire *own poles*: share of the
answers that can be read that speak for the persona's own poles; *types right*: share of personas with a majority of
them in every dimension; *error*: distance of shares of answers from shares of weight. *distinct-2*, *self-BLEU*,
*spread* (1 - cosine of embeddings): within a persona; *between*: of personas. *rounds/token*: drafts with their
verification, 1 is token by token. *drawn*: texts drawn for each that is kept.{chosen}

A baseline stands at its own best at no more perplexity than the finalist: over all its curves the best point, or place
between two neighbouring strengths, where scores and the logarithm of the perplexity are mixed linearly (a corpus of
which that share is written at each). *side*: `equal`, or the place has a `lower` or (it has nothing so cheap) a
`higher` perplexity, or tasks are `mixed` in that. Differences are paired by persona and prompt (*pairs*: that both have
texts of; all figures of a line are of these), tested by Student's t over prompts, and corrected for all comparisons by
Holm's rule. The screening's prompts are not the final's. {factor}"""


def _chosen(comparison: Comparison) -> str:
    who = escaped(", ".join(sorted(comparison.choosing)))
    return f"\nOf methods with `accept`, texts are chosen by {who}, which counts in no method's score." if who else ""


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
    "pairs", "difference", "relative", "p (Holm)",
)  # fmt: skip


def _cells(each: Compared) -> list[str]:
    row = difference_row(each)
    relative = None if row["relative"] is None else 100 * row["relative"]
    nowhere = "not scored" if row["side"] is None else "each task's"
    return [
        row["task"], row["finalist"], row["baseline"], row["at"] or nowhere, row["side"] or "-",
        *(_number(row[f"{who}_perplexity"], ".2f") for who in ("finalist", "baseline")),
        *(_number(row[f"{who}_{what}"]) for what in ("joint", "score") for who in ("finalist", "baseline")),
        f"{row['n_pairs']}", _with_width(row["difference"], row["half_width"], row["n_prompts"], "+.3f"),
        "-" if relative is None else f"{relative:+.1f} %", _number(row["p_holm"], ".2g"),
    ]  # fmt: skip


def _task(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A stage's tables of one task."""
    best = set(pareto_front([(row["perplexity"], row["joint"]) for row in rows], more_is_better=(False, True)))
    arms, scores, control, judged = list[list[str]](), list[list[str]](), list[list[str]](), list[list[str]]()
    names = list(dict.fromkeys(each["attribute"] for row in rows for each in row["attributes"]))
    families = list(dict.fromkeys(each["family"] for row in rows for each in row["families"]))
    for i, row in enumerate(rows):
        label = label_of(row)
        unscored = f" ({row['n_unscored']} unscored)" if row["n_unscored"] else ""
        worst = "-" if row["worst_attribute"] is None else f"{row['worst_attribute']} {_number(row['worst_score'])}"
        arms.append([
            label + (" *" if i in best else ""), f"{row['n_texts']}{unscored}",
            *(_with_width(row[key], row[f"{key}_half_width"], row["n_prompts"]) for key in ("score", "joint")),
            worst, _number(row["perplexity"], ".2f"), _number(row["kl_per_token"]),
            _with_width(row["known"], row["known_half_width"], LEAST_CLUSTERS, ".2f"),
            *(_number(row[key], ".2f") for key in ("distinct_2", "self_bleu", "spread_within", "spread_between")),
            _number(row["tokens_per_s"], ".0f"), _number(row["rounds_per_token"], ".2f"),
            _number(row["candidates_per_text"], ".1f"),
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
    put = [
        [label_of(row), each["questionnaire"], *(_number(each[key], ".2f") for key in _OF_ANSWERS),
         f"{each['n_unreadable']} of {each['n_items']}"]
        for row in rows for each in row["questionnaires"]
    ]  # fmt: skip
    if put:
        columns = ["point", "questionnaire", "own poles", "types right", "error", "unread"]
        parts.append(markdown(columns, put, n_text=2))
    if control:
        parts.append(markdown(["point", "weight of", "slope of its score", "Spearman", "monotone"], control, n_text=2))
    if judged:
        columns = ["point", "attribute", "judges", "texts", "kappa", "Spearman"]
        parts.append("<details><summary>Agreement of the families of judges</summary>\n\n"
                     f"{markdown(columns, judged, n_text=3)}\n\n</details>")  # fmt: skip
    return parts


# Of the answers to a questionnaire.
_OF_ANSWERS = ("accuracy", "types_right", "absolute_error")


def _of_all(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Means over the tasks of a stage, of points that all of them have; nothing of a single task."""
    tasks = {row["task"] for row in rows}
    by_point: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_point.setdefault(label_of(row), []).append(row)
    whole = {label: each for label, each in by_point.items() if len(each) == len(tasks)}
    if len(tasks) < 2 or not whole:
        return []
    families = list(dict.fromkeys(each["family"] for row in rows for each in row["families"]))
    lines = []
    for label, each in whole.items():
        by = [{of["family"]: of["mean"] for of in row["families"]} for row in each]
        logs = [None if not row["perplexity"] > 0 else math.log(row["perplexity"]) for row in each]
        spread = _mean_of(logs)
        means = [_mean_of([row[key] for row in each]) for key in ("score", "joint")]
        means += [_mean_of([of.get(family) for of in by]) for family in families]
        lines.append([
            label, f"{sum(row['n_texts'] for row in each)}", *map(_number, means),
            _number(None if spread is None else math.exp(spread), ".2f"),
            _number(_mean_of([row["distinct_2"] for row in each]), ".2f"),
        ])  # fmt: skip
    judged = [f"score by {family}" for family in families]
    columns = ["point", "texts", "score", "joint", *judged, "perplexity", "distinct-2"]
    return [f"## {escaped(rows[0]['stage'])}: all tasks", "Each task counts alike; perplexities are geometric means.",
            markdown(columns, lines)]  # fmt: skip


def _mean_of(values: Sequence[float | None]) -> float | None:
    """``None``: any is missing."""
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(values) else None


def _shown(texts: Sequence[Shown]) -> list[str]:
    """Each text with what of its persona is found in it."""
    if not texts:
        return []
    names = list(dict.fromkeys(name for each in texts for name in each.scores))
    lines = [
        [
            each.point,
            each.persona,
            *(_is_found(each.scores.get(name)) for name in names),
            _one_line(each.response),
        ]
        for each in texts
    ]
    return ["Texts, and which attributes are found in each (score above 0.5):",
            markdown(["point", "persona", *names, "text"], lines, n_text=len(names) + 3)]  # fmt: skip


def _is_found(score: float | None) -> str:
    return "-" if score is None else f"{'yes' if score > CARRIED else 'no'} {score:.2f}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _leakage(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A point's matrix a table, of all tasks together."""
    parts = []
    for label in dict.fromkeys(map(label_of, rows)):
        mine = [row for row in rows if label_of(row) == label]
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


def label_of(row: Mapping[str, Any]) -> str:
    return point_label(row["curve"], row["strength"])
