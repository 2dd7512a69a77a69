"""Tables of text: aligned columns for a terminal, Markdown for a card. Cells are text already and stay as they are."""

from __future__ import annotations

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


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, n_text: int = 1) -> str:
    """Columns two spaces apart under a line of dashes; a line break within a cell becomes a space.

    Args:
        header: titles, one a column.
        rows: cells, as many each as there are titles.
        n_text: columns, from the left, that hold words and stand left; the others hold numbers and stand right.

    Raises:
        ValueError: a row of another length.
    """
    cells = [[_one_line(cell) for cell in row] for row in _checked(header, rows)]
    sides = _sides(header, n_text)
    return tabulate([cells[0], SEPARATING_LINE, *cells[1:]], tablefmt=_SIMPLE, colalign=sides, disable_numparse=True)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], *, n_text: int = 1) -> str:
    """The same as a Markdown table; what would end a cell is escaped. Arguments as of :func:`aligned`."""
    first, *rest = [[_escaped(_one_line(cell)) for cell in row] for row in _checked(header, rows)]
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


def _one_line(cell: str) -> str:
    return " ".join(cell.splitlines())


def _escaped(cell: str) -> str:
    """Backslashes first: one before a pipe would undo the pipe's own."""
    return cell.replace("\\", "\\\\").replace("|", "\\|")
