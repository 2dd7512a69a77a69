"""A job at temperature 0: one text a cell, whatever the seed, the drafter and the batch; the control's as well."""

from __future__ import annotations

from pathlib import Path

from pipeline.cli import main
from tests.tiny_job import rows


def test_a_greedy_jobs_texts_depend_on_no_seed(job_file: Path) -> None:
    texts, ids = [], []
    for seed, extra in ((0, "batch_size=4"), (1, "batch_size=3"), (2, "decoder.drafter=reference")):
        output = job_file.parent / f"out{seed}"
        options = ["--set", "decoder.temperature=0", "--set", f"seed={seed}", "--set", extra, "--output", str(output)]
        assert main(["run", str(job_file), *options]) == 0
        found = rows(output)
        texts.append({(row["prompt_id"], row["persona"]): (row["response"], row["exact"]) for row in found})
        ids.append({row["row_id"] for row in found})
    assert texts[0] == texts[1] == texts[2] and len(texts[0]) == 12 and len(set(texts[0].values())) > 3
    assert not ids[0] & ids[1]  # the seed is part of a row's identity, as ever


def test_a_greedy_row_is_another_row_than_a_warm_one(job_file: Path) -> None:
    found = []
    for temperature in (0, 1):
        output = job_file.parent / f"at{temperature}"
        options = ["--set", f"decoder.temperature={temperature}", "--output", str(output)]
        assert main(["run", str(job_file), *options]) == 0
        found.append({row["row_id"] for row in rows(output)})
    assert len(found[0]) == len(found[1]) == 12 and not found[0] & found[1]
