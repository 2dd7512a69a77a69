"""The report's short form, for a terminal: its main tables, without plots or texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evaluation.tables import aligned
from pipeline.publish.report.measures import Measures
from pipeline.publish.report.parts import Table
from pipeline.publish.report.sections import sections, shown_names

MOST_ROWS = 24


def short_form(ms: Sequence[Measures]) -> str:
    """The tables that are brief, each under its section's title."""
    parts = []
    for section in sections(ms, shown_names(ms)):
        tables = [_cut(table) for table in section.tables if table.is_brief]
        if section.tables and not tables:
            continue
        said = [aligned(t.header, t.rows, n_text=t.n_text) + (f"\n{t.note}" if t.note else "") for t in tables]
        notes = section.notes if section.tables else [*section.lead, *section.notes]
        parts.append("\n\n".join([f"# {section.title}", *said, *(["\n".join(notes)] if notes else [])]))
    return "\n\n".join(parts)


def _cut(table: Table) -> Table:
    if len(table.rows) <= MOST_ROWS:
        return table
    note = f"the first {MOST_ROWS} of {len(table.rows):,} rows{' of the report' if table.note else ''}"
    return replace(table, rows=table.rows[:MOST_ROWS], note=note)
