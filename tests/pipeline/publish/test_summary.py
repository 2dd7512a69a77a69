"""What a corpus's table is made of."""

from __future__ import annotations

import pyarrow as pa

from pipeline.publish.summary import summarise
from pipeline.store.schema import GENERATIONS, JUDGMENTS

ROW = {
    **{field.name: "" for field in GENERATIONS if field.type == pa.string()},
    **{field.name: 1 for field in GENERATIONS if pa.types.is_integer(field.type)},
    **{field.name: [] for field in GENERATIONS if pa.types.is_list(field.type)},
    **{"exact": True, "acceptance_rate": None, "tv_bound": None, "log_prob_reference": -1.0},
    "persona": "E",
}


def judgment(judge: str, score: float | None) -> dict[str, object]:
    status = "failed" if score is None else "ok"
    return {"row_id": "r", "attribute": "E", "judge": judge, "score": score, "status": status} | dict.fromkeys(
        ("rationale", "prompt_tokens", "completion_tokens")
    )


def test_a_judges_older_version_does_not_count_beside_the_newer() -> None:
    generations = pa.Table.from_pylist([ROW | {"row_id": "r", "prompt_id": "p"}], schema=GENERATIONS)
    found = [judgment("classifier@1", 0.1), judgment("classifier@2", 0.9), judgment("log-ratio@1", 0.0)]
    judgments = pa.Table.from_pylist(found, schema=JUDGMENTS)
    newer = summarise(generations, judgments, ["E"], judges={"classifier@2", "log-ratio@1"})
    assert newer.personas[0].adherence["E"].value == 0.9  # the models' own opinion never counts
    everything = summarise(generations, judgments, ["E"])
    assert everything.personas[0].adherence["E"].value == 0.5
