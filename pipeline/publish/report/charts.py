"""Plots as Vega-Lite specifications, by Altair.

Names of attributes, personas and data sets are values, never names of fields, and stand in no expression: dots,
brackets and quotes in them mean nothing. Colours are CSS's (``var(--s0)``), so that a page's plots follow its light or
dark look and its print; :func:`with_colours` gives a specification those of a picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from pipeline.publish.report.colours import N_SERIES

Rows = list[dict[str, Any]]


_SERIES = [f"var(--s{i})" for i in range(N_SERIES)]
_SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]
_DIVERGING = [f"var(--d{i})" for i in range(9)]
_SEQUENTIAL = [f"var(--q{i})" for i in range(7)]
_INK, _FAINT, _PAPER = "var(--ink)", "var(--faint)", "var(--paper)"
# Of a heat map's cells, in pixels; wider ones fill the room there is.
_CELL = 46
_FILLS = 9
# Characters of a heat map's columns that stand side by side on a phone (about 270 of its 360 pixels, at 7 and a gap).
_LEVEL = 30

# What all plots have in common.
CONFIG: dict[str, Any] = {
    "aria": False,  # a plot is one picture with one label; its numbers are in a table
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink)",
        "domainColor": "var(--faint)",
        "tickColor": "var(--faint)",
        "gridColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
        "labelLimit": 150,
    },
    "legend": {
        "labelColor": "var(--ink)",
        "titleColor": "var(--ink)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "orient": "top",
        "labelLimit": 220,
        "columns": 2,
        "symbolOpacity": 1,
    },
    "text": {"color": "var(--ink)"},
}


def with_colours(spec: Mapping[str, Any], colours: Mapping[str, str]) -> dict[str, Any]:
    """The specification with colours in place of CSS's variables; data stay as they are."""

    def put(part: Any, key: str = "") -> Any:
        if isinstance(part, dict):
            return {k: part[k] if k in ("data", "datasets") else put(part[k], k) for k in part}
        if isinstance(part, list):
            return [put(each) for each in part]
        if isinstance(part, str) and part.startswith("var(--") and part.endswith(")"):
            return colours[part[6:-1]]
        return part

    return dict(put(dict(spec)))


@dataclass(frozen=True)
class Names:
    """Names of the data sets of a report, in order, for scales and legends."""

    data_sets: tuple[str, ...]

    def colour(self) -> alt.Color:
        return alt.Color("set:N", title=None, scale=alt.Scale(domain=list(self.data_sets), range=_SERIES),
                         legend=self._legend())  # fmt: skip

    def shape(self) -> alt.Shape:
        return alt.Shape("set:N", title=None, scale=alt.Scale(domain=list(self.data_sets), range=_SHAPES),
                         legend=self._legend())  # fmt: skip

    def _legend(self) -> alt.Legend | None:
        return alt.Legend() if len(self.data_sets) > 1 else None


def _spec(chart: alt.LayerChart | alt.Chart) -> dict[str, Any]:
    """Without what Altair adds for notebooks."""
    spec = chart.to_dict()
    del spec["config"], spec["$schema"]
    return dict(spec)


def _data(rows: Rows) -> alt.Data:
    return alt.Data(values=rows)


def _share(channel: Any, field: str, title: str | None, domain: tuple[float, float] = (0.0, 1.0)) -> Any:
    scale = alt.Scale(domain=list(domain), nice=False)
    return channel(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format=".2~f", tickCount=5))


def curve(points: Rows, references: Rows, names: Names, weights: tuple[float, float] = (0.0, 1.0)) -> dict[str, Any]:
    """Score against weight of one attribute, with intervals, the diagonal, and the reference's own score.

    Args:
        points: ``weight``, ``score``, ``low``, ``high`` (the interval; ``None``: none), ``texts``, ``set``.
        references: ``score``, ``set``.
        weights: least and greatest.
    """
    x = _share(alt.X, "weight", "weight", weights)
    ends = [{"weight": max(0.0, weights[0]), "score": max(0.0, weights[0])}, {"weight": 1.0, "score": 1.0}]
    diagonal = alt.Chart(_data(ends)).mark_line(color=_FAINT, strokeDash=[5, 4], strokeWidth=1.2)
    diagonal = diagonal.encode(x=x, y=_share(alt.Y, "score", "judged score"))
    layers = [diagonal]
    if references:
        rule = alt.Chart(_data(references)).mark_rule(strokeDash=[1, 3], strokeWidth=1.5)
        layers.append(rule.encode(y=alt.Y("score:Q"), color=names.colour()))
    base = alt.Chart(_data(points)).encode(x=x, color=names.colour())
    layers += [
        base.mark_line(strokeWidth=1.5, opacity=0.55).encode(y=alt.Y("score:Q")),
        base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=64, opacity=1).encode(
            y=alt.Y("score:Q"), shape=names.shape(), tooltip=_tips("set", "weight", "score", "low", "high", "texts")
        ),
    ]
    return _spec(alt.layer(*layers).properties(width="container", height=210))


