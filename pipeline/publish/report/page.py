"""The report as one HTML file that needs nothing else: its plots' script comes from the installed vl-convert.

Whatever stands in a data set is text here: names and cells are escaped by the template, texts are JSON in which ``<``
is spelled out, and become text nodes; and the policy that the page carries lets no script run but the page's own two,
by their hashes, and nothing be loaded or sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

import mpg
from evaluation.tables import plain
from pipeline.publish.report import plots
from pipeline.publish.report.charts import CONFIG, Names
from pipeline.publish.report.colours import style
from pipeline.publish.report.made import ended
from pipeline.publish.report.measures import Measures
from pipeline.publish.report.parts import Section, number
from pipeline.publish.report.sections import sections, shown_names
from pipeline.publish.report.texts import texts_of

_PLOTS = {
    "control": plots.control,
    "leakage": plots.leakage,
    "simplex": plots.simplex,
    "joint": plots.joint,
    "quality": plots.quality,
    "cells": plots.cells,
    "judges": plots.judges,
}


def page(ms: Sequence[Measures], most_texts: int) -> str:
    """The HTML of a report.

    Args:
        ms: of the data sets, at most :data:`pipeline.publish.report.colours.N_SERIES`, by names that differ.
        most_texts: that are shown, of all data sets together.
    """
    import jinja2

    shown = shown_names(ms)
    names = Names(tuple(m.of.name for m in ms))
    charted = [
        replace(section, figures=_PLOTS[section.key](ms, names, shown)) if section.key in _PLOTS else section
        for section in sections(ms, shown)
    ]
    specs = {f"{s.key}-{i}": figure.spec for s in charted for i, figure in enumerate(s.figures)}
    texts = texts_of(ms, shown, most_texts)
    vega = _vega() if specs else ""
    script = _script(_file("page.js"))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["tojson_attribute"] = lambda link: json.dumps(link, sort_keys=True)
    template = environment.from_string(_file("page.html"))
    html: str = template.render(
        policy=_policy([each for each in (vega, script) if each]),
        title=", ".join(names.data_sets),
        style=style() + _file("page.css"),
        names=names.data_sets,
        n_sets=len(ms),
        states=[_state(m) for m in ms],
        sections=[_Shown(section, ms) for section in charted],
        tiles=_tiles(ms[0]) if len(ms) == 1 else [],
        n_texts=sum(n for n, _ in texts.n_of),
        drawn=_drawn(texts.n_of),
        coloured=any("pieces" in each for each in texts.data["texts"]),
        texts=_json(texts.data),
        plots=_json({"config": CONFIG, "specs": specs}) if specs else "",
        vega=vega,
        script=script,
        version=mpg.__version__,
    )
    return html


class _Shown:
    """A section as the template reads it."""

    def __init__(self, section: Section, ms: Sequence[Measures]) -> None:
        self.key, self.title, self.lead, self.notes = section.key, section.title, section.lead, section.notes
        self.tables, self.figures = section.tables, section.figures
        self.limits = plots.limits(section.key, ms, section.figures)


@cache
def _vega() -> str:
    """The script that draws, with all that it needs, from the installed vl-convert (0.9 MB)."""
    import vl_convert

    return _script(vl_convert.javascript_bundle("window.vegaEmbed=vegaEmbed;"))


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _script(text: str) -> str:
    """A script as it can stand in the page: what would end it is spelled out, lines end as HTML has them end."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return lines.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _policy(scripts: Sequence[str]) -> str:
    """Content-Security-Policy: these scripts and no other, styles that stand in the page, nothing from anywhere."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


# What ends a script, begins a comment, or is a line's end to a script and not to JSON.
_SPELLED_OUT = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def _json(value: Any) -> str:
    """JSON that can stand in a script element, whatever is in it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_SPELLED_OUT)


def _state(m: Measures) -> str:
    model = plain(str(m.of.run.get("model", "")), 80)
    by = f" by {model}" if model else ""
    n = f"{m.of.n:,} text{'' if m.of.n == 1 else 's'}"
    return f"{m.of.name}: {n}{by}; run ended {ended(m.of.run)}; state of its files {m.of.state}."


def _tiles(m: Measures) -> list[Mapping[str, str]]:
    def tile(title: str, shown: str) -> Mapping[str, str]:
        """A mean as :attr:`Mean.shown` writes it, in its parts."""
        value, _, lacking = shown.partition(" (")
        value, sign, width = value.partition("±")
        return {"title": title, "value": value, "width": sign + width, "lacking": lacking.removesuffix(")")}

    rates = [p.acceptance[0] for p in m.personas if p.acceptance is not None]
    found = [tile("texts", f"{m.of.n:,}"), tile("personas", f"{len(m.of.personas):,}")]
    if m.is_judged:
        found += [tile("judged adherence", m.adherence.shown), tile("joint adherence", m.joint.shown)]
    found.append(tile("perplexity", number(m.perplexity)))
    if rates:
        found.append(tile("acceptance", number(sum(rates) / len(rates))))
    return found


def _drawn(n_of: Sequence[tuple[int, int]]) -> str:
    n, of = sum(a for a, _ in n_of), sum(b for _, b in n_of)
    if n == of:
        return f"All {n:,} texts." if n != 1 else "The one text."
    return (
        f"{n:,} of {of:,} texts, drawn by stratum: of every persona and fifth of the scale of scores one, then "
        "another, until there are enough; the same ones each time."
    )
