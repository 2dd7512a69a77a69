"""A whole comparison over a tiny random Llama, in files, see tests/tiny_job.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.tiny_job import make_job

PROMPTS = ("hello you", "what now?", "tell me more", "who are you?", "how so?", "why not?", "where to?", "and then?")
SUM = {"name": "scr-exact", "aggregate": "sum"}


def comparison_data() -> dict[str, Any]:
    """The file's fields: two attributes at equal weights, four methods with curves of one or two points."""
    return {
        "name": "tiny",
        "job": {
            "model": {"id": "base", "dtype": "float32"},
            "attributes": [{"name": "E", "adapter": "E"}, {"name": "J", "adapter": "J"}],
            "decoder": {"max_new_tokens": 8, "chunk_len": 4, "top_p": 0.95},
            "judges": [{"kind": "classifier"}, {"kind": "encoder"}, {"kind": "log-ratio"}],
            "batch_size": 8,
        },
        "tasks": [
            {
                "name": "both",
                "personas": {"kind": "explicit", "weights": [{"name": "EJ", "weights": {"E": 0.5, "J": 0.5}}]},
                "prompts": {"file": "prompts.jsonl"},
            }
        ],
        "methods": [
            {"name": "reference", "decoder": {"name": "reference"}, "baseline": True},
            {"name": "single", "decoder": {"name": "single"}, "strengths": [1.0], "baseline": True},
            {"name": "mod", "decoder": {"name": "mod"}, "strengths": [1.0, 3.0], "baseline": True},
            {"name": "sum", "decoder": SUM, "strengths": [2.0], "horizons": [None]},
        ],
        "screening": {"texts": 4, "prompts": 0.5},
        "final": {"finalists": 1, "most_texts": 8},
        "output": "out",
    }


def make_comparison(folder: Path, **changes: Any) -> Path:
    """The comparison file, with its model, adapters and prompts beside it."""
    make_job(folder, PROMPTS)
    path = folder / "compare.yaml"
    path.write_text(yaml.safe_dump(comparison_data() | changes))
    return path