def _tips(*fields: str, **titles: str) -> list[alt.Tooltip]:
    """What a mark says under the pointer; titles are ours, never anybody's names."""
    words = {"set": "data set", "low": "interval from", "high": "to"} | titles
    return [
        alt.Tooltip(f"{field}:{'N' if field in _WORDS else 'Q'}", title=words.get(field, field), **_form(field))
        for field in fields
    ]


_WORDS = ("set", "persona", "row", "column", "shown")


def _form(field: str) -> dict[str, str]:
    return {} if field in _WORDS else {"format": ",d" if field == "texts" else ".3~f"}


def heat(
    cells: Rows, rows: Sequence[str], columns: Sequence[str], *, titles: tuple[str, str], legend: str,
    domain: tuple[float, float], diverging: bool, labelled: bool,
) -> dict[str, Any]:  # fmt: skip
    """A heat map.

    Args:
        cells: ``row``, ``column``, ``value`` (``None``: no cell), ``shown``.
        rows, columns: names, in order. titles: of the axes, rows' first.
        domain: of the colours; ``diverging`` about its middle.
        labelled: whether the cells' values stand in them.
    """
    wide = len(columns) > (_FILLS if labelled else 3 * _FILLS)
    longest = max(map(len, columns), default=0)
    angle = -45 if len(columns) > _FILLS or longest * len(columns) > _LEVEL else 0
    y = alt.Y("row:N", title=titles[0], scale=alt.Scale(domain=list(rows)), axis=alt.Axis(grid=False, labelLimit=110))
    x = alt.X("column:N", title=titles[1], scale=alt.Scale(domain=list(columns)),
              axis=alt.Axis(grid=False, labelAngle=angle, labelLimit=80))  # fmt: skip
    colour = _steps("value", domain, diverging, legend)
    known = [cell for cell in cells if cell["value"] is not None]
    base = alt.Chart(_data(known)).encode(x=x, y=y)
    layers = [
        base.mark_rect(stroke=_PAPER, strokeWidth=1.5).encode(
            color=colour,
            tooltip=_tips("row", "column", "shown", row=titles[0] or "persona", column=titles[1], shown=legend),
        )
    ]
    if labelled:
        low, high = domain
        strong = [cell | {"on": _is_strong(cell["value"], low, high, diverging)} for cell in known]
        shade = alt.Color("on:N", scale=alt.Scale(domain=[0, 1], range=[_INK, "var(--on)"]), legend=None)
        text = alt.Chart(_data(strong)).mark_text(fontSize=12).encode(x=x, y=y, text="shown:N", color=shade)
        layers.append(text)
    chart = alt.layer(*layers).resolve_scale(color="independent")
    step = 24 if not labelled else 34
    width: Any = alt.Step(18 if not labelled else _CELL) if wide else "container"
    return _spec(chart.properties(width=width, height=step * len(rows)))  # in steps it would be warned of


# Ends of the colours' steps, as shares of the scale: round numbers on a scale of 0 to 1, and of -1 to 1.
_ENDS = {True: (0.1, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.9), False: (0.2, 0.35, 0.45, 0.55, 0.65, 0.8)}
# Those of them that are written below the colours (200 pixels wide): as many as have room, the same on both sides.
_TOLD = {True: (0.1, 0.35, 0.65, 0.9), False: (0.2, 0.35, 0.65, 0.8)}


def _steps(field: str, domain: tuple[float, float], diverging: bool, title: str) -> alt.Color:
    """Colours in steps, which CSS's variables can be; shades between two could not."""
    low, high = domain
    ends, told = ([round(low + share * (high - low), 6) for share in of[diverging]] for of in (_ENDS, _TOLD))
    scale = alt.Scale(type="threshold", domain=ends, range=_DIVERGING if diverging else _SEQUENTIAL)
    key = alt.Legend(title=title, format=".3~g", direction="horizontal", orient="top", titleLimit=0,
                     labelExpr=f"indexof({told}, datum.value) < 0 ? '' : datum.label", labelFontSize=11)  # fmt: skip
    return alt.Color(f"{field}:Q", scale=scale, legend=key)


def _is_strong(value: float, low: float, high: float, diverging: bool) -> int:
    """Whether a cell's colour is so dark that its value stands in it in white."""
    share = (value - low) / (high - low)
    return int(abs(share - 0.5) >= 0.25 if diverging else share >= 0.65)


