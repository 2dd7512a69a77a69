"""What a report is put together from: sections with tables and plots, whoever shows them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.statistics.aggregate import LEAST_CLUSTERS, WIDEST, Mean
from evaluation.tables import plain

# Longest names that are shown, in characters.
MOST_NAME = 60


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        caption: what it shows. n_text: columns, from the left, that hold words.
        links: one a row: which texts it is about, as the page's filters say it; ``None``: it leads nowhere.
        note: below it: what is left out.
        is_brief: whether it belongs to the short form, too.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    n_text: int = 1
    links: Sequence[Mapping[str, Any] | None] = ()
    note: str = ""
    is_brief: bool = True


@dataclass(frozen=True)
class Figure:
    """A plot: its Vega-Lite specification, what stands above it, and what it says to those who do not see it.

    ``small``: several stand beside each other. A mark's ``link`` says which texts it is about, as those of tables.
    """

    spec: Mapping[str, Any]
    caption: str
    label: str
    small: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes:
        key: its anchor. lead: paragraphs. notes: what a reader should beware of.
        figures: its plots, where they are made.
    """

    key: str
    title: str
    lead: Sequence[str] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()
    figures: Sequence[Figure] = field(default=())


class Shown(dict[str, str]):
    """Names as they are shown: a line each that can be printed, not too long, and no two alike."""

    def __init__(self, names: Iterable[str], most: int = MOST_NAME) -> None:
        super().__init__()
        taken = set[str]()
        for name in dict.fromkeys(names):
            short = plain(name, most) or "(no name)"
            wanted, n = short, 2
            while wanted in taken:
                wanted, n = f"{short} ({n})", n + 1
            taken.add(wanted)
            self[name] = wanted


def interval(mean: Mean, low: float = 0.0, high: float = 1.0) -> tuple[float | None, float | None]:
    """Ends of a mean's interval inside a scale; none where it says nothing, as :attr:`Mean.shown` has it."""
    width = mean.half_width
    if mean.value is None or width is None or mean.n_clusters < LEAST_CLUSTERS or not width <= WIDEST:
        return None, None
    return max(low, mean.value - width), min(high, mean.value + width)


def number(value: float | None, form: str = ".2f") -> str:
    """``-`` for none, nan or an infinity."""
    return "-" if value is None or value != value or abs(value) == float("inf") else f"{value:{form}}"
