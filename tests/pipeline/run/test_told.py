"""A job whose decoder tells: rows, what is kept of them when that changes, perplexities, and verification."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.judging.corpus import load_corpus
from pipeline.publish.report.read import read_data_set
from pipeline.run.run import run_job
from tests.tiny_job import rows

CHANGES = ("judges=[]", "prompts.limit=1", "decoder.max_new_tokens=6", "personas.steps=1")


def run(job_file: Path, *changes: str) -> list[dict[str, Any]]:
    job = load_job(job_file, [*CHANGES, *changes])
    run_job(job)
    return rows(job.output_folder)


def test_whoever_is_told_is_in_a_rows_identity_and_its_record(job_file: Path, capsys: pytest.CaptureFixture) -> None:
    found = {tell: run(job_file, f"decoder.tell={tell}") for tell in ("none", "reference", "all")}
    found["degrees"] = run(job_file, "decoder.tell=all", "decoder.wording=degrees")
    found["prompting"] = run(job_file, "decoder.name=prompting")
    controls = [each[0] for each in found.values()]
    assert all(row == controls[0] for row in controls)  # kept, and told nothing
    assert controls[0]["system"] is None and controls[0]["log_prob_untold"] is None
    for i in (1, 2):
        assert len({each[i]["row_id"] for each in found.values()}) == len(found)
        assert found["none"][i]["system"] is None and found["none"][i]["log_prob_untold"] is None
        assert found["reference"][i]["system"] == found["all"][i]["system"] == found["prompting"][i]["system"]
        assert found["degrees"][i]["system"].splitlines()[1].startswith("- strongly: ")
        for name in ("reference", "all", "degrees", "prompting"):
            row = found[name][i]
            assert row["log_prob_untold"] < 0 and row["log_prob_untold"] != row["log_prob_reference"]
    capsys.readouterr()
    out = str(job_file.parent / "out")
    assert main(["verify", out, "--sample", "3"]) == 0, capsys.readouterr()


def test_perplexities_are_of_the_reference_that_is_not_told(job_file: Path) -> None:
    """In the summary, the report and the judges' table alike."""
    job = load_job(job_file, [*CHANGES, "decoder.tell=reference"])
    summary = run_job(job).summary
    found = rows(job.output_folder)
    wanted = {row["persona"]: math.exp(-(row["log_prob_untold"] or row["log_prob_reference"]) / row["n_tokens"])
              for row in found}  # fmt: skip
    assert {each.persona: each.perplexity for each in summary.personas} == pytest.approx(wanted)
    told = [row["log_prob_untold"] or row["log_prob_reference"] for row in found]
    assert [each for each, _ in load_corpus(job.output_folder, column="response", output=None).log_probs] == told
    assert read_data_set(job.output_folder).log_probs.tolist() == told
