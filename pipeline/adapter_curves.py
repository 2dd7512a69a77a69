"""Adherence and perplexity of the shipped adapters against their strength: measured in texts, put on their cards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from personas import MBTI
from pipeline.job import load_job
from pipeline.run import run_job
from pipeline.summary import PersonaSummary

_WORKFLOWS = Path(__file__).parent.parent / "workflows"
JOBS = {"adapters.yaml": tuple(MBTI), "role-play-adapters.yaml": ("profile", "personality")}


def write_curves(adapters: Path, names: Sequence[str]) -> str:
    """Write texts with every named adapter alone at several strengths, put the curves on the cards; the table.

    Args:
        adapters: folder of the adapters; one subfolder each.
    """
    lines = []
    for file, attributes in JOBS.items():
        wanted = [name for name in attributes if name in names]
        if not wanted:
            continue
        overrides = [f"attributes={json.dumps([{'name': name, 'adapter': str(adapters / name)} for name in wanted])}"]
        result = run_job(load_job(_WORKFLOWS / file, overrides))
        summaries = {each.persona: each for each in result.summary.personas}
        lines.append(f"{file}: judged adherence / perplexity under the reference, by strength")
        for name in wanted:
            curve = [_point(0.0, summaries["reference"], name)]
            for strength in load_job(_WORKFLOWS / file).personas.strengths:
                curve.append(_point(strength, summaries[f"{name}1.00x{strength:g}"], name))
            card_file = adapters / name / "card.json"
            card = json.loads(card_file.read_text("utf-8")) | {"curve": curve}
            card_file.write_text(json.dumps(card, indent=2) + "\n", "utf-8")
            cells = [f"{p['strength']:g}: {p['adherence']:.2f} / {p['perplexity']:.2f}" for p in curve]
            lines.append(f"{name:11}  " + "  ".join(cells))
    return "\n".join(lines)


def _point(strength: float, summary: PersonaSummary, name: str) -> dict[str, Any]:
    mean = summary.adherence[name]
    return {
        "strength": strength,  # 0: the reference itself
        "adherence": mean.value,
        "n": mean.n,
        "n_unscored": mean.n_unscored,
        "perplexity": summary.perplexity,
        "acceptance": summary.acceptance_rate,
    }
