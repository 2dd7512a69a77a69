"""Data sets made by hand, whose numbers are known: for what reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.store.dataset import write_pieces
from pipeline.store.schema import GENERATIONS, JUDGMENTS

CELL: dict[str, Any] = {
    **{field.name: "" for field in GENERATIONS if field.type == pa.string() and not field.nullable},
    **{field.name: 1 for field in GENERATIONS if pa.types.is_integer(field.type)},
    **{field.name: [] for field in GENERATIONS if pa.types.is_list(field.type) and not field.nullable},
    "finish_reason": "stop",
    "decoder": "scr-exact",
    "exact": True,
    "acceptance_rate": 0.5,
    "tv_bound": 0.0,
    "log_prob_reference": -10.0,
    "n_tokens": 5,
}
RUN: dict[str, Any] = {
    "job": "made",
    "model": "a/model@1",
    "ended": {"complete": True, "why": None, "status": 0},
    "timings": {"began": "2026-01-02T03:04:05+00:00", "ended": "2026-01-02T03:05:05+00:00"},
    "counts": {"rejected": 0},
    "actual": {"cells": 1, "tokens": 5, "seconds": 60.0, "cost": 0.0},
}


def row(persona: str, prompt: str, weights: Mapping[str, float], text: str = "Well.", **more: Any) -> dict[str, Any]:
    """A row of `generations`; its id is a hash of persona, prompt and sample."""
    name = f"{persona}\n{prompt}\n{more.get('sample_index', 0)}".encode()
    used = {key: weight for key, weight in weights.items() if weight > 0}
    return CELL | {
        "row_id": hashlib.sha256(name).hexdigest()[:32],
        "prompt_id": prompt,
        "prompt": [{"role": "user", "content": f"About {prompt}?"}],
        "persona": persona,
        "attributes": list(used),
        "weights": list(used.values()),
        "log_ratios": [0.5] * len(used),
        "response": text,
        **more,
    }


def judged(rows: Sequence[dict[str, Any]], attribute: str, scores: Sequence[float | None], judge: str = "classifier@1",
           **more: Any) -> list[dict[str, Any]]:  # fmt: skip
    """A judge's scores of one attribute, row by row."""
    blank = dict.fromkeys(JUDGMENTS.names)
    return [
        blank
        | {"row_id": each["row_id"], "attribute": attribute, "judge": judge, "score": score,
           "status": "failed" if score is None else "ok"}
        | more
        for each, score in zip(rows, scores, strict=True)
    ]  # fmt: skip


def make(
    folder: Path, rows: Sequence[dict[str, Any]], judgments: Sequence[dict[str, Any]] = (), *,
    run: Mapping[str, Any] | None = None, job: Mapping[str, Any] | None = None,
) -> Path:  # fmt: skip
    """Write a data set: tables, manifest, ``run.json`` and, where one is given, ``job.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    judged = pa.Table.from_pylist(list(judgments), schema=JUDGMENTS)
    write_pieces(folder, [{"generations": _with_tokens(rows), "judgments": judged}])
    labels = sorted({each["judge"] for each in judgments})
    (folder / "run.json").write_text(json.dumps(RUN | {"judges": labels} | dict(run or {})))
    if job is not None:
        (folder / "job.json").write_text(json.dumps(job))
    return folder


_TOKENS = {"tokens": pa.list_(pa.string()), "token_log_ratios": pa.list_(pa.list_(pa.float32()))}


def _with_tokens(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows whose tokens are kept have two columns more, whether or not today's schema has them."""
    table = pa.Table.from_pylist(list(rows), schema=GENERATIONS)
    for name, kind in _TOKENS.items():
        if name not in table.column_names and any(name in each for each in rows):
            table = table.append_column(name, pa.array([each.get(name) for each in rows], kind))
    return table


def grid(
    attributes: Sequence[str] = ("E", "N"), prompts: int = 3, *, control: bool = True, **more: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One-hot personas, all halves of two, and the control; scores are ``0.2 + 0.6 w`` and a little of the prompt."""
    personas: list[tuple[str, dict[str, float]]] = [("reference", {})] if control else []
    personas += [(f"{a}1.00", {a: 1.0}) for a in attributes]
    personas += [(f"{a}0.50+{b}0.50", {a: 0.5, b: 0.5}) for i, a in enumerate(attributes) for b in attributes[i + 1 :]]
    rows = [
        row(name, f"p{k}", weights, f"{name} on p{k}.", **more) for name, weights in personas for k in range(prompts)
    ]
    of = dict(personas)
    judgments = []
    for a in attributes:
        scores = [0.2 + 0.6 * of[each["persona"]].get(a, 0.0) + 0.01 * int(each["prompt_id"][1:]) for each in rows]
        judgments += judged(rows, a, scores)
    return rows, judgments
