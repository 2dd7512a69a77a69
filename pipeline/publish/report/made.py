"""Sections on how a data set was made: at a glance, cells, judges, what it took."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from evaluation.items import why_uncounted
from evaluation.scores import Status
from evaluation.tables import plain
from pipeline.publish.report.measures import Measures, OfPersona
from pipeline.publish.report.parts import Section, Shown, Table, number
from pipeline.publish.report.side_by_side import MOST_ROWS, Ms, across, left_out, nothing, persona_table


def overview(ms: Ms, shown: Shown) -> Section:
    """What the data sets are, and their main figures."""
    asked = [
        ("texts", lambda m: f"{m.of.n:,}" + _splits(m)),
        ("personas", lambda m: f"{len(m.of.personas):,}"),
        ("prompts", lambda m: f"{len(m.of.prompts):,}"),
        ("attributes", lambda m: ", ".join(shown[a] for a in m.of.attributes[:12]) or "none: the reference alone"),
        ("judged adherence", lambda m: m.adherence.shown),
        ("joint adherence", lambda m: m.joint.shown),
        ("perplexity under the reference", lambda m: number(m.perplexity)),
        ("decoders", lambda m: ", ".join(plain(d) for d in m.of.decoders) or "-"),
        ("model", lambda m: plain(str(m.of.run.get("model", "-")), 60)),
        ("judges that count", lambda m: ", ".join(shown[j] for j in m.of.counting) or "none"),
        ("run ended", lambda m: ended(m.of.run)),
        ("state of its files", lambda m: m.of.state),
    ]  # fmt: skip
    asked_of: list[tuple[str, Callable[[Measures], str]]] = asked
    table = Table(
        "The data set" if len(ms) == 1 else "The data sets",
        ["", *(m.of.name for m in ms)],
        [[title, *(of(m) for m in ms)] for title, of in asked_of],
        n_text=1 + len(ms),
    )
    notes = [
        f"{m.of.name}: not complete ({plain(str(m.of.run['ended'].get('why')), 200)})."
        for m in ms
        if isinstance(m.of.run.get("ended"), dict) and not m.of.run["ended"].get("complete", True)
    ]
    for m in ms:
        missing = [shown[a] for a, there in zip(m.of.attributes, m.columns_judged, strict=True) if not there]
        if missing:
            notes.append(
                f"{m.of.name}: no judge that counts was asked about {', '.join(missing[:12])}; "
                f"{'it is' if len(missing) == 1 else 'they are'} in no figure below."
            )
    rules = [m.of.run["accept"] for m in ms if m.of.run.get("accept")]
    if any(not rule.get("by") for rule in rules):
        notes.append(
            "Texts were chosen among candidates by a judge that also judged them here: its scores of them are no "
            "independent measure."
        )
    if by := sorted({kind for rule in rules for kind in rule.get("by") or ()}):
        notes.append(f"Texts were chosen among candidates by {', '.join(by)}, whose scores are in no figure below.")
    return Section("overview", "At a glance", (), [table], notes)


def _splits(m: Measures) -> str:
    names, counts = np.unique(np.array(m.of.splits), return_counts=True)
    if len(names) < 2:
        return ""
    return " (" + ", ".join(f"{plain(str(a))} {int(n):,}" for a, n in zip(names, counts, strict=True)) + ")"


def ended(run: Mapping[str, Any]) -> str:
    """When a run ended, as its record says, in UTC; ``-`` where it does not."""
    timings = run.get("timings")
    said = str(timings.get("ended") or "-") if isinstance(timings, dict) else "-"
    try:
        return datetime.fromisoformat(said).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError):
        return plain(said, 40)


def cells(ms: Ms, shown: Shown) -> Section:
    """Acceptance and exactness."""

    def acceptance(p: OfPersona) -> str:
        if p.acceptance is None:
            return "-"
        mean, low, high = p.acceptance
        return f"{mean:.2f} ({low:.2f} to {high:.2f})"

    def exact(p: OfPersona) -> str:
        return "all" if p.n_exact == p.n else f"{p.n_exact:,} of {p.n:,}"

    def bound(p: OfPersona) -> str:
        if p.n_exact == p.n:
            return "0"
        known = "-" if p.tv_bound is None else f"{p.tv_bound[0]:.2f} (at most {p.tv_bound[1]:.2f})"
        return f"{known}; {p.n_unbounded:,} without" if p.n_unbounded else known

    columns: list[tuple[str, Callable[[OfPersona], str]]] = [
        ("acceptance", acceptance),
        ("exact", exact),
        ("bound on the total variation", bound),
    ]
    counts = Table(
        "Rounds of the decoder",
        ["", *(m.of.name for m in ms)],
        [
            [title, *(of(m) for m in ms)]
            for title, of in (
                ("texts of an exact decoder", lambda m: f"{int(m.of.exact.sum()):,} of {m.of.n:,}"),
                ("drafted chunks", lambda m: f"{m.of.counts['n_chunks']:,}"),
                ("ratios clipped at the bound", lambda m: f"{m.of.counts['n_clipped']:,}"),
                ("prefixes salvaged", lambda m: f"{m.of.counts['n_salvaged']:,}"),
                ("fallbacks", lambda m: f"{m.of.counts['n_fallbacks']:,}"),
            )
        ],
        is_brief=False,
    )
    lead = (
        "A cell is one prompt under one persona. Acceptance is the share of drafted tokens (with scr: chunks) that "
        "were kept: it costs time, not quality. An exact decoder samples its target whatever the acceptance is; of the "
        "others the bound says how far from its target the law of a text may be, 0 to 1.",
    )
    table = persona_table(ms, shown, "Acceptance and exactness by persona", columns, control=True)
    return Section("cells", "Acceptance and exactness", lead, [table, _cells(ms, shown), counts])


def _cells(ms: Ms, shown: Shown) -> Table:
    """A row a cell: the first of each data set."""
    most, rows, links, n = MOST_ROWS // len(ms), [], [], 0
    for m in ms:
        of, found = m.of, dict[tuple[int, int], list[int]]()
        for i, key in enumerate(zip(of.persona_of.tolist(), of.prompt_of.tolist(), strict=True)):
            found.setdefault(key, []).append(i)
        n += len(found)
        for (persona, prompt), texts in list(found.items())[:most]:
            rates, bounds = of.acceptance[texts], of.tv_bound[texts]
            exact = int(of.exact[texts].sum())
            row = [shown[of.personas[persona]], shown[of.prompts[prompt]], f"{len(texts)}"]
            row.append(number(float(rates[~np.isnan(rates)].mean()) if (~np.isnan(rates)).any() else None))
            row.append("yes" if exact == len(texts) else f"{exact} of {len(texts)}" if exact else "no")
            row.append(number(float(np.nanmax(bounds)) if (~np.isnan(bounds)).any() else None))
            rows.append([of.name, *row] if len(ms) > 1 else row)
            links.append({"persona": of.personas[persona]})
    header = ["persona", "prompt", "texts", "acceptance", "exact", "bound"]
    header = ["data set", *header] if len(ms) > 1 else header
    note = f"The first {len(rows):,} of {n:,} cells." if n > len(rows) else ""
    return Table("By cell", header, rows, len(header) - 4, links, note, is_brief=False)


def judges(ms: Ms, shown: Shown) -> Section:
    """Who judged, and how far they agree."""
    labels = list(dict.fromkeys(label for m in ms for label in m.of.judges))
    if not labels:
        return Section("judges", "Judges", [nothing(ms)])
    rows = []
    for label in labels:
        found = []
        for m in ms:
            by_status = {status: n for (judge, status), n in m.of.statuses.items() if judge == label}
            scored = by_status.pop(str(Status.OK), 0)
            rest = ", ".join(f"{n:,} {plain(status)}" for status, n in sorted(by_status.items()))
            found.append(f"{scored:,}" + (f" (and {rest})" if rest else "") if label in m.of.judges else "-")
        counted = any(label in m.of.counting for m in ms)
        why = "yes" if counted else f"no: {why_uncounted(label) or 'not among those of the run'}"
        rows.append([shown[label], why, *found])
    scores = Table("Judges and their scores", ["judge", "counts", *across(ms, ["scores"])], rows, n_text=2 + len(ms))
    pairs: dict[tuple[str, str, str], dict[int, list[str]]] = {}
    for k, m in enumerate(ms):
        for a, of_pairs in m.agreements.items():
            for pair, each in of_pairs.items():
                pairs.setdefault((a, *pair), {})[k] = [number(each.kappa), number(each.spearman), f"{each.n:,}"]
    lead = ["Means are of the judges that count; what a judge could not score is no score, and is counted apart."]
    if not pairs:
        lead.append("No two judges scored the same attribute: there is no agreement to measure.")
        return Section("judges", "Judges and their agreement", lead, [scores])
    table = [
        [
            shown[a],
            shown[one],
            shown[other],
            *(each[k][i] if k in each else "-" for i in range(3) for k in range(len(ms))),
        ]
        for (a, one, other), each in pairs.items()
    ]
    lead.append(
        "Agreement is Cohen's kappa of scores above 0.5 against the others, and Spearman's rank correlation, over the "
        "texts that both judges scored."
    )
    agreement = Table(
        "Agreement of judges",
        ["attribute", "judge", "other judge", *across(ms, ["kappa", "Spearman", "texts"])],
        table[:MOST_ROWS],
        n_text=3,
        note=left_out(table, "pairs"),
    )
    return Section("judges", "Judges and their agreement", lead, [scores, agreement])


def spent(ms: Ms, shown: Shown) -> Section:
    """Planned and spent."""
    rows = [
        [title, *(cell for m in ms for cell in (_planned(m.of.run, planned, form), _actual(m.of.run, actual, form)))]
        for title, planned, actual, form in (
            ("texts", "cells", "cells", ",.0f"),
            ("tokens generated", "tokens", "tokens", ",.0f"),
            ("tokens a second", "tokens_per_s", "tokens_per_s", ",.0f"),
            ("time, seconds", "seconds", "seconds", ",.0f"),
            ("judges' prompt tokens", "judge_prompt_tokens", "prompt_tokens", ",.0f"),
            ("judges' answer tokens", "judge_completion_tokens", "completion_tokens", ",.0f"),
            ("money", "cost", "cost", ",.4g"),
            ("money, of all runs", "-", "cost_of_all_runs", ",.4g"),
        )
    ]
    header = ["", *(title if len(ms) == 1 else f"{title}, {m.of.name}" for m in ms for title in ("planned", "spent"))]
    lead = [
        "What mpg plan expected before the run, with its 95 % interval, beside what the run took. Money is in the "
        "currency of the job's prices."
    ]
    if not any(isinstance(m.of.run.get("planned"), dict) for m in ms):
        lead.append("Nothing was planned: mpg plan was not asked about this very job.")
    return Section("spent", "Planned and spent", lead, [Table("Tokens, time and money", header, rows)])


def _planned(run: Mapping[str, Any], key: str, form: str) -> str:
    planned = run.get("planned")
    found = planned.get(key) if isinstance(planned, dict) else None
    if isinstance(found, dict):
        value, low, high = (_figure(found.get(name)) for name in ("value", "low", "high"))
        return f"{number(value, form)} ({number(low, form)} to {number(high, form)})"
    return number(_figure(found), form)


def _actual(run: Mapping[str, Any], key: str, form: str) -> str:
    calls, part = run.get("calls"), run.get("actual")
    if key in ("prompt_tokens", "completion_tokens"):
        of_judges = [c for c in calls.values() if isinstance(c, dict)] if isinstance(calls, dict) else []
        return number(sum(_figure(c.get(key)) or 0.0 for c in of_judges) if of_judges else None, form)
    if key == "tokens_per_s":
        part = run.get("timings")
    return number(_figure(part.get(key)) if isinstance(part, dict) else None, form)


def _figure(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
