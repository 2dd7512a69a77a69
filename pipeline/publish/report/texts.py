"""Which texts a report shows, and all that it shows of them.

They are drawn by stratum: every persona and band of scores gives its first text, then its second, and so on, until
there are enough. Which is first goes by the row's id, which is a hash: the same texts are drawn each time, whatever
order the files are in, and one that is added moves few others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from personas.text import storable
from pipeline.publish.report.measures import Measures
from pipeline.publish.report.parts import Shown
from pipeline.publish.report.read import read_judgments, read_rows

# Bands of a text's mean score of its persona's attributes: fifths of the scale, and a band for texts without one.
N_BANDS = 5
# Longest texts that are shown whole, in characters; of a longer one the beginning, and that is said.
MOST_CHARACTERS = 20_000
# Decimals of a token's log-ratio, in nats.
_DECIMALS = 2

_COLUMNS = ("row_id", "prompt", "persona", "system", "attributes", "weights", "response", "finish_reason", "n_tokens",
            "log_ratios", "sample_index", "tokens", "token_log_ratios")  # fmt: skip


def drawn(m: Measures, most: int) -> list[int]:
    """Indices of the texts that are shown, rising: at most so many, by stratum."""
    if m.of.n <= most:
        return list(range(m.of.n))
    scores = m.own_scores
    bands = np.where(np.isnan(scores), N_BANDS, np.minimum(np.nan_to_num(scores) * N_BANDS, N_BANDS - 1)).astype(int)
    ids = np.asarray(m.of.row_ids.to_pylist(), dtype=object)
    by_id = np.argsort(ids, kind="stable")
    strata = (m.of.persona_of * (N_BANDS + 1) + bands)[by_id]
    order = np.argsort(strata, kind="stable")  # by stratum, in it by id
    of_stratum = strata[order]
    starts = np.flatnonzero(np.concatenate([[True], of_stratum[1:] != of_stratum[:-1]]))
    lengths = np.diff(np.append(starts, len(order)))
    rank = np.empty(len(order), dtype=int)
    rank[order] = np.arange(len(order)) - np.repeat(starts, lengths)  # place in its stratum, over texts by id
    return sorted(by_id[np.argsort(rank, kind="stable")[:most]].tolist())


def shares(sizes: Sequence[int], most: int) -> list[int]:
    """How many texts each data set shows: the same number, and what one has no use for goes to the others."""
    left, found = most, [0] * len(sizes)
    for place, i in enumerate(sorted(range(len(sizes)), key=lambda i: sizes[i])):
        found[i] = min(sizes[i], left // (len(sizes) - place))
        left -= found[i]
    return found


@dataclass(frozen=True)
class Texts:
    """What the page's script reads, see ``page.js``; ``n_of``: by data set, texts shown and texts there are."""

    data: Mapping[str, Any]
    n_of: Sequence[tuple[int, int]]


def texts_of(ms: Sequence[Measures], shown: Shown, most: int) -> Texts:
    """Read what is shown of the texts that are drawn."""
    names: dict[str, dict[str, int]] = {"attributes": {}, "personas": {}, "judges": {}}
    prompts: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    counts = []

    def place(kind: str, name: str) -> int:
        return names[kind].setdefault(name, len(names[kind]))

    for k, (m, share) in enumerate(zip(ms, shares([m.of.n for m in ms], most), strict=True)):
        indices = drawn(m, share)
        counts.append((len(indices), m.of.n))
        found = read_rows(m.of, indices, _COLUMNS)
        judgments = read_judgments(m.of, [row["row_id"] for row in found])
        for i, row in zip(indices, found, strict=True):
            asked = "\n\n".join(_said(message) for message in row["prompt"] or ())
            weights = dict(zip(row["attributes"] or (), row["weights"] or (), strict=False))
            text = row["response"] or ""
            rows.append(
                {
                    "set": k,
                    "id": row["row_id"],
                    "persona": place("personas", row["persona"]),
                    "prompt": prompts.setdefault(asked, len(prompts)),
                    "split": m.of.splits[i],
                    "weights": {place("attributes", a): _finite(w, 6) for a, w in weights.items() if w > 0},
                    "text": text[:MOST_CHARACTERS],
                    "cut": max(0, len(text) - MOST_CHARACTERS),
                    "finish": row["finish_reason"],
                    "tokens": row["n_tokens"],
                    "score": _finite(float(m.own_scores[i])),
                    "scores": {
                        place("attributes", a): _finite(s)
                        for a, s, asked_of in zip(
                            m.of.judged, m.of.scores[i].tolist(), m.of.is_judged[i].tolist(), strict=True
                        )
                        if asked_of
                    },
                    "judgments": [
                        [place("attributes", j["attribute"]), place("judges", j["judge"]),
                         _finite(j["score"]), j["status"], j["rationale"]]
                        for j in judgments.get(row["row_id"], ())
                    ],
                    "ratios": _by_attribute(row["attributes"], row["log_ratios"], place),
                    **_coloured(row, text, place),
                }
            )  # fmt: skip
    data = {
        "sets": [m.of.name for m in ms],
        **{kind: [[name, shown.get(name, name)] for name in of] for kind, of in names.items()},
        "prompts": list(prompts),
        "texts": rows,
    }
    return Texts(storable(data), counts)


def _finite(value: float | None, decimals: int = 4) -> float | None:
    """``None`` for what is no number: JSON has none of these."""
    return round(value, decimals) if value is not None and np.isfinite(value) else None


def _said(message: Mapping[str, Any]) -> str:
    role, content = message.get("role"), message.get("content") or ""
    return content if role == "user" else f"{role}: {content}"


def _by_attribute(attributes: Any, values: Any, place: Any) -> dict[int, float]:
    pairs = zip(attributes or (), values or (), strict=False)
    return {place("attributes", a): round(v, 3) for a, v in pairs if v is not None and np.isfinite(v)}


def _coloured(row: Mapping[str, Any], text: str, place: Any) -> dict[str, Any]:
    """The response in pieces with log-ratios, where the row has them and they are of this response."""
    pieces, ratios, attributes = row["tokens"], row["token_log_ratios"], row["attributes"] or ()
    if not pieces or not ratios or len(text) > MOST_CHARACTERS or "".join(pieces) != text:
        return {}
    if len(ratios) != len(attributes) or any(each is None or len(each) != len(pieces) for each in ratios):
        return {}
    rounded = {
        place("attributes", a): [_finite(v, _DECIMALS) for v in each]
        for a, each in zip(attributes, ratios, strict=True)
    }
    return {"pieces": pieces, "colours": rounded}
