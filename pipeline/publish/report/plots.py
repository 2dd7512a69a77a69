"""The plots of a report's sections, from the numbers of its data sets; needs the extra ``report``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.statistics.aggregate import Mean
from evaluation.statistics.control import Point
from pipeline.publish.report import charts
from pipeline.publish.report.measures import Measures, OfPersona
from pipeline.publish.report.parts import Figure, Shown, interval, number

# What a plot can show before nobody can read it; the tables go on, and so does the text below the plot.
MOST_CURVES, MOST_CELLS, MOST_POINTS, MOST_LINES, MOST_PERSONAS, MOST_PROMPTS = 24, 16, 300, 40, 40, 48
# Texts of a simplex are put together at multiples of this where there are more personas than points.
_LATTICE = 20


def control(ms: Sequence[Measures], names: charts.Names, shown: Shown) -> list[Figure]:
    """One plot for each attribute, all data sets in it."""
    attributes = list(dict.fromkeys(name for m in ms for name in m.curves))[:MOST_CURVES]
    attributes = [a for a in attributes if any(p.score.value is not None for m in ms for p in _points(m, a))]
    return [control_of(attribute, ms, names, shown) for attribute in attributes]


def _points(m: Measures, attribute: str) -> Sequence[Point]:
    return m.curves[attribute].points if attribute in m.curves else ()


def control_of(attribute: str, ms: Sequence[Measures], names: charts.Names, shown: Shown) -> Figure:
    """Score against weight of one attribute."""
    points: charts.Rows = []
    references: charts.Rows = []
    said = []
    weights = [0.0, 1.0]
    for m, name in zip(ms, names.data_sets, strict=True):
        curve = m.curves.get(attribute)
        if curve is None:
            continue
        for point in curve.points:
            if point.score.value is not None:
                low, high = interval(point.score)
                row = {"weight": point.weight, "score": point.score.value, "low": low, "high": high}
                link = {"attribute": attribute, "low": point.low, "high": point.high}
                points.append(row | {"texts": point.score.n, "set": name, "link": link})
            weights = [min(weights[0], point.low), max(weights[1], point.high)]
        if attribute in m.of_reference:
            references.append({"score": m.of_reference[attribute].value, "set": name})
        ends = [p for p in curve.points if p.score.value is not None]
        if ends:
            said.append(
                f"{name}: from {number(ends[0].score.value)} at weight {ends[0].weight:.2f} to "
                f"{number(ends[-1].score.value)} at {ends[-1].weight:.2f}, slope {curve.slope.shown}"
            )
    caption = shown[attribute]
    label = f"Judged score of {caption} against its weight, with the diagonal of perfect control. {'; '.join(said)}."
    return Figure(charts.curve(points, references, names, (weights[0], weights[1])), caption, label, small=True)


def leakage(ms: Sequence[Measures], names: charts.Names, shown: Shown) -> list[Figure]:
    """A heat map for each data set."""
    figures = []
    for m, name in zip(ms, names.data_sets, strict=True):
        if m.leakage is None or not m.of.attributes:
            continue
        rows, columns = m.of.attributes[:MOST_CELLS], _scored(m)[:MOST_CELLS]
        where = [m.of.judged.index(b) for b in columns]
        cells = [
            {"row": shown[a], "column": shown[b], "value": found.value, "shown": found.shown.partition("±")[0]}
            for a, effects in zip(rows, m.leakage.effects, strict=False)
            for b, found in zip(columns, [effects[j] for j in where], strict=True)
        ]
        if all(cell["value"] is None for cell in cells):
            continue
        spec = charts.heat(
            cells,
            [shown[a] for a in rows],
            [shown[b] for b in columns],
            titles=("weight of", "score of"),
            legend="effect on the score",
            domain=(-1.0, 1.0),
            diverging=True,
            labelled=True,
        )
        told = ", ".join(f"{c['row']} on {c['column']} {c['shown']}" for c in cells if c["row"] == c["column"])
        label = f"Heat map of {name}: effect of each attribute's weight on every attribute's score. On itself: {told}."
        figures.append(Figure(spec, name if len(ms) > 1 else "", label, small=len(ms) > 1))
    return figures


def _scored(m: Measures) -> list[str]:
    """Attributes that a judge that counts was asked about: of the others there is nothing to see."""
    return [name for j, name in enumerate(m.of.judged) if m.of.is_judged[:, j].any()]


def simplex(ms: Sequence[Measures], names: charts.Names, shown: Shown) -> list[Figure]:
    """A triangle for each attribute of data sets that weight three."""
    figures = []
    for m, name in zip(ms, names.data_sets, strict=True):
        if len(m.of.attributes) != 3:
            continue
        corners = [shown[a] for a in m.of.attributes]
        for column, attribute in enumerate(m.of.attributes):
            if not m.of.is_judged[:, column].any():
                continue
            points = _on_simplex(m, column, shown)
            low, high = (f([p["score"] for p in points if p["score"] is not None]) for f in (min, max))
            label = (
                f"Simplex of {', '.join(corners)}, coloured by the score of {shown[attribute]}, from {low:.2f} to "
                f"{high:.2f}, in {name}."
            )
            caption = f"score of {shown[attribute]}" + (f", {name}" if len(ms) > 1 else "")
            figures.append(Figure(charts.simplex(points, corners), caption, label, small=True))
    return figures


def _on_simplex(m: Measures, column: int, shown: Shown) -> charts.Rows:
    """Mean scores by place: of each vector of weights, or put together at a lattice's points."""
    texts = np.flatnonzero(m.is_asked & ~np.isnan(m.of.scores[:, column]))
    weights = m.of.weights[texts]
    if len(np.unique(weights, axis=0)) > MOST_POINTS:
        weights = np.round(weights * _LATTICE) / _LATTICE
    places, which = np.unique(weights, axis=0, return_inverse=True)
    which = which.reshape(-1)
    n = np.bincount(which, minlength=len(places))
    means = np.bincount(which, weights=m.of.scores[texts, column], minlength=len(places)) / np.maximum(1, n)
    if not len(places):
        return [{"weights": [1.0, 0.0, 0.0], "score": 0.0, "texts": 0, "persona": ""}]
    words = [" ".join(f"{shown[a]}{w:.2f}" for a, w in zip(m.of.attributes, place, strict=True)) for place in places]
    return [
        {"weights": place.tolist(), "score": float(score), "texts": int(k), "persona": word}
        for place, score, k, word in zip(places, means, n, words, strict=True)
    ]


