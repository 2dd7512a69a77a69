"""What a card's template is given, by name; docs/publishing.md lists them for those who write one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evaluation.items import is_independent
from pipeline.job.known import reporting
from pipeline.job.licence_terms import OTHER
from pipeline.job.model import Job
from pipeline.job.recorded import files_needed
from pipeline.publish.card.examples import Example, examples, repeats
from pipeline.publish.card.front import title_of
from pipeline.publish.card.method import decoder_settings, judges_of, method_of
from pipeline.publish.card.words import Md, code, inline, link, listed, of_hub, quoted, table
from pipeline.publish.licence_rules import LicenceError, Part, Resolved
from pipeline.publish.summary import header, table_rows
from pipeline.publish.sums import Digest
from pipeline.store.columns import meaning_of, type_of

# Rows of the tables of personas and of adherence, parts in the table of licences; characters of the texts shown.
MOST_PERSONAS, MOST_PARTS, MOST_TEXT, MOST_PROMPT, MOST_WORDS = 24, 40, 700, 300, 90
_COMMIT = re.compile("[0-9a-f]{7,40}")
_WHY = {
    "best": "Best: the highest adherence",
    "median": "Median: half of the texts have a lower adherence, or the same",
    "worst": "Worst: the lowest adherence",
    "first": "The first text of its persona",
}


@dataclass(frozen=True)
class Facts:
    """What a card is made of.

    Attributes:
        digest: of its rows.
        run: ``run.json``.
        data: see :func:`pipeline.publish.configs.data_front`.
        licence: resolved, or why it is not.
        parts: what the data set was made with.
        figures: files beside the card, each with what it shows.
    """

    job: Job
    digest: Digest
    run: Mapping[str, Any]
    data: Mapping[str, Any]
    licence: Resolved | LicenceError
    parts: Sequence[Part] = ()
    figures: Sequence[tuple[str, str]] = field(default=())


def values_of(facts: Facts) -> dict[str, Any]:
    """All that a template may name. Values that are Markdown are of type :class:`Md`; the others are escaped."""
    job, run, digest = facts.job, facts.run, facts.digest
    shown = digest.shown["generations"], digest.shown["judgments"]
    labels = [str(label) for label in run.get("judges") or ()]
    return {
        "title": title_of(job),
        "name": job.name,
        "attributes": [
            {"name": each.name, "description": each.description, "opposite": each.opposite or ""}
            for each in job.described_attributes()
        ],
        "texts": _texts(facts),
        "personas": _personas(digest),
        "method": (method := method_of(job, digest.bound)),
        "settings": decoder_settings(method["settings"]),
        "model": {"name": _name_of("model", str(run.get("model", job.model.id)), job), "dtype": run.get("dtype", "?")},
        "parts": _parts(facts),
        "licence": _licence(facts.licence),
        "judged": _judged(facts),
        "judges": judges_of(labels, digest.judges, run),
        "accept": {"by": None} | run["accept"] if run.get("accept") else None,  # older records have no `by`
        "figures": [_figure(name, shows) for name, shows in facts.figures],
        "examples": [_example(each) for each in examples(*shown, labels, job.panel)],
        "shown_of": shown[0].num_rows if digest.is_cut else None,
        "configs": list(_configs(facts)),
        "repeats": repeats(shown[0], digest.n_rows),
        "complete": bool((run.get("ended") or {}).get("complete", True)),
        "why_incomplete": (run.get("ended") or {}).get("why") or "",
        "seed": job.seed,
        "interval": job.interval or "",
        "files": Md(", ".join(map(code, files_needed(job)))),
        "versions": listed(f"{name} {version}" for name, version in (run.get("versions") or {}).items()),
        "version": str((run.get("versions") or {}).get("mpg-scr", "")),
    }


def _texts(facts: Facts) -> dict[str, Any]:
    digest, counts = facts.digest, facts.run.get("counts") or {}
    return {
        "n": digest.n_rows,
        "prompts": digest.n_prompts,
        "personas": len(digest.first_rows),
        "tokens": digest.n_tokens,
        "cut": digest.n_cut,
        "rejected": counts.get("rejected", 0),
        "broken_prompts": counts.get("broken_prompts", 0),
        "unscored": digest.n_unscored,
        "judgments": digest.n_judgments,
    }


def _personas(digest: Digest) -> dict[str, Any]:
    """The table of personas, and how many it leaves out."""
    rows, n = digest.first_rows[:MOST_PERSONAS], len(digest.first_rows)
    told = any(row["profile"] or row["personality"] for row in rows)
    head = ["persona", "weights", *(["who it is"] if told else [])]
    lines = []
    for row in rows:
        weights = ", ".join(f"{a} {w:g}" for a, w in zip(row["attributes"], row["weights"], strict=True))
        strengths = {f"{each:g}" for each in row["strengths"]} - {"1"}
        weights += f" (strength {', '.join(f'{each:g}' for each in row['strengths'])})" if strengths else ""
        who = " ".join(filter(None, (row["profile"], row["personality"])))
        shown = [inline(row["persona"], MOST_WORDS), weights or Md("none: the reference model alone, as a control")]
        lines.append([*shown, *([inline(who, MOST_WORDS)] if told else [])])
    return {"n": n, "table": table(head, lines, n_text=len(head)), "more": n - len(rows)}


def _judged(facts: Facts) -> dict[str, Any]:
    """The table persona x attribute, cut where it is long; ``is_judged``: some attribute has a score that counts."""
    rows = table_rows(facts.digest.summary)
    shown = [[inline(row[0], MOST_WORDS), *row[1:]] for row in rows[:MOST_PERSONAS]]
    known = reporting(facts.job, map(str, facts.run.get("judges") or ()))
    labels = [label for label in sorted(known) if is_independent(label)]
    return {
        "is_judged": bool(facts.digest.summary.attributes),
        "table": table(header(facts.digest.summary), shown),
        "more": len(rows) - len(shown),
        "wide": any("±?" in cell for row in rows for cell in row),
        "judges": Md(", ".join(map(code, labels))),
        "panel": facts.job.panel,
    }


def _parts(facts: Facts) -> dict[str, Any]:
    """Model, adapters, prompts and judges with their licences: a table, and how many it leaves out."""
    revisions = _revisions(facts.run)
    parts = facts.parts or [Part(what, "", None, said_by="not recorded") for what in revisions]
    rows = []
    for part in parts:
        name, revision = part.name, revisions.get(part.what, "")
        if "@" not in name and revision:
            name = revision if "@" in revision or not name else f"{name}@{revision}"
        rows.append([_called(part), _name_of(part.what, name, facts.job), _licence_of(part), part.said_by])
    head = ["part", "which", "licence", "said by"]
    return {"table": table(head, rows[:MOST_PARTS], n_text=len(head)), "more": max(0, len(rows) - MOST_PARTS)}


def _revisions(run: Mapping[str, Any]) -> dict[str, str]:
    """Part -> its name with revision, or its revision alone, as rows record it."""
    found = {"model": str(run["model"])} if run.get("model") else {}
    for name, revision in (run.get("adapters") or {}).items():
        own, slash, of_reference = str(revision).partition("/")
        found[f"adapter {name}"] = own
        if slash:
            found[f"reference of {name}"] = of_reference
    return found


def _called(part: Part) -> Md:
    kind, _, which = part.what.partition(" ")
    return Md(f"{kind} {code(which)}") if kind == "judge" else inline(part.what)


def _licence_of(part: Part) -> Md:
    words = inline("unknown" if part.license is None else part.shown)
    return link(words, part.license_link) if part.license_link and "://" in part.license_link else words


def _name_of(what: str, name: str, job: Job) -> Md:
    """A model, adapter or data set by its name, with a link where it is on the Hub."""
    place, _, at = name.partition("@")
    revision, _, subfolder = at.partition("/")
    of_hub_ = place.count("/") == 1 and not place.startswith((".", "/", "~", "embedded/"))
    if not of_hub_:
        return code(name)
    if what == "prompts":
        return of_hub(place, job.prompts.revision, kind="datasets/")
    revision = revision.partition(":")[0]
    found = of_hub(place, revision if _COMMIT.fullmatch(revision) else None)
    return Md(f"{found} ({code(subfolder)})") if subfolder else found


def _licence(found: Resolved | LicenceError) -> dict[str, Any]:
    if isinstance(found, LicenceError):
        return {"id": "", "shown": Md(""), "stated": False, "problems": list(found.lines)}
    shown = code(found.license)
    if found.license == OTHER:
        shown = Md(f"{shown} ({link(found.license_name or '', found.license_link or '')})")
    return {"id": found.license, "shown": shown, "stated": found.stated, "problems": []}


def _figure(name: str, shows: str) -> dict[str, Any]:
    """A picture beside the card; what it shows is its alternative text, in which a bracket would end it."""
    return {"file": name, "shows": shows, "picture": Md(f"![{inline(shows)}]({name})")}


def _example(example: Example) -> dict[str, Any]:
    row = example.row
    asked = [message["content"] for message in row["prompt"] or () if message["role"] == "user"]
    weights = ", ".join(f"{a} {w:g}" for a, w in zip(row["attributes"], row["weights"], strict=True))
    return {
        "why": _WHY[example.why],
        "persona": row["persona"],
        "weights": weights,
        "prompt": inline(asked[-1] if asked else "", MOST_PROMPT),
        "text": quoted(row["response"], MOST_TEXT),
        "adherence": "" if example.adherence is None else f"{example.adherence:.2f}",
        "scores": ", ".join(f"{name} {score:.2f}" for name, score in (example.scores or {}).items()),
        "row_id": row["row_id"],
    }


def _configs(facts: Facts) -> Iterator[dict[str, Any]]:
    """Each config with its rows by split and a table of its columns, as its files have them."""
    for info in facts.data.get("dataset_info", ()):
        name = str(info["config_name"])
        kind = "generations" if name == "default" else name
        columns = {str(feature["name"]): type_of(feature) for feature in info["features"]}
        rows = [[code(column), words, Md(meaning_of(kind, column))] for column, words in columns.items()]
        splits = [f"{each['num_examples']:,} in {each['name']}" for each in info["splits"]]
        yield {"name": name, "rows": ", ".join(splits), "columns": table(["column", "type", "meaning"], rows, n_text=3)}
