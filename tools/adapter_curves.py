"""Adherence and perplexity of the shipped adapters against their strength: measured in texts, put on their cards."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from evaluation.statistics.aggregate import clustered_mean
from personas import MBTI, ROLE_PLAY
from pipeline.job.load import load_job
from pipeline.job.model import Job
from pipeline.run.run import run_job

_WORKFLOWS = Path(__file__).parent.parent / "workflows"
JOBS = {"adapters.yaml": tuple(MBTI), "role-play-adapters.yaml": tuple(ROLE_PLAY)}

Row = Mapping[str, Any]


def write_curves(adapters: Path, names: Sequence[str], output: Path | None = None) -> str:
    """Write texts with every named adapter alone at several strengths, put the curves on the cards; the table.

    Args:
        adapters: folder of the adapters; one subfolder each.
        output: where the texts are written, of the named adapters alone; ``None``: the job's own folder, where the
            texts of all are found again.
    """
    lines = []
    for file, attributes in JOBS.items():
        wanted = [name for name in attributes if name in names]
        if not wanted:
            continue
        lines.append(f"{file}: strength: judged adherence / perplexity under the reference (its own at strength 0)")
        curves = curves_of(_job(file, adapters, JOBS[file]) if output is None else _job(file, adapters, wanted, output))
        for name in wanted:
            card_file = adapters / name / "card.json"
            card = json.loads(card_file.read_text("utf-8")) | {"curve": curves[name]}
            card_file.write_text(json.dumps(card, indent=2) + "\n", "utf-8")
            lines.append(f"{name:11}  " + "  ".join(map(_shown, curves[name])))
    return "\n".join(lines)


def _job(file: str, adapters: Path, names: Sequence[str], output: Path | None = None) -> Job:
    """The job with these adapters."""
    entries = [{"name": name, "adapter": str((adapters / name).resolve())} for name in names]
    elsewhere = [] if output is None else [f"output={output.resolve()}"]
    return load_job(_WORKFLOWS / file, [f"attributes={json.dumps(entries)}", *elsewhere])


def curves_of(job: Job) -> dict[str, list[dict[str, Any]]]:
    """Run a job whose personas have one attribute each; per attribute a point for each strength, 0 first."""
    done = run_job(job)
    folder, labels = done.folder, done.run["judges"]  # without those of a judge's older versions
    rows, judgments = _table(folder / "data"), _table(folder / "judgments")
    scores = {(row["row_id"], row["attribute"]): row["score"] for row in judgments if row["judge"] in labels}
    control = [row for row in rows if not row["attributes"]]
    curves = {}
    for name in job.attribute_names:
        mine = [row for row in rows if row["attributes"] == [name]]
        curves[name] = [_point(0.0, name, control, scores)]
        for strength in sorted({row["strengths"][0] for row in mine}):
            curves[name].append(_point(strength, name, [r for r in mine if r["strengths"] == [strength]], scores))
    return curves


def _point(strength: float, name: str, rows: Sequence[Row], scores: Mapping[tuple[str, str], float]) -> dict[str, Any]:
    adherence = clustered_mean([scores[row["row_id"], name] for row in rows], [row["prompt_id"] for row in rows])
    log_prob, n_tokens = (math.fsum(row[key] for row in rows) for key in ("log_prob_reference", "n_tokens"))
    rates = [row["acceptance_rate"] for row in rows if row["acceptance_rate"] is not None]
    return {
        "strength": strength,
        "adherence": adherence.value,
        "half_width": adherence.half_width,
        "n": adherence.n,
        "n_unscored": adherence.n_unscored,
        "perplexity": math.exp(-log_prob / n_tokens),
        "acceptance": math.fsum(rates) / len(rates) if rates else None,
    }


def _shown(point: Mapping[str, Any]) -> str:
    adherence = "-" if point["adherence"] is None else f"{point['adherence']:.2f}"
    return f"{point['strength']:g}: {adherence} / {point['perplexity']:.2f}"


def _table(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
