"""Data sets side by side: what the sections' tables have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pipeline.publish.report.measures import Measures, OfPersona
from pipeline.publish.report.parts import Shown, Table

# Rows of a table; what is beyond them is in the data set, and said to be.
MOST_ROWS = 200

Ms = Sequence[Measures]


def across(ms: Ms, titles: Sequence[str]) -> list[str]:
    """Titles of columns: with several data sets each once for each."""
    return [title if len(ms) == 1 else f"{title}, {m.of.name}" for title in titles for m in ms]


def left_out(rows: Sequence[Any], what: str) -> str:
    """The note of a table that shows the first of its rows; empty: it shows them all."""
    return f"The first {MOST_ROWS:,} of {len(rows):,} {what}." if len(rows) > MOST_ROWS else ""


def yes(value: bool | None) -> str:
    """``-`` for what nobody knows."""
    return "-" if value is None else "yes" if value else "no"


def nothing(ms: Ms) -> str:
    """Why a section is empty."""
    if all(m.of.control.all() for m in ms):
        return "There is nothing to show: no text has an attribute with a weight; these are the reference's own."
    return "There is nothing to show: no judge that counts has judged these texts. mpg judge adds judgments."


def by_persona(ms: Ms) -> dict[str, dict[int, OfPersona]]:
    found: dict[str, dict[int, OfPersona]] = {}
    for k, m in enumerate(ms):
        for p in m.personas:
            found.setdefault(p.name, {})[k] = p
    return found


def persona_table(
    ms: Ms, shown: Shown, caption: str, columns: Sequence[tuple[str, Callable[[OfPersona], str]]], *,
    control: bool, n_text: int = 1,
) -> Table:  # fmt: skip
    """A row a persona, the columns for each data set."""
    found = {name: each for name, each in by_persona(ms).items() if control or any(p.weights for p in each.values())}
    rows = [
        [shown[name], *(of(each[k]) if k in each else "-" for _, of in columns for k in range(len(ms)))]
        for name, each in list(found.items())[:MOST_ROWS]
    ]
    note = f"The first {MOST_ROWS:,} of {len(found):,} personas." if len(found) > MOST_ROWS else ""
    links = [{"persona": name} for name in list(found)[:MOST_ROWS]]
    return Table(caption, ["persona", *across(ms, [t for t, _ in columns])], rows, n_text, links, note)
