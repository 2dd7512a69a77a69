"""Words as Markdown: what anybody wrote (names, prompts, models' texts) is shown as the text that it is.

A value that is :class:`Md` is Markdown already; all others are escaped where they are put into a card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from evaluation.tables import code as as_code
from evaluation.tables import escaped, plain

# Longest cells of a table, in characters.
_MOST_IN_CELL = 200
# What would begin a block at the beginning of a line: headings, lists, rules, and the underlines of headings.
_BLOCK = re.compile(r"(#{1,6}|[-+]|=+|-{2,})(?=\s|$)|(\d{1,9})(?=[.)](\s|$))")
# What readers of Markdown make links of by themselves: http://, www. and addresses with @.
_LINKS = re.compile(r"(?<=\w)(:)(?=//)|(?<=www)(\.)|(@)", re.IGNORECASE)


class Md(str):
    """Markdown, as it is meant."""

    __slots__ = ()


def inline(text: object, most: int | None = None) -> Md:
    """Words on one line, anywhere in a card: neither markup, nor HTML, nor the beginning of a block, nor a link.

    Args:
        most: characters, beyond which the middle gives way to an ellipsis.
    """
    if isinstance(text, Md):
        return text
    line = _cell(text, most).lstrip()
    block = _BLOCK.match(line)
    if block is None:
        return Md(line)
    end = block.end()
    return Md(f"{line[:end]}\\{line[end:]}" if block[2] else f"\\{line}")


def _cell(text: object, most: int | None = _MOST_IN_CELL) -> Md:
    """Words where no block can begin: inside a table's cell."""
    if isinstance(text, Md):
        return text
    line = plain(str(text), most)
    line = line.rstrip() + " " * line.endswith(" ")  # two would be a line's end
    return Md(_LINKS.sub(lambda found: f"\\{found[0]}", escaped(line)))


def code(text: object) -> Md:
    """Words as code on one line; in a table's cell, too."""
    return Md(as_code(plain(str(text), _MOST_IN_CELL)).replace("|", "\\|")) if str(text) else Md("")


def quoted(text: str, most: int) -> Md:
    """A text as a block quote, its lines kept; cut where it is longer than ``most`` characters, which is said."""
    cut = text if len(text) <= most else text[:most].rstrip() + " […]"
    lines = [inline(line) for line in cut.splitlines()]
    shown = [f"> {line}\\" if line and following else f"> {line}".rstrip() for line, following in _pairs(lines)]
    return Md("\n".join(shown) or "> *(an empty text)*")


def _pairs(lines: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(lines, [*lines[1:], *[""] * bool(lines)], strict=True)


def link(words: object, url: str) -> Md:
    """A link; whatever is in the address stays in it."""
    return Md(f"[{inline(words)}]({quote(url, safe=':/?#@!,;=%~&+-._')})")


def of_hub(repository: str, revision: str | None = None, *, kind: str = "") -> Md:
    """A link to a repository of the Hub at a revision.

    Args:
        kind: ``datasets/`` for a data set.
    """
    at = f"/tree/{revision}" if revision else ""
    shown = f"{repository}@{revision[:7]}" if revision else repository
    return link(shown, f"https://huggingface.co/{kind}{repository}{at}")


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, n_text: int = 1) -> Md:
    """A table; cells are escaped unless they are :class:`Md`.

    Args:
        n_text: columns, from the left, that hold words and stand left; the others hold numbers and stand right.
    """
    sides = [":---" if i < n_text else "---:" for i in range(len(header))]
    lines: list[Sequence[str]] = [[_cell(cell) for cell in header], sides]
    lines += [[_cell(cell) for cell in row] for row in rows]
    return Md("\n".join(f"| {' | '.join(line)} |" for line in lines))


def listed(values: Iterable[object]) -> Md:
    """Values with commas between."""
    return Md(", ".join(map(inline, values)))
