"""The report's colours, light and dark, by the names that its style sheet and its plots call them by.

Text on its ground keeps a contrast of 4.5 : 1 at least, marks of 3 : 1 (WCAG 2.2 AA); a test computes both.
"""

from __future__ import annotations

from collections.abc import Mapping

# Data sets side by side: colour and shape, so that neither is needed to tell them.
N_SERIES = 6


def _steps(letter: str, colours: str) -> dict[str, str]:
    return {f"{letter}{i}": colour for i, colour in enumerate(colours.split())}


# ink, faint: text; paper, plate: grounds; line: rules that carry no meaning; on: text in strong cells; link: what leads
# on; s: data sets; d: below and above nothing; q: little to much; up, down: log-ratios of tokens.
LIGHT: Mapping[str, str] = {
    "ink": "#1c2530",
    "faint": "#566270",
    "paper": "#ffffff",
    "plate": "#f6f7f9",
    "line": "#dfe3e8",
    "on": "#ffffff",
    "link": "#0f5a99",
    "up": "#2f78b3",
    "down": "#b8601f",
    **_steps("s", "#1f6fb2 #b3520c #1d7a5f #7b4bb0 #b1325f #6a6114"),
    **_steps("d", "#8a3a08 #b0591a #dc9a5f #f1d2b3 #f1f2f3 #c3dcf0 #79b0d8 #2f78b3 #0f4f86"),
    **_steps("q", "#eef3f8 #d3e2ef #a9c9e2 #86b4d8 #5f9bc9 #266a9f #0f4a7a"),
}
DARK: Mapping[str, str] = {
    "ink": "#e4e8ed",
    "faint": "#a0abb8",
    "paper": "#14181d",
    "plate": "#1c2229",
    "line": "#303842",
    "on": "#ffffff",
    "link": "#7db9ea",
    "up": "#4a9bd9",
    "down": "#d98a45",
    **_steps("s", "#64aee8 #e8934a #57c2a0 #b78ee6 #ec7fa4 #c9bd5c"),
    **_steps("d", "#ab5a24 #954d1b #6d3f1f #43301f #262c34 #1f384d #23527a #2a6ba3 #3678b3"),
    **_steps("q", "#1f262e #22384c #254a69 #275b86 #2a6ba3 #3a7fbd #4a8cc6"),
}


def style() -> str:
    """As CSS: light, and dark where the reader's system asks for it; a print is light."""

    def block(colours: Mapping[str, str]) -> str:
        return ":root{" + "".join(f"--{name}:{colour};" for name, colour in colours.items()) + "}"

    return f"{block(LIGHT)}@media screen and (prefers-color-scheme:dark){{{block(DARK)}}}"
