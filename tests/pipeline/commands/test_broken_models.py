"""A model that nothing is known against until it is loaded: one line with its field, whatever the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from mpg import ModelBank
from mpg.models.errors import AdapterError
from pipeline.cli import main
from pipeline.commands.train import TrainInputError, _check_numbers
from pipeline.decode.bank import ProcessBank
from pipeline.job.load import load_job
from pipeline.plan.errors import RunError
from pipeline.plan.plan import Plan
from tests.fakes import tiny_adapter, tiny_llama
from tests.tiny_job import make_job


def no_numbers(model: Path) -> None:
    """One weight becomes NaN."""
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def cut_off(model: Path) -> None:
    """A download that broke off."""
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


@pytest.fixture(params=[no_numbers, cut_off])
def broken(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Callable[[Path], None]]:
    """A job over a model that can't be loaded."""
    job = make_job(tmp_path, judges=[])
    request.param(tmp_path / "base")
    return job, request.param


def line_of(captured: Any) -> str:
    lines = [line for line in captured.err.splitlines() if line.startswith("mpg: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err + captured.out
    return str(lines[0])


@pytest.mark.parametrize(
    "command",
    [
        ["run"],
        ["plan"],
        ["questionnaire"],
        pytest.param(["run", "--", "--direct_num_workers=2"], marks=pytest.mark.long),
    ],
    ids=" ".join,
)
def test_commands_with_a_job_name_its_field(
    broken: tuple[Path, Callable[[Path], None]], command: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    job, how = broken
    if "--" in command:
        command = [*command, "--direct_running_mode=multi_processing"]
    assert main([command[0], str(job), *command[1:]]) == 2
    line = line_of(capfd.readouterr())
    assert line.startswith(f"mpg: {job}: model.id: ") and str(job.parent / "base") in line
    assert ("not numbers" in line) == (how is no_numbers) and "goes on" not in line


@pytest.mark.parametrize("how", [no_numbers, cut_off])
@pytest.mark.parametrize("table", ["pairs", "prompts"])
def test_commands_without_one_name_their_option(
    tmp_path: Path, table: str, how: Callable[[Path], None], capfd: pytest.CaptureFixture[str]
) -> None:
    base = tiny_llama(tmp_path / "base")
    tiny_adapter(base, tmp_path / "x", seed=1)
    words = ["alpha", "beta", "gamma", "delta", "eps", "zeta", "eta", "theta", "iota", "kappa", "mu", "nu", "xi", "pi"]
    rows = [{"prompt": f"what {word}?", "chosen": "yes", "rejected": "no"} for word in words]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
    how(base)
    given = ["--model", str(base), "--output"]
    if table == "pairs":
        infer = ["infer-weights", str(tmp_path / "pairs.jsonl"), "--attributes", f"x={tmp_path / 'x'}"]
        assert main([*infer, *given, str(tmp_path / "ada.yaml")]) == 2
        assert line_of(capfd.readouterr()).startswith(f"mpg: --model {base}: ")
        source = [str(tmp_path / "pairs.jsonl")]
    else:
        source = ["--from-prompts", str(tmp_path / "prompts.jsonl"), "--attribute", "a", "--opposite", "b"]
    small = ["--steps", "2", "--batch-size", "2", "--rank", "2", "--no-judge"]
    assert main(["train", *source, "--name", "yes", *given, str(tmp_path / "yes"), *small]) == 2
    assert not (tmp_path / "yes").exists()
    assert line_of(capfd.readouterr()).removeprefix("mpg: ").removeprefix("--").startswith(f"model {base}: ")


def test_it_says_which_of_several_it_is(tmp_path: Path) -> None:
    """In the order of the job file, whatever order a data set was begun in."""
    whole = tiny_llama(tmp_path / "whole", seed=3)
    attributes = [{"name": "E", "adapter": "E"}, {"name": "J", "adapter": "J", "reference": "whole"}]
    job = load_job(make_job(tmp_path, attributes=attributes, judges=[]))
    for how, what in ((no_numbers, "its logits are not numbers"), (cut_off, "model.safetensors can't be read")):
        how(whole)
        with pytest.raises(RunError, match=rf"^attributes\[1\]\.reference: model .*whole: {what}"):
            ProcessBank(Plan.of(job, "float32", ("J", "E")).sources, threads=1)
    tiny_llama(whole, seed=3)

    def of_e(model: Any, adapters: dict[str, Any], references: dict[str, Any], **how: Any) -> ModelBank:
        if "E" in adapters:
            raise AdapterError("adapter E: damaged")
        return ModelBank.load(model, {}, **how)

    with pytest.raises(RunError, match=r"^attributes\[0\]\.adapter: adapter E: damaged$"):
        ProcessBank(Plan.of(job, "float32", ("J", "E")).sources, threads=1, load=of_e)


@pytest.mark.parametrize(
    ("measured", "says"),
    [
        ({"chosen_log_likelihood_reference": float("nan"), "kl_per_token": float("nan")}, "--model m: its log-likelih"),
        ({"chosen_log_likelihood_reference": -3.0, "kl_per_token": float("inf")}, "--learning-rate: after training kl"),
        ({"chosen_log_likelihood_reference": -3.0, "kl_per_token": 0.1, "n_pairs": 3}, None),
    ],
)
def test_no_adapter_is_written_whose_measurements_are_no_numbers(
    tmp_path: Path, measured: dict[str, float], says: str | None
) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"held_out": measured}))
    if says is None:
        _check_numbers(tmp_path, "m")
        return
    with pytest.raises(TrainInputError, match=rf"^{says}.*no adapter is written$"):
        _check_numbers(tmp_path, "m")
