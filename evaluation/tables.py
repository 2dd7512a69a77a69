"""Tables of text: aligned columns for a terminal, Markdown for a card; and words of anybody's in either.

Cells are text already. What they are made of (names, models' answers, files' contents) breaks neither the table nor
the terminal: they are one line, what can't be printed is spelled out, and what is very long loses its middle.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tabulate import SEPARATING_LINE, DataRow, Line, TableFormat, tabulate

# tabulate's "simple", whose columns are two wider than their titles; here the title is a row like others.
_SIMPLE = TableFormat(
    lineabove=None,
    linebelowheader=Line("", "-", "  ", ""),
    linebetweenrows=None,
    linebelow=None,
    headerrow=DataRow("", "  ", ""),
    datarow=DataRow("", "  ", ""),
    padding=0,
    with_header_hide=None,
)

# Longest cells, in characters.
_MOST_ALIGNED, _MOST_MARKDOWN = 80, 200


def plain(text: str, most: int | None = None) -> str:
    """One line that any terminal can show: breaks and tabs as spaces, control characters (colours too) spelled out.

    Args:
        most: characters, beyond which the middle gives way to an ellipsis.
    """
    line = " ".join(text.splitlines())
    shown = "".join(
        char if char.isprintable() else " " if char.isspace() else char.encode("unicode_escape").decode()
        for char in line
    )
    if most is None or len(shown) <= most:
        return shown
    half = (most - 1) // 2
    return f"{shown[: most - 1 - half]}…{shown[-half:]}"


def escaped(text: str) -> str:
    """Words as Markdown shows them: none of them is markup, HTML, or the end of a table's cell."""
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", plain(text))


def code(text: str) -> str:
    """Words as Markdown's code, whatever backticks are in them."""
    shown = plain(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if shown[:1] == "`" or shown[-1:] == "`" else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, n_text: int = 1) -> str:
    """Columns two spaces apart under a line of dashes.

    Args:
        header: titles, one a column.
        rows: cells, as many each as there are titles.
        n_text: columns, from the left, that hold words and stand left; the others hold numbers and stand right.

    Raises:
        ValueError: a row of another length.
    """
    cells = [[plain(cell, _MOST_ALIGNED) for cell in row] for row in _checked(header, rows)]
    sides = _sides(header, n_text)
    return tabulate([cells[0], SEPARATING_LINE, *cells[1:]], tablefmt=_SIMPLE, colalign=sides, disable_numparse=True)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, n_text: int = 1) -> str:
    """The same as a Markdown table. Arguments as of :func:`aligned`."""
    first, *rest = [[escaped(plain(cell, _MOST_MARKDOWN)) for cell in row] for row in _checked(header, rows)]
    # Without rows tabulate would drop the columns' sides.
    if not rest:
        return "\n".join("| " + " | ".join(row) + " |" for row in (first, ["---"] * len(first)))
    return tabulate(rest, first, tablefmt="pipe", colalign=_sides(header, n_text), disable_numparse=True)


def _checked(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    for row in rows:
        if len(row) != len(header):
            raise ValueError(f"{len(row)} cells under {len(header)} titles: {list(row)}")
    return [header, *rows]


def _sides(header: Sequence[str], n_text: int) -> list[str]:
    return ["left" if i < n_text else "right" for i in range(len(header))]
