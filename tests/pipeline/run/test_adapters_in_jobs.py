"""Other people's adapters in a job: what `mpg check` says of them, and which rows they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mpg.models.adapter_files import _warn
from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.plan.plan import Plan
from pipeline.run.preflight import read_prompts
from pipeline.run.run import run_job
from tests.tiny_job import rows, tiny_token, write_job

EVERY = [{"name": "E", "adapter": "E"}, {"name": "J", "adapter": "J"}]


def set_fields(folder: Path, **fields: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def test_rows_whose_prompt_an_adapter_waits_in_vain_for_are_rejected_alone(job_file: Path) -> None:
    folder = job_file.parent
    set_fields(folder / "J", alora_invocation_tokens=[tiny_token(char) for char in "you"])
    job = load_job(write_job(folder, max_rejected_fraction=0.5))
    found = read_prompts(Plan.of(job), job.load_prompts())
    assert dict(found.rejected) == {"no_invocation": 4}  # J alone and J with E, for two prompts of three
    done = run_job(job)
    rejected = rows(done.folder, "rejected")
    assert {row["reason"] for row in rejected} == {"no_invocation"} and len(rejected) == 4
    assert all("J" in row["attributes"] and "hello you" not in str(row["prompt"]) for row in rejected)
    assert all(row["message"].startswith("prompts.J: its adapter is on from its invocation") for row in rejected)
    assert len(rows(done.folder)) == 8


def test_a_job_says_that_it_knows_its_adapters_base(job_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = job_file.parent
    before = run_job(load_job(job_file))
    set_fields(folder / "J", base_model_name_or_path="somebody/another-model")

    def warned() -> int:
        _warn.cache_clear()
        caplog.clear()
        assert main(["check", str(job_file)]) == 0
        return caplog.text.count("base_model_name_or_path: 'somebody/another-model' is not")

    assert warned() == 1
    write_job(folder, attributes=[EVERY[0], EVERY[1] | {"any_base": True}], output=str(folder / "again"))
    assert warned() == 0
    again = run_job(load_job(job_file))
    assert {row["row_id"] for row in rows(again.folder)} == {row["row_id"] for row in rows(before.folder)}


@pytest.mark.parametrize("damage", ["cut", "half", "no r", "list", "nan", "variant"])
@pytest.mark.parametrize("command", ["check", "run"])
def test_a_damaged_adapter_is_one_line_that_names_it(
    job_file: Path, damage: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = job_file.parent / "J"
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    match damage:
        case "cut":
            weights.write_bytes(weights.read_bytes()[:-10])
        case "half":
            weights.write_bytes(weights.read_bytes().replace(b"q_proj.lora_A", b"q_proj.lora_X", 1))
        case "no r":
            config.write_text(json.dumps({k: v for k, v in json.loads(config.read_text()).items() if k != "r"}))
        case "list":
            config.write_text("[]")
        case "nan":
            set_fields(folder, lora_alpha=float("nan"))
        case "variant":
            set_fields(folder, init_lora_weights="pissa")
    assert main([command, str(job_file)]) == 2
    (line,) = [each for each in capsys.readouterr().err.splitlines() if each.strip()]
    assert f"attributes[1].adapter: adapter {folder}: " in line and "Traceback" not in line
    assert not (job_file.parent / "out").exists()
