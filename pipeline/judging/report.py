"""What ``mpg judge`` prints: means by judge and persona, judges against each other and against known answers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow as pa

from evaluation.features.embedding import Embedder
from evaluation.items import Item, Judge, label_of, why_uncounted
from evaluation.statistics.aggregate import clustered_mean
from evaluation.statistics.agreement import agreements, known_pairs, self_consistency
from evaluation.statistics.quality import quality
from evaluation.tables import aligned
from personas.examples import Example
from personas.text import storable
from pipeline.judging.corpus import Corpus


def means_table(table: pa.Table, corpus: Corpus) -> str:
    """Means by judge, attribute and persona."""
    place = {item.key: i for i, item in enumerate(corpus.items)}
    cells: dict[tuple[str, str, str], list[tuple[float | None, str]]] = {}
    reasons: dict[str, Counter[str]] = {}
    for row in table.select(["row_id", "attribute", "judge", "score", "status"]).to_pylist():
        i = place[row["row_id"]]
        cells.setdefault((row["judge"], corpus.groups[i], row["attribute"]), []).append(
            (row["score"], corpus.clusters[i])
        )
        if row["score"] is None:
            reasons.setdefault(row["judge"], Counter())[row["status"]] += 1
    lines = []
    for label in sorted({key[0] for key in cells}):
        names = list(dict.fromkeys(key[2] for key in cells if key[0] == label))
        why = why_uncounted(label)
        beside = "" if why is None else f" ({why})"
        rows = []
        for group in dict.fromkeys(corpus.groups):
            values = [cells.get((label, group, name), []) for name in names]
            rows.append([group, *(clustered_mean([v for v, _ in c], [k for _, k in c]).shown for c in values)])
        lines += [f"\n{label}{beside}\n", aligned(["persona", *names], rows)]
        if label in reasons:
            lines.append("unscored: " + ", ".join(f"{n} {status}" for status, n in sorted(reasons[label].items())))
    return "\n".join(lines)


def agreement_lines(table: pa.Table) -> list[str]:
    """Judge against judge, attribute by attribute."""
    scores: dict[str, dict[str, dict[str, float | None]]] = {}
    for row in table.select(["row_id", "attribute", "judge", "score"]).to_pylist():
        scores.setdefault(row["attribute"], {}).setdefault(row["judge"], {})[row["row_id"]] = row["score"]
    lines = []
    for attribute, of_judges in scores.items():
        ids = sorted({row_id for each in of_judges.values() for row_id in each})
        aligned = {label: [each.get(row_id) for row_id in ids] for label, each in of_judges.items()}
        for (one, other), found in agreements(aligned).items():
            kappa, spearman = ("-" if v is None else f"{v:.2f}" for v in (found.kappa, found.spearman))
            lines.append(f"{attribute}: {one} and {other}: kappa {kappa}, Spearman {spearman} over {found.n} texts")
    return ["", *lines] if lines else []


def known_lines(judge: Judge, known: Mapping[str, Sequence[Example]]) -> list[str]:
    """The judge on pairs whose better answer is known."""
    lines = []
    for name, pairs in known.items():
        sides = []
        for side in (0, 1):
            asked = [p.messages[-1].content for p in pairs]
            items = [
                Item(f"known:{i}:{side}", storable(p.answers[side]), prompt=storable(asked[i]))
                for i, p in enumerate(pairs)
            ]
            sides.append([score.score for score in judge.judge(items, [name])[name]])
        found = known_pairs(*sides)
        if found.ranking is None:
            lines.append(f"known pairs of {name}: none scored")
            continue
        flag = "  <- WORSE THAN THE FLOOR: do not rely on this judge" if found.flagged else ""
        lines.append(
            f"known pairs of {name}: ranked {found.ranking:.3f} ± {found.standard_error:.3f} rightly, "
            f"accuracy {found.accuracy:.3f}, {found.n} pairs, {found.n_unscored} unscored ({label_of(judge)}){flag}"
        )
    return ["", *lines] if lines else []


def quality_lines(corpus: Corpus, embedder: Embedder | None = None) -> list[str]:
    """The texts as texts, by persona, whatever they say."""
    head = ["persona", "texts", "words", "distinct-1", "distinct-2", "repetition", "diversity", "perplexity"]
    members: dict[str, list[int]] = {}
    for i, group in enumerate(corpus.groups):
        members.setdefault(group, []).append(i)
    rows = []
    for group, mine in members.items():
        q = quality([storable(corpus.items[i].text) for i in mine], embedder)
        shown = [f"{q.n}", f"{q.words:.0f}", f"{q.distinct_1:.2f}", f"{q.distinct_2:.2f}", f"{q.repetition:.3f}"]
        diversity = "-" if q.diversity is None else f"{q.diversity:.3f}"
        perplexity = "-"
        if corpus.log_probs:
            n_tokens = sum(corpus.log_probs[i][1] for i in mine)
            perplexity = f"{math.exp(-math.fsum(corpus.log_probs[i][0] for i in mine) / max(1, n_tokens)):.2f}"
        rows.append([group, *shown, diversity, perplexity])
    return ["", aligned(head, rows)]


def repeat_line(first: Mapping[str, Sequence[float | None]], again: Mapping[str, Sequence[float | None]]) -> str:
    """How far a judge's scores of the same texts differ from one call to the next, by attribute."""
    found = []
    for name in first:
        mean, n = self_consistency([first[name], again[name]])
        found.append(f"{name} {'-' if mean is None else f'{mean:.3f}'} over {n} texts")
    return "asked again, a score differs by (mean): " + ", ".join(found)