def _corner(weights: Sequence[float]) -> tuple[float, float]:
    """Place of three weights that sum to 1 in a triangle of side 1: first at the top, second left, third right."""
    first, _, third = weights
    return third + first / 2, first * math.sqrt(3) / 2


def simplex(points: Rows, attributes: Sequence[str]) -> dict[str, Any]:
    """The simplex of three weights, coloured by a score.

    Args:
        points: ``weights`` (three), ``score``, ``texts``, ``persona``.
        attributes: three names, for the corners.
    """
    sides = [dict(zip("xy", _corner(w), strict=True)) for w in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0))]
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[-0.12, 1.12], nice=False))
    y = alt.Y("y:Q", axis=None, scale=alt.Scale(domain=[-0.16, 1.04], nice=False))
    outline = alt.Chart(_data([side | {"i": i} for i, side in enumerate(sides)]))
    lines = outline.mark_line(color=_FAINT, strokeWidth=1).encode(x=x, y=y, order="i:Q")
    grid = alt.Chart(_data(_thirds())).mark_rule(color="var(--line)", strokeWidth=1)
    grid = grid.encode(x=x, y=y, x2="x2", y2="y2")
    places = [
        {"x": _corner(p["weights"])[0], "y": _corner(p["weights"])[1], "score": p["score"], "texts": p["texts"],
         "persona": p["persona"]}
        for p in points if p["score"] is not None
    ]  # fmt: skip
    colour = _steps("score", (0.0, 1.0), False, "judged score")
    dots = alt.Chart(_data(places)).mark_point(filled=True, size=150, opacity=1, stroke=_FAINT, strokeWidth=0.7)
    dots = dots.encode(x=x, y=y, color=colour, tooltip=_tips("persona", "score", "texts"))
    corners = [("center", 0.0, 0.11), ("left", -0.12, -0.1), ("right", 0.12, -0.1)]
    texts = [
        alt.Chart(_data([{"x": side["x"] + dx, "y": side["y"] + dy, "name": name}]))
        .mark_text(align=align, fontSize=12, limit=110)
        .encode(x=x, y=y, text="name:N")
        for (align, dx, dy), side, name in zip(corners, sides, attributes, strict=False)
    ]
    return _spec(alt.layer(lines, grid, dots, *texts).properties(width=250, height=242))


def _thirds() -> Rows:
    """Lines of the triangle at a half of each weight."""
    middle = [_corner(w) for w in ((0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5))]
    pairs = [(middle[0], middle[1]), (middle[1], middle[2]), (middle[2], middle[0])]
    return [{"x": a[0], "y": a[1], "x2": b[0], "y2": b[1]} for a, b in pairs]


# Beyond so many points names, or intervals, would cover each other.
_NAMED, _WITH_INTERVALS = 8, 80
# Room of a name, in shares of the plot: 14 of its 320 pixels, and 60 of the 230 that it has on a phone.
_NAME_HIGH, _NAME_WIDE = 0.045, 0.26


def quality(points: Rows, front: Rows, references: Rows, names: Names) -> dict[str, Any]:
    """Adherence against perplexity, persona by persona, with the fronts.

    Args:
        points: ``perplexity``, ``adherence``, ``low``, ``high``, ``persona``, ``set``, ``texts``.
        front: those on a front, by perplexity, per data set.
        references: ``perplexity``, ``set``: of the reference alone.
    """
    values = [each["perplexity"] for each in (*points, *references)]
    log = max(values) > 8 * min(values)
    scale = alt.Scale(type="log", nice=True, padding=8) if log else alt.Scale(zero=False, nice=True, padding=8)
    x = alt.X("perplexity:Q", title="perplexity under the reference", scale=scale,
              axis=alt.Axis(tickCount=6, format="~s" if log else ".3~g"))  # fmt: skip
    y = _share(alt.Y, "adherence", "judged adherence")
    base = alt.Chart(_data(points)).encode(x=x, color=names.colour())
    layers = []
    if references:
        rule = alt.Chart(_data(references)).mark_rule(strokeDash=[1, 3], strokeWidth=1.5)
        layers.append(rule.encode(x=x, color=names.colour()))
    rules = base.mark_rule(strokeWidth=1, opacity=0.35).encode(y=alt.Y("low:Q"), y2="high:Q")
    line = alt.Chart(_data(front)).mark_line(interpolate="step-after", strokeWidth=1.5, opacity=0.7)
    layers += [
        line.encode(x=x, y=y, color=names.colour()),
        *([rules] if len(points) <= _WITH_INTERVALS else []),
        base.mark_point(filled=True, size=64, opacity=0.9).encode(
            y=y, shape=names.shape(),
            tooltip=_tips("set", "persona", "perplexity", "adherence", "low", "high", "texts"),
        ),
    ]  # fmt: skip
    if len(front) <= _NAMED:
        text = alt.Chart(_data(_apart(front, points))).mark_text(align="left", dx=7, dy=11, fontSize=11, limit=110)
        layers.append(text.encode(x=x, y=y, text="persona:N"))
    return _spec(alt.layer(*layers).properties(width="container", height=320))


