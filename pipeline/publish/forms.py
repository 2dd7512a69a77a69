"""The forms to train on that a data set's rows are put into: those of TRL's trainers, in conversations.

``messages``: each text as the answer of its chat; ``prompt-completion``: chat and answer apart, so that a trainer's
loss can be of the answer alone; ``preference``: two texts to one prompt, one judged better than the other.
(TRL's documentation, "Dataset formats and types".) Their columns beside these are none that a trainer of TRL reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from evaluation.statistics.duplicates import near_duplicates
from mpg.settings import TABLE
from personas import Attribute, Persona
from personas.profiles import with_system
from personas.telling import traits_in_words
from pipeline.plan.accept import own_score, panel_scores
from pipeline.plan.systems import Systems
from pipeline.publish.wanted import Wanted
from pipeline.store.schema import MESSAGES, list_of

Row = dict[str, Any]
# What forms are made of.
_READ = [
    *("row_id", "prompt_id", "prompt", "persona", "profile", "personality", "system", "attributes", "weights"),
    *("response", "finish_reason", "decoder", "log_prob_untold"),
]
# Of two scores: what floating-point sums do to them is no margin.
_ROUNDING = 1e-9

_NAMES = [pa.field("persona", pa.string()), pa.field("attributes", list_of(pa.string()))]
_WEIGHTS = pa.field("weights", list_of(pa.float64()))
_OF_ROW = [pa.field("row_id", pa.string()), pa.field("prompt_id", pa.string()), *_NAMES, _WEIGHTS]
_OF_PAIR = [
    *(pa.field(name, pa.string()) for name in ("chosen_row_id", "rejected_row_id", "prompt_id")),
    *_NAMES,
    _WEIGHTS,
    pa.field("rejected_persona", pa.string()),
    *(pa.field(name, pa.float64()) for name in ("chosen_score", "rejected_score")),
]
SCHEMAS = {
    "messages": pa.schema([*_OF_ROW, pa.field("messages", MESSAGES)]),
    "prompt-completion": pa.schema([*_OF_ROW, *(pa.field(name, MESSAGES) for name in ("prompt", "completion"))]),
    "preference": pa.schema([*_OF_PAIR, *(pa.field(name, MESSAGES) for name in ("prompt", "chosen", "rejected"))]),
}
# The column by which a form's rows are in a split: that of the text which they teach.
ID_COLUMN = {"messages": "row_id", "prompt-completion": "row_id", "preference": "chosen_row_id"}


class NothingToExport(ValueError):
    """No row is left of a form; the message is one line with what would help."""


@dataclass(frozen=True)
class Source:
    """A data set's rows, and what is known of them.

    Attributes:
        rows: of the table `generations`, those of train first. test_ids: of those in the test split.
        attributes: as its job describes them.
        scores: (row id, attribute) -> the panel's score. judged: attributes that any judge knows.
    """

    rows: Sequence[Row]
    test_ids: AbstractSet[str]
    attributes: Sequence[Attribute]
    scores: Mapping[tuple[str, str], float | None]
    judged: AbstractSet[str]

    @classmethod
    def of(
        cls,
        tables: Mapping[str, pa.Table],
        test_ids: AbstractSet[str],
        attributes: Sequence[Attribute],
        judges: Collection[str],
        rule: str,
    ) -> Source:
        """Args: judges: labels of those that count. rule: of the panel."""
        scores = panel_scores(tables["judgments"], judges, rule)
        rows = tables["generations"].select(_READ).to_pylist()
        return cls(rows, test_ids, attributes, scores, {name for _, name in scores})

    def score(self, row: Row, of: Row | None = None) -> float | None:
        """A text's mean score on the attributes of its persona, or on those of another row's, by their weights."""
        persona = of or row
        weights = zip(persona["attributes"], persona["weights"], strict=True)
        return own_score(row["row_id"], weights, self.scores, self.judged)


@dataclass(frozen=True)
class Made:
    """A form's rows, and what is to be said of them, a line each."""

    table: pa.Table
    lines: tuple[str, ...]


