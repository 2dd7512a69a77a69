"""Sections on what the judges found: control, leakage, the simplex, joint adherence, quality."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from evaluation.statistics.aggregate import Mean, clustered_mean
from pipeline.publish.report.measures import Measures, OfPersona
from pipeline.publish.report.parts import Section, Shown, Table, number
from pipeline.publish.report.side_by_side import MOST_ROWS, Ms, across, left_out, nothing, persona_table, yes


def control(ms: Ms, shown: Shown) -> Section:
    """Adherence against weight."""
    attributes = list(dict.fromkeys(name for m in ms for name in m.curves))
    lines = Table(
        "How far each weight controls its attribute's score",
        ["attribute", *across(ms, ["slope", "Spearman", "monotone", "the reference's own"])],
        [
            [
                shown[a],
                *(m.curves[a].slope.shown if a in m.curves else "-" for m in ms),
                *(number(m.curves[a].spearman if a in m.curves else None) for m in ms),
                *(yes(m.curves[a].monotone if a in m.curves else None) for m in ms),
                *(m.of_reference[a].shown if a in m.of_reference else "-" for m in ms),
            ]
            for a in attributes
        ],
    )
    rows, links = [], []
    for a in attributes:
        points: dict[tuple[float, float], dict[int, tuple[Mean, float]]] = {}
        for k, m in enumerate(ms):
            for point in m.curves[a].points if a in m.curves else ():
                points.setdefault((point.low, point.high), {})[k] = (point.score, point.weight)
        for (low, high), found in sorted(points.items()):
            weight = f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"
            scores = [found[k][0].shown if k in found else "-" for k in range(len(ms))]
            counts = [str(found[k][0].n) if k in found else "-" for k in range(len(ms))]
            rows.append([shown[a], weight, *scores, *counts])
            links.append({"attribute": a, "low": low, "high": high})
    points_table = Table(
        "Judged score by weight",
        ["attribute", "weight", *across(ms, ["score", "texts"])],
        rows[:MOST_ROWS],
        2,
        links[:MOST_ROWS],
        left_out(rows, "rows"),
        is_brief=False,
    )
    lead = (
        "Each point is the mean judged score of the texts whose persona gives an attribute that weight, with its 95 % "
        "interval over prompts. The dashed diagonal is perfect control: the score equals the weight. The dotted line "
        "is the score of the reference model alone.",
    )
    if not attributes:
        return Section("control", "Adherence against weight", [nothing(ms)])
    return Section("control", "Adherence against weight", lead, [lines, points_table])


def leakage(ms: Ms, shown: Shown) -> Section:
    """What each weight does to all scores."""
    known = [m for m in ms if m.leakage is not None and m.of.attributes]
    if not known:
        return Section("leakage", "Leakage", [nothing(ms)])
    baselines = {m.leakage.baseline for m in known if m.leakage is not None}
    lead = [
        "How far the weight of one attribute (row) moves the judged score of another (column), the other weights held: "
        "the coefficients of a linear model of the score on all weights. Perfect control is 1 on the diagonal and 0 "
        "elsewhere; what stands elsewhere leaks."
    ]
    if "reference" in baselines:
        lead.append("Effects are measured from the texts of the reference alone.")
    if "others" in baselines:
        lead.append(
            "Where there are no texts of the reference alone, effects on a score are measured from the mean of what "
            "all other attributes make of it."
        )
    if len(known) == 1:
        (m,) = known
        assert m.leakage is not None
        rows = [
            [shown[a], *(e.shown for e in effects)]
            for a, effects in zip(m.of.attributes, m.leakage.effects, strict=True)
        ]
        header = ["weight of", *(f"score of {shown[b]}" for b in m.of.judged)]
        return Section("leakage", "Leakage", lead, [Table("Effect of a weight on a score", header, rows)])
    found: dict[tuple[str, str], dict[int, str]] = {}
    for k, m in enumerate(ms):
        if m.leakage is not None:
            for a, effects in zip(m.of.attributes, m.leakage.effects, strict=True):
                for b, effect in zip(m.of.judged, effects, strict=True):
                    found.setdefault((a, b), {})[k] = effect.shown
    rows = [[shown[a], shown[b], *(each.get(k, "-") for k in range(len(ms)))] for (a, b), each in found.items()]
    table = Table(
        "Effect of a weight on a score",
        ["weight of", "score of", *(m.of.name for m in ms)],
        rows[:MOST_ROWS],
        n_text=2,
        note=left_out(rows, "pairs"),
    )
    return Section("leakage", "Leakage", lead, [table])


def simplex(ms: Ms, shown: Shown) -> Section | None:
    """Only of data sets that weight three attributes."""
    known = [m for m in ms if len(m.of.attributes) == 3 and m.is_judged]
    if not known:
        return None
    rows = []
    for m in known:
        for p in m.personas:
            if p.weights:
                texts = np.flatnonzero(m.of.persona_of == p.index)
                scores = [_shown_mean(m, texts, column) for column in range(3)]
                rows.append(
                    [m.of.name, shown[p.name], *(f"{p.weights.get(a, 0.0):.2f}" for a in m.of.attributes), *scores]
                )
                if len(rows) > MOST_ROWS:
                    break
    n = sum(len(m.personas) - sum(not p.weights for p in m.personas) for m in known)
    header = ["data set", "persona", *(f"weight {i}" for i in "123"), *(f"score {i}" for i in "123")]
    if len({m.of.attributes for m in known}) == 1:
        names = [shown[a] for a in known[0].of.attributes]
        header = ["data set", "persona", *(f"weight of {a}" for a in names), *(f"score of {a}" for a in names)]
    note = f"The first {MOST_ROWS:,} of {n:,} personas." if n > MOST_ROWS else ""
    table = Table("Scores over the simplex", header, rows[:MOST_ROWS], 2, note=note, is_brief=False)
    lead = (
        "Three weights that sum to 1 are a point of a triangle: at a corner one attribute has all the weight. Under "
        "perfect control each score is darkest at its own corner and fades evenly towards the opposite side.",
    )
    return Section("simplex", "The simplex of three weights", lead, [table])


def _shown_mean(m: Measures, texts: np.ndarray, column: int) -> str:
    return clustered_mean(*m.scores(column, texts)).shown


def joint(ms: Ms, shown: Shown) -> Section:
    """Whether texts carry all at once."""
    sizes = sorted({size for m in ms for size in m.joint_by_size})
    if not sizes:
        return Section("joint", "Joint adherence", [nothing(ms)])
    by_size = Table(
        "By number of attributes that a persona asks for",
        ["attributes", *across(ms, ["joint"]), "at chance"],
        [
            [
                str(size),
                *(m.joint_by_size[size].shown if size in m.joint_by_size else "-" for m in ms),
                f"{0.5**size:.3g}",
            ]
            for size in sizes
        ],
    )
    columns: list[tuple[str, Callable[[OfPersona], str]]] = [
        ("joint", lambda p: p.joint.shown),
        ("adherence", lambda p: p.adherence.shown),
        ("worst attribute", lambda p: f"{shown[p.worst[0]]} {p.worst[1].shown}" if p.worst else "-"),
    ]
    lead = (
        "The share of texts in which every attribute that the persona asks for is judged above 0.5, in one text, with "
        "its 95 % interval over prompts. The tick is what scores at chance would give, a half for each attribute.",
    )
    return Section(
        "joint", "Joint adherence", lead, [by_size, persona_table(ms, shown, "By persona", columns, control=False)]
    )


def quality(ms: Ms, shown: Shown) -> Section:
    """What adherence costs."""
    columns: list[tuple[str, Callable[[OfPersona], str]]] = [
        ("perplexity", lambda p: number(p.perplexity)),
        ("adherence", lambda p: p.adherence.shown),
        ("on the front", lambda p: yes(p.on_front) if p.weights else "-"),
        ("texts", lambda p: f"{p.n:,}"),
    ]
    lead = (
        "Adherence is the mean judged score of a persona's own attributes. Quality is how usual its texts are to the "
        "reference model, told nothing of the attributes: their perplexity under it, at the decoder's temperature; "
        "lower is more usual, which is not the same as better. The line is the Pareto front of each data set: no other "
        "persona is both more usual and more adherent. The dotted line is the reference's own perplexity.",
    )
    table = persona_table(ms, shown, "Quality and adherence by persona", columns, control=True)
    return Section("quality", "Quality against adherence", lead, [table])