def strengths(points: Rows, front: Rows, methods: Sequence[str]) -> dict[str, Any]:
    """Joint adherence against perplexity: each method's curve of strengths, and the front of all.

    Args:
        points: ``perplexity``, ``joint``, ``low``, ``high`` (the interval; ``None``: none), ``curve``, ``set`` (its
            method), ``row`` (what the point is called), ``order`` (of the strengths), ``texts``.
        front: those on the front, by perplexity.
        methods: names, in order; more than there are colours are told by colour and shape together.
    """
    n, scale = len(methods), {"domain": list(methods)}
    colour = alt.Color("set:N", title=None, legend=alt.Legend(),
                       scale=alt.Scale(**scale, range=[_SERIES[i % N_SERIES] for i in range(n)]))  # fmt: skip
    shapes = [_SHAPES[(i + i // N_SERIES) % len(_SHAPES)] for i in range(n)]
    shape = alt.Shape("set:N", title=None, legend=alt.Legend(), scale=alt.Scale(**scale, range=shapes))
    x = alt.X("perplexity:Q", title="perplexity under the bare reference", axis=alt.Axis(tickCount=6, format=".3~r"),
              scale=alt.Scale(type="log", nice=False, padding=12))  # fmt: skip
    y = alt.Y("joint:Q", title="joint adherence", scale=alt.Scale(zero=True), axis=alt.Axis(format=".2~f", tickCount=5))
    base = alt.Chart(_data(points)).encode(x=x, color=colour)
    line = alt.Chart(_data(front)).mark_line(interpolate="step-after", strokeWidth=4, opacity=0.3, color=_FAINT)
    text = alt.Chart(_data(front)).mark_text(align="left", dx=7, dy=11, fontSize=11, limit=160)
    layers = [
        line.encode(x=x, y=y),
        base.mark_line(strokeWidth=1.2, opacity=0.6).encode(y=y, detail="curve:N", order="order:Q"),
        base.mark_rule(strokeWidth=1, opacity=0.35).encode(y=alt.Y("low:Q"), y2="high:Q"),
        base.mark_point(filled=True, size=64, opacity=0.9).encode(
            y=y, shape=shape, tooltip=_tips("set", "row", "perplexity", "joint", "low", "high", "texts", row="point")
        ),
        text.encode(x=x, y=y, text="row:N"),
    ]
    return _spec(alt.layer(*layers).properties(width=420, height=320))


def _apart(front: Rows, points: Rows) -> Rows:
    """Those of a front whose names do not cover each other: below each point, where its own line does not go."""
    values = [each["perplexity"] for each in points]
    width = max(values) - min(values)
    named: Rows = []
    for each in front:
        near = (
            abs(each["adherence"] - other["adherence"]) < _NAME_HIGH
            and abs(each["perplexity"] - other["perplexity"]) < _NAME_WIDE * width
            for other in named
        )
        if not any(near):
            named.append(each)
    return named


def dots(points: Rows, rows: Sequence[str], names: Names, *, title: str, y_title: str) -> dict[str, Any]:
    """Shares with intervals, a line each.

    Args:
        points: ``row``, ``share``, ``low``, ``high``, ``chance`` (``None``: none), ``texts``, ``set``.
        rows: names, in order.
    """
    y = alt.Y("row:N", title=y_title, scale=alt.Scale(domain=list(rows)), axis=alt.Axis(labelLimit=130))
    offset = {"yOffset": alt.YOffset("set:N", scale=alt.Scale(domain=list(names.data_sets)))}
    together = offset if len(names.data_sets) > 1 else {}
    base = alt.Chart(_data(points)).encode(y=y, color=names.colour(), **together)
    chance = [point for point in points if point["chance"] is not None]
    ticks = alt.Chart(_data(chance)).mark_tick(color=_FAINT, thickness=2, size=14)
    layers = [
        ticks.encode(y=y, x=_share(alt.X, "chance", title), tooltip=_tips("chance"), **together),
        base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=64, opacity=1).encode(
            x=_share(alt.X, "share", title), shape=names.shape(), tooltip=_tips("set", "share", "low", "high", "texts")
        ),
    ]
    step = 24 if len(names.data_sets) == 1 else 14 * len(names.data_sets) + 8
    return _spec(alt.layer(*layers).properties(width="container", height=step * len(rows)))
