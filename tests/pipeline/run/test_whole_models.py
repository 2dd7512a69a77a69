"""A whole model as an attribute of a job: a fine-tune of the reference, or an adapter merged into it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mpg import ModelBank, Request, decode
from pipeline.cli import main
from pipeline.job.load import load_job
from pipeline.plan.plan import Plan
from tests.fakes import tiny_adapter, tiny_llama
from tests.tiny_job import rows, write_job, write_prompts


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Attribute W is the base with adapter E merged into it."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tiny_llama(tmp_path / "base")
    tiny_adapter(base, tmp_path / "E", seed=1)
    with torch.no_grad():
        peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(tmp_path / "E"))
        peft.merge_and_unload().save_pretrained(tmp_path / "W")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "W")
    write_prompts(tmp_path, ("hello you", "what now?"))
    return write_job(
        tmp_path, attributes=[{"name": name, "adapter": name} for name in "EW"], personas={"kind": "one-hot"},
        judges=[], decoder={"name": "scr-exact", "max_new_tokens": 8, "chunk_len": 4},
    )  # fmt: skip


def test_a_merged_model_writes_what_its_adapter_does(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(job)]) == 0, capsys.readouterr()
    assert main(["run", str(job)]) == 0, capsys.readouterr()
    assert len(rows(job.parent / "out")) == 4
    bank = ModelBank.load(job.parent / "base", {name: job.parent / name for name in "EW"})
    cell = next(iter(Plan.of(load_job(job)).cells()))
    prompt = bank.tokenizer.apply_chat_template(cell.chat(), return_dict=False)
    one, other = decode(bank, [Request(prompt, {name: 1.0}, seed=7) for name in "EW"], cell.decoder)
    assert one.token_ids == other.token_ids
    assert one.log_ratios["E"] == pytest.approx(other.log_ratios["W"], abs=1e-3)


def test_a_soup_of_it_is_refused_in_one_line(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(job), "--set", "decoder={name: soup}"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "attributes[1].adapter: 'W' is a whole model, and decoder 'soup'" in said[0]


def test_rows_that_are_too_long_for_it_are_known_before_it_is_loaded(
    job: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have fewer positions, or fewer tokens, than the reference."""
    config = job.parent / "W" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"max_position_embeddings": 12}))
    assert main(["check", str(job)]) == 2
    assert "too_long" in capsys.readouterr().err