def make_form(source: Source, wanted: Wanted) -> Made:
    """Put a data set's rows into a form.

    Raises:
        NothingToExport: no row is left, or none can be made.
    """
    if wanted.reads_scores and not any(score is not None for score in source.scores.values()):
        raise NothingToExport("no text has a score of a judge that counts; judge the data set first (mpg judge)")
    rows, left_out = _taught(source, wanted)
    said = [f"left out: {n} {why}" for why, n in left_out.items() if n]
    if wanted.form == "preference":
        return _preference(source, wanted, rows, said)
    if not rows:
        raise NothingToExport(f"no text is left ({'; '.join(said) or 'the data set has none'}); ask for less")
    found = [_common(row) | _answered(row, source, wanted) for row in rows]
    sides = _sides([row["row_id"] for row in found], source)
    lines = (f"{wanted.form}: {len(found)} of {len(source.rows)} texts{sides}", *said)
    return Made(pa.Table.from_pylist(found, schema=SCHEMAS[wanted.form]), lines)


def _taught(source: Source, wanted: Wanted) -> tuple[list[Row], Counter[str]]:
    """The rows that may be taught or, in pairs, warned of; and how many are not, by why."""
    left_out: Counter[str] = Counter()
    rows = []
    for row in source.rows:
        score = source.score(row) if wanted.min_score is not None else None
        if wanted.form != "preference" and wanted.personas and row["persona"] not in wanted.personas:
            left_out["texts of other personas (--persona)"] += 1
        elif not row["response"].strip():
            left_out["texts that say nothing"] += 1
        elif wanted.finished_only and row["finish_reason"] == "length":
            left_out["texts cut off at the length limit (--finished-only)"] += 1
        elif wanted.form != "preference" and wanted.min_score is not None and score is None:
            left_out["texts without a score (--min-score)"] += 1
        elif wanted.form != "preference" and score is not None and score < (wanted.min_score or 0) - _ROUNDING:
            left_out[f"texts with a score below --min-score {wanted.min_score:g}"] += 1
        else:
            rows.append(row)
    if wanted.drop_near_duplicates:
        found = near_duplicates([row["response"] for row in rows], [row["persona"] for row in rows])
        left_out["near-duplicates of their personas' texts (--drop-near-duplicates)"] = found.n_repeats
        rows = [row for row, stays in zip(rows, found.keep, strict=True) if stays]
    return rows, left_out


def _common(row: Row) -> Row:
    return {name: row[name] for name in ("row_id", "prompt_id", "persona", "attributes", "weights")}


def _answered(row: Row, source: Source, wanted: Wanted) -> Row:
    prompt, answer = _prompt(row, source, wanted.system), _answer(row)
    return {"messages": [*prompt, *answer]} if wanted.form == "messages" else {"prompt": prompt, "completion": answer}


def _answer(row: Row) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": row["response"]}]


def _prompt(row: Row, source: Source, how: str) -> list[dict[str, str]]:
    """The chat before the answer, with the system message that was asked for."""
    system = {"none": None, "told": row["system"], "persona": persona_in_words(row, source.attributes)}[how]
    chat: list[dict[str, str]] = row["prompt"]
    return chat if not system else with_system(chat, system)


def persona_in_words(row: Row, attributes: Sequence[Attribute]) -> str | None:
    """What a model is told that is to answer as the row's persona; ``None`` for the control that was told nothing.

    What the reference was told, what the persona's attributes' own models were told (role-play), and the other
    attributes by their descriptions, with their weights.
    """
    described = {each.name: each for each in attributes}
    weights = dict(zip(row["attributes"], row["weights"], strict=True))
    parts = [row["system"]] if row["system"] else []
    # Else it has been told of them already; of `prompting`, older rows have no log-probability of another reference.
    if weights and row["log_prob_untold"] is None and not TABLE[row["decoder"]].told:
        profile, personality = row["profile"] or "", row["personality"] or ""
        persona = Persona(row["persona"], weights, profile=profile, personality=personality)
        own = Systems.of(attributes, None).for_attributes(persona)
        parts += dict.fromkeys(own.values())
        others = {name: weight for name, weight in weights.items() if name not in own}
        if others:
            parts.append(traits_in_words(others, {name: each.description for name, each in described.items()}))
    return "\n\n".join(parts) or None


