"""What each attribute's weight does to the scores of all attributes under one point, over all tasks together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation.statistics.control import leakage
from personas import Persona
from pipeline.compare.texts import Found, Text

# A row an entry of a point's matrix.
LEAKAGE = pa.schema(
    [
        pa.field("curve", pa.string(), nullable=False),
        pa.field("strength", pa.float64()),
        pa.field("weight_of", pa.string(), nullable=False),
        pa.field("score_of", pa.string(), nullable=False),
        pa.field("effect", pa.float64(), nullable=False),  # of a weight of 1; see evaluation.statistics.control.leakage
        pa.field("half_width", pa.float64()),  # of the 95 % interval, by prompt
        pa.field("baseline", pa.string(), nullable=False),  # from what it is measured: reference, others
    ]
)


def leakage_of(
    arms: Sequence[Found], reference: Sequence[Found], personas: Mapping[str, Sequence[Persona]]
) -> list[dict[str, Any]]:
    """Rows of :data:`LEAKAGE` of one point; without entries that its personas' weights can't tell apart.

    Args:
        arms: of the point, a task each. reference: of the bare model, likewise, from which effects are measured;
            empty: from what the other attributes do. personas: task -> its personas.
    """
    weights_of = {(task, each.name): each.active for task, own in personas.items() for each in own}
    texts: list[tuple[str, Mapping[str, float], Text]] = []
    for found in arms:
        texts += [(found.task, weights_of[found.task, text.persona], text) for text in found.written.texts]
    for found in reference:  # its texts are there once for each persona
        first = personas[found.task][0].name
        texts += [(found.task, {}, text) for text in found.written.texts if text.persona == first]
    weighed = list(dict.fromkeys(name for _, weights, _ in texts for name in weights))
    weighed = [name for name in weighed if any(name in text.judged for _, _, text in texts)]
    judged = list(dict.fromkeys([*weighed, *(name for _, _, text in texts for name in text.judged)]))
    if not weighed:
        return []
    design = np.array([[weights.get(name, 0.0) for name in weighed] for _, weights, _ in texts])
    scores = np.array([[_or_nan(text.judged.get(name)) for name in judged] for _, _, text in texts])
    found_of = leakage(design, scores, [text.prompt for _, _, text in texts])
    point = arms[0].point
    return [
        {
            "curve": point.curve.label,
            "strength": point.strength,
            "weight_of": a,
            "score_of": b,
            "effect": effect.value,
            "half_width": effect.half_width,
            "baseline": found_of.baseline,
        }
        for a, row in zip(weighed, found_of.effects, strict=True)
        for b, effect in zip(judged, row, strict=True)
        if effect.value is not None
    ]


def _or_nan(score: float | None) -> float:
    return math.nan if score is None else score
