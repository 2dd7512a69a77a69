"""Data sets for the gate, whose numbers are known, and the gate as a program calls it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli import main
from tests.made_data_set import judged, make, row

N = 30  # prompts
WORDS = ("river", "stone", "cloud", "ember", "field", "lamp", "salt", "tower", "violin", "winter")


def data_set(
    folder: Path, *, scores: Mapping[str, float] | None = None, n: int = N, log_prob: float = -10.0, same: int = 0,
    judge: str = "classifier@2", unscored: int = 0, seed: int = 0, run: Mapping[str, Any] | None = None,
    job: Mapping[str, Any] | None = None, weight: float = 1.0,
) -> Path:  # fmt: skip
    """One-hot personas E and J, with scores around their means.

    Args:
        same: texts of each persona that repeat its first. unscored: judgments of E without a score.
    """
    rng = np.random.default_rng(seed)
    rows, given = list[dict[str, Any]](), dict[str, list[float | None]]()
    for name, mean in (scores or {"E": 0.8, "J": 0.7}).items():
        texts = [" ".join(rng.choice(WORDS, 30)) for _ in range(n)]
        texts[1 : 1 + same] = [texts[0]] * same
        mine = [row(name, f"p{i}", {name: weight}, text, log_prob_reference=log_prob) for i, text in enumerate(texts)]
        lacking = unscored if name == "E" else 0
        given[name] = [None] * lacking + np.clip(mean + 0.1 * rng.standard_normal(n), 0, 1).tolist()[lacking:]
        rows += mine
    judgments = [
        each
        for name, mine in given.items()
        for each in judged(rows, name, [s for other in given for s in (mine if other == name else [0.5] * n)], judge)
    ]
    counts = {"rejected": 0, "planned": len(rows)} | dict((run or {}).get("counts", {}))
    return make(folder, rows, judgments, run={**(run or {}), "counts": counts}, job={"name": "made", **(job or {})})


def gate(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any]]:
    """What `mpg gate` ends with and says to programs."""
    capsys.readouterr()
    status = main(["gate", *map(str, words), "--json"])
    found = dict(json.loads(capsys.readouterr().out))
    assert found["status"] == status and found["stage"] == "gate"
    return status, found