def quality(ms: Sequence[Measures], names: charts.Names, shown: Shown) -> list[Figure]:
    """All data sets in one plot."""
    points: charts.Rows = []
    front: charts.Rows = []
    references: charts.Rows = []
    for m, name in zip(ms, names.data_sets, strict=True):
        known = [p for p in m.personas if p.adherence.value is not None and np.isfinite(p.perplexity)]
        points += [_point(p, name, shown) for p in thinned(known, MOST_POINTS // len(ms))]
        best = sorted((p for p in known if p.on_front), key=lambda p: p.perplexity)
        front += [_point(p, name, shown) for p in best[:MOST_POINTS]]
        alone = [p for p in m.personas if not p.weights and np.isfinite(p.perplexity)]
        references += [{"perplexity": p.perplexity, "set": name} for p in alone]
    if not points:
        return []
    told = "; ".join(
        f"{p['persona']}: perplexity {p['perplexity']:.2f}, adherence {p['adherence']:.2f}" for p in front[:6]
    )
    label = f"Judged adherence against perplexity under the reference, by persona. On the Pareto front: {told}."
    return [Figure(charts.quality(points, front, references, names), "", label)]


def thinned(personas: Sequence[OfPersona], most: int) -> list[OfPersona]:
    """At most so many: those on a front, and others evenly spaced in their order."""
    if len(personas) <= most:
        return list(personas)
    best = [p for p in personas if p.on_front][:most]
    others = [p for p in personas if not p.on_front]
    room = most - len(best)
    return best + [others[i * len(others) // room] for i in range(room)]


def _point(p: OfPersona, name: str, shown: Shown) -> dict[str, Any]:
    low, high = interval(p.adherence)
    point = {"perplexity": p.perplexity, "adherence": p.adherence.value, "low": low, "high": high}
    return point | {"persona": shown[p.name], "set": name, "texts": p.adherence.n, "link": {"persona": p.name}}


def joint(ms: Sequence[Measures], names: charts.Names, shown: Shown) -> list[Figure]:
    """By number of attributes, and by persona where these are not too many."""
    sizes = sorted({size for m in ms for size in m.joint_by_size})
    if not sizes:
        return []
    by_size = [
        _share(str(size), m.joint_by_size[size], name, 0.5**size)
        for m, name in zip(ms, names.data_sets, strict=True)
        for size in m.joint_by_size
    ]
    if not _known(by_size):
        return []
    told = "; ".join(f"{p['set']}, {p['row']}: {number(p['share'])}" for p in by_size if p["share"] is not None)
    figures = []
    personas = list(dict.fromkeys(p.name for m in ms for p in m.personas if p.weights))
    if len(personas) <= MOST_LINES:
        by_persona = [
            _share(shown[p.name], p.joint, name, 0.5 ** len(p.weights)) | {"link": {"persona": p.name}}
            for m, name in zip(ms, names.data_sets, strict=True)
            for p in m.personas
            if p.weights
        ]
        spec = charts.dots(_known(by_persona), [shown[p] for p in personas], names, title=_SHARE, y_title="")
        figures.append(Figure(spec, "by persona", f"Joint adherence by persona. {told}."))
    if len(sizes) > 1 or not figures:
        spec = charts.dots(_known(by_size), [str(s) for s in sizes], names, title=_SHARE, y_title="attributes")
        label = f"Joint adherence by the number of attributes that a persona asks for. {told}."
        figures.append(Figure(spec, "by number of attributes", label))
    return figures


_SHARE = "share of texts that carry all"


def _share(row: str, mean: Mean, name: str, chance: float) -> dict[str, Any]:
    low, high = interval(mean)
    return {"row": row, "share": mean.value, "low": low, "high": high, "chance": chance, "texts": mean.n, "set": name}


def _known(points: charts.Rows) -> charts.Rows:
    return [point for point in points if point["share"] is not None]


def cells(ms: Sequence[Measures], names: charts.Names, shown: Shown) -> list[Figure]:
    """Acceptance by persona and prompt, and the bound of texts that are not exact."""
    figures = []
    for m, name in zip(ms, names.data_sets, strict=True):
        beside = f", {name}" if len(ms) > 1 else ""
        bound = np.where(m.of.exact, np.nan, m.of.tv_bound)
        for values, what in ((m.of.acceptance, "acceptance"), (bound, "bound on the total variation")):
            personas = sorted(set(m.of.persona_of[~np.isnan(values)].tolist()))[:MOST_PERSONAS]
            if not personas:
                continue
            prompts = range(min(MOST_PROMPTS, len(m.of.prompts)))
            grid = m.grid(values, personas, prompts)
            cells = [
                {
                    "row": shown[m.of.personas[p]],
                    "column": shown[m.of.prompts[q]],
                    "value": float(grid[i, j]),
                    "shown": f"{grid[i, j]:.2f}",
                    "link": {"persona": m.of.personas[p]},
                }
                for i, p in enumerate(personas)
                for j, q in enumerate(prompts)
                if not np.isnan(grid[i, j])
            ]
            if not cells:
                continue
            spec = charts.heat(
                cells,
                [shown[m.of.personas[p]] for p in personas],
                [shown[m.of.prompts[q]] for q in prompts],
                titles=("", "prompt"),
                legend=what,
                domain=(0.0, 1.0),
                diverging=False,
                labelled=False,
            )
            low, high = np.nanmin(grid), np.nanmax(grid)
            label = f"Heat map of the {what} by persona and prompt{beside}, from {low:.2f} to {high:.2f}."
            figures.append(Figure(spec, f"{what}{beside}", label))
    return figures


def judges(ms: Sequence[Measures], names: charts.Names, shown: Shown) -> list[Figure]:
    """Rank correlation of every two judges, attribute by attribute."""
    figures = []
    for m, name in zip(ms, names.data_sets, strict=True):
        attributes = list(m.agreements)[:MOST_CELLS]
        pairs = list(dict.fromkeys(pair for a in attributes for pair in m.agreements[a]))[:MOST_CELLS]
        words = {pair: f"{shown[pair[0]]} / {shown[pair[1]]}" for pair in pairs}
        cells = [
            {"row": words[pair], "column": shown[a], "value": found.spearman, "shown": number(found.spearman, "+.2f")}
            for a in attributes
            for pair, found in m.agreements[a].items()
            if pair in words
        ]
        if not any(cell["value"] is not None for cell in cells):
            continue
        spec = charts.heat(
            cells,
            list(words.values()),
            [shown[a] for a in attributes],
            titles=("judges", "attribute"),
            legend="Spearman",
            domain=(-1.0, 1.0),
            diverging=True,
            labelled=True,
        )
        told = ", ".join(f"{c['row']} on {c['column']}: {c['shown']}" for c in cells[:8])
        figures.append(Figure(spec, name if len(ms) > 1 else "", f"Heat map of judges' rank correlation. {told}."))
    return figures


def limits(key: str, ms: Sequence[Measures], figures: Sequence[Figure]) -> list[str]:
    """What a section's plots leave out, in a line each."""
    attributes = len({name for m in ms for name in m.curves})
    judged = max(max(len(m.of.attributes), len(_scored(m))) for m in ms)
    personas, prompts = max(len(m.of.personas) for m in ms), max(len(m.of.prompts) for m in ms)
    points = MOST_POINTS // len(ms)
    said = {
        "control": (attributes > MOST_CURVES, f"Plotted are the first {MOST_CURVES} of {attributes:,} attributes."),
        "leakage": (judged > MOST_CELLS, f"Plotted are the first {MOST_CELLS} of {judged:,} attributes."),
        "simplex": (personas > MOST_POINTS, f"Texts are put together at multiples of 1/{_LATTICE} of each weight."),
        "joint": (personas > MOST_LINES + 1, "There are too many personas to plot each."),
        "quality": (
            personas > points,
            f"Plotted are at most {points} of a data set's personas: those on the front, and others evenly spaced in "
            f"their order. There are up to {personas:,}.",
        ),
        "cells": (
            personas > MOST_PERSONAS or prompts > MOST_PROMPTS,
            f"Plotted are at most the first {MOST_PERSONAS} of {personas:,} personas and {MOST_PROMPTS} of "
            f"{prompts:,} prompts.",
        ),
    }
    is_limited, words = said.get(key, (False, ""))
    return [words] if is_limited and figures else []