def _preference(source: Source, wanted: Wanted, rows: Sequence[Row], said: Sequence[str]) -> Made:
    pairs: list[Row] = []
    why_not: Counter[str] = Counter()
    candidates = _cells(rows, source, wanted) if wanted.between == "cells" else _rivals(rows, source, wanted)
    for found in candidates:
        problem = found if isinstance(found, str) else _no_pair(*found, wanted)
        if problem is not None:
            why_not[problem] += 1
        elif not isinstance(found, str):
            (chosen, best), (rejected, worst) = found
            pairs.append(
                {
                    **{name: chosen[name] for name in ("prompt_id", "persona", "attributes", "weights")},
                    "chosen_row_id": chosen["row_id"],
                    "rejected_row_id": rejected["row_id"],
                    "rejected_persona": rejected["persona"],
                    "chosen_score": best,
                    "rejected_score": worst,
                    "prompt": _prompt(chosen, source, wanted.system),
                    "chosen": _answer(chosen),
                    "rejected": _answer(rejected),
                }
            )
    of = f"{len(pairs) + why_not.total()} cells of a prompt and a persona"
    reasons = "; ".join(f"{n} {why}" for why, n in why_not.most_common())
    if not pairs:
        remedy = "lower --min-margin or --min-score, " if wanted.min_margin or wanted.min_score else ""
        more = "draw more samples (samples_per_cell), or compare --between personas"
        help_ = more if wanted.between == "cells" else "judge more texts, or write more personas"
        why = "; ".join([reasons or "no texts", *said])
        raise NothingToExport(f"no pair can be made of {of}: {why}; {remedy}{help_}")
    sides = _sides([pair["chosen_row_id"] for pair in pairs], source)
    lines = (f"preference: {len(pairs)} pairs{sides} of {of}", *(f"no pair: {n} {w}" for w, n in why_not.most_common()))
    return Made(pa.Table.from_pylist(pairs, schema=SCHEMAS["preference"]), (*lines, *said))


def _sides(row_ids: Sequence[str], source: Source) -> str:
    """How many are in train and test, of a data set with a test split."""
    n_test = sum(row_id in source.test_ids for row_id in row_ids)
    return f" ({len(row_ids) - n_test} train, {n_test} test)" if source.test_ids else ""


Judged = tuple[Row, float]
_TOO_FEW = "with fewer than two scored texts"


def _cells(rows: Sequence[Row], source: Source, wanted: Wanted) -> Iterator[tuple[Judged, Judged] | str]:
    """Of each cell the best and the worst judged text, or why there are none; the first of those that are alike."""
    cells: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if _is_taught(row, wanted):
            cells.setdefault((row["prompt_id"], row["persona"]), []).append(row)
    for mine in cells.values():
        judged = [(row, score) for row in mine if (score := source.score(row)) is not None]
        yield _ends(judged, judged) if len(judged) > 1 else _TOO_FEW


def _rivals(rows: Sequence[Row], source: Source, wanted: Wanted) -> Iterator[tuple[Judged, Judged] | str]:
    """Of each persona on a prompt its best text, and of the others' the one that is judged lowest on its attributes.

    Both are of one split: what a pair of train rejects is no text of the test.
    """
    prompts: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        prompts.setdefault((row["prompt_id"], row["row_id"] in source.test_ids), []).append(row)
    for there in prompts.values():
        for name, persona in {row["persona"]: row for row in there if _is_taught(row, wanted)}.items():
            judged = [(row, score) for row in there if (score := source.score(row, persona)) is not None]
            mine = [each for each in judged if each[0]["persona"] == name]
            others = [each for each in judged if each[0]["persona"] != name]
            yield _ends(mine, others) if mine and others else "without a scored text of its own and of another persona"


def _is_taught(row: Row, wanted: Wanted) -> bool:
    """Whether its persona is one whose texts may be chosen: it has attributes to be judged by."""
    return bool(row["attributes"]) and (not wanted.personas or row["persona"] in wanted.personas)


def _ends(best_of: Sequence[Judged], worst_of: Sequence[Judged]) -> tuple[Judged, Judged]:
    return max(best_of, key=lambda each: each[1]), min(worst_of, key=lambda each: each[1])


def _no_pair(best: Judged, worst: Judged, wanted: Wanted) -> str | None:
    """Why two texts make no pair; ``None``: they do."""
    margin = best[1] - worst[1]
    if margin <= _ROUNDING or best[0]["response"] == worst[0]["response"]:
        return "whose best text is no better than the other"
    if margin < wanted.min_margin - _ROUNDING:
        return f"with a margin below --min-margin {wanted.min_margin:g}"
    if wanted.min_score is not None and best[1] < wanted.min_score - _ROUNDING:
        return f"whose best text is below --min-score {wanted.min_score:g}"
    return None
