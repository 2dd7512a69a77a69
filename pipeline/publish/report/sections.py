"""The report's sections: what each says in words and tables, for a page and for a terminal alike.

With several data sets side by side, tables have a column for each.
"""

from __future__ import annotations

from pipeline.publish.report import made, scored
from pipeline.publish.report.parts import Section, Shown
from pipeline.publish.report.side_by_side import Ms


def shown_names(ms: Ms) -> Shown:
    """How the attributes, personas, prompts and judges of all data sets are called in the report."""
    return Shown(name for m in ms for some in (m.of.judged, m.of.personas, m.of.judges, m.of.prompts) for name in some)


def sections(ms: Ms, shown: Shown) -> list[Section]:
    """All, in order."""
    makers = [
        made.overview,
        scored.control,
        scored.leakage,
        scored.simplex,
        scored.joint,
        scored.quality,
        made.cells,
        made.judges,
        made.spent,
    ]
    found: list[Section | None] = [make(ms, shown) for make in makers]
    return [section for section in found if section is not None]
