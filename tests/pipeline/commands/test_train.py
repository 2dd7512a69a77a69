"""``mpg train`` from the command line, on a tiny random Llama: tables, made pairs, and each mistake's line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mpg import ModelBank
from personas.examples import load_pairs
from pipeline.cli import main
from tests.fakes import tiny_adapter, tiny_llama
from tests.templates import templated_llama

RECIPE = ["--steps", "4", "--batch-size", "4", "--rank", "2", "--learning-rate", "0.01", "--no-judge"]


MODPO = ["{desk}/pairs.jsonl", "--objective", "modpo", "--other"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base, a table of pairs and some prompts."""
    folder = tmp_path_factory.mktemp("desk")
    tiny_llama(folder / "base")
    words = ["alpha", "beta", "gamma", "delta", "eps", "zeta", "eta", "theta", "iota", "kappa", "mu", "nu", "xi", "pi"]
    write(folder / "pairs.jsonl", [{"prompt": f"what {w}?", "chosen": "yes " + w, "rejected": "no"} for w in words])
    write(folder / "prompts.jsonl", [{"prompt": f"tell me of {w}"} for w in words])
    return folder


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train(desk: Path, output: Path, *arguments: str) -> int:
    model = ["--model", str(desk / "base")]
    return main(["train", "--name", "yes", "--output", str(output), *model, *RECIPE, *arguments])


def test_a_table_becomes_an_adapter(desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "yes"
    assert train(desk, output, str(desk / "pairs.jsonl"), "--description", "says yes") == 0
    card = json.loads((output / "card.json").read_text())
    assert card["description"] == "says yes" and card["recipe"]["steps"] == 4
    assert card["data"]["table"] == "pairs.jsonl" and len(card["data"]["sha256"]) == 64
    assert card["recipe"]["train_pairs"] + card["held_out"]["n_pairs"] == 14  # split by prompt, none lost
    ModelBank.load(str(desk / "base"), {"yes": output})
    printed = capsys.readouterr().out
    assert "reward accuracy" in printed and f"adapter: {output}}}" in printed
    assert train(desk, output, str(desk / "pairs.jsonl")) == 2  # what is written is never lost
    assert "is there already; name another folder, or remove it" in capsys.readouterr().err


def test_weights_go_in_and_one_model_comes_out(desk: Path, tmp_path: Path) -> None:
    """MODPO towards saying yes and towards another adapter's liking, and that a killed one knows its weights."""
    other = tiny_adapter(desk / "base", tmp_path / "other", seed=5)
    output = tmp_path / "both"
    arguments = [str(desk / "pairs.jsonl"), "--objective", "modpo", "--other", f"x={other}:0.4"]
    assert train(desk, output, *arguments) == 0
    recipe = json.loads((output / "card.json").read_text())["recipe"]
    assert (recipe["objective"], recipe["weight"], recipe["others"]) == ("modpo", 0.6, {"x": 0.4})
    assert recipe["beta"] == 0.05  # as given, not as divided by the weight
    ModelBank.load(str(desk / "base"), {"both": output})


@pytest.mark.long
def test_several_processes_train_one_adapter(desk: Path, tmp_path: Path) -> None:
    output = tmp_path / "yes"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    launch += ["-m", "pipeline.cli"]
    command = ["train", str(desk / "pairs.jsonl"), "--name", "yes", "--output", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, *command, "--model", str(desk / "base"), *RECIPE],
        capture_output=True, text=True, env=environment, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("written:") == 1
    assert json.loads((output / "card.json").read_text())["recipe"]["processes"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["yes"]
    ModelBank.load(str(desk / "base"), {"yes": output})


def test_two_descriptions_become_an_adapter(desk: Path, tmp_path: Path) -> None:
    output = tmp_path / "captain"
    described = ["--attribute", "speaks like a captain", "--opposite", "speaks plainly", "--samples", "2"]
    assert train(desk, output, "--from-prompts", str(desk / "prompts.jsonl"), *described) == 0
    pairs = load_pairs(output / "pairs.jsonl")
    assert 20 <= len(pairs) <= 28
    assert all(message.role == "user" for pair in pairs for message in pair.messages)  # not the instruction
    data = json.loads((output / "card.json").read_text())["data"]
    assert data["attribute"] == "speaks like a captain" and data["made_from"] == "prompts.jsonl"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["captain"]  # no scratch is left


@pytest.mark.long
def test_a_killed_training_goes_on_to_the_same_weights(
    desk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from safetensors.torch import load_file

    long = [str(desk / "pairs.jsonl"), "--steps", "240"]
    assert train(desk, tmp_path / "whole", *long) == 0
    output, scratch = tmp_path / "yes", tmp_path / ".yes.training"
    command = [sys.executable, "-m", "pipeline.cli", "train", *long, "--name", "yes", "--output", str(output)]
    killed = subprocess.Popen([*command, "--model", str(desk / "base"), *RECIPE[2:]], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(scratch.glob("trainer/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        assert killed.poll() is None
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert scratch.is_dir() and not output.exists()
    assert train(desk, output, str(desk / "pairs.jsonl"), "--steps", "239") == 2
    assert "an interrupted training with other pairs, prompts or recipe; remove it" in capsys.readouterr().err
    with caplog.at_level("INFO", logger="mpg.train.begin"):
        assert train(desk, output, *long) == 0
    assert "going on from" in caplog.text and not scratch.exists()
    whole, resumed = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "yes"))
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "TABLE, --from-prompts: neither is given; give one of the two"),
        (["{desk}/pairs.jsonl", "--from-prompts", "x"], "TABLE, --from-prompts: both are given"),
        (["--from-prompts", "x", "--opposite", "b"], "--attribute: needed with --from-prompts"),
        (["--from-prompts", "x", "--attribute", "b"], "--opposite: needed with --from-prompts"),
        (
            ["--from-prompts", "no.jsonl", "--attribute", "a", "--opposite", "b"],
            "--from-prompts no.jsonl: no such file",
        ),
        (["no.jsonl"], "no.jsonl: no such file"),
        (["{desk}/pairs.jsonl", "--column", "q"], "--column q: write NAME=COLUMN, with a name of prompt, chosen, rej"),
        (["{desk}/pairs.jsonl", "--column", "prompt=q"], "has no column 'q' (columns: prompt, chosen, rejected)"),
        (["{desk}/prompts.jsonl"], "has no column 'chosen' (columns: prompt)"),
        (["{desk}/pairs.jsonl", "--steps", "0"], "--steps: 0 must be above 0"),
        (["{desk}/pairs.jsonl", "--learning-rate", "-1"], "--learning-rate: -1.0 must be above 0"),
        (["{desk}/pairs.jsonl", "--max-pair-tokens", "0"], "--max-pair-tokens: 0 must be above 0"),
        (["{desk}/pairs.jsonl", "--max-pair-tokens", "2"], "no pair to train on has at most 2 tokens"),
        (["{desk}/pairs.jsonl", "--model", "embedded/wrong"], "model embedded/wrong: can't be loaded (unknown embed"),
        (["{desk}/pairs.jsonl", "--model", "{desk}"], "can't be loaded ("),
        (
            ["--from-prompts", "{desk}/prompts.jsonl", "--attribute", "a", "--opposite", "b", "--model", "{desk}"],
            "can't be loaded (",
        ),
        (["{desk}/pairs.jsonl", "--objective", "modpo"], "--other: none given; name the other attributes"),
        (["{desk}/pairs.jsonl", "--other", "E:0.5"], "--other: some given; give --objective modpo, or leave it out"),
        ([*MODPO, "E"], "--other E: no weight; write NAME:WEIGHT or NAME=FOLDER:WEIGHT"),
        ([*MODPO, "E:x"], "--other E:x: no weight"),
        ([*MODPO, "Q:0.5"], "--other Q: not shipped (shipped: E, F,"),
        ([*MODPO, "Q={desk}:0.5"], "is no folder with adapter_config.json; give one"),
        ([*MODPO, "E:0.5", "E:0.1"], "--other E: 'E' is given twice"),
        ([*MODPO, "E:0.5", "J:0.5"], "--other: E, J: weights sum to 1; they must leave the pairs' own attribute some"),
        ([*MODPO, "E:-0.5"], "--other: E: weight -0.5 must be above 0"),
        ([*MODPO, "E:0.5"], "yes: adapter "),  # for another base than this one
        (["{desk}/pairs.jsonl", "--samples", "0"], "--samples: 0 must be at least 1"),
    ],
)
def test_each_mistake_has_its_line(
    desk: Path, tmp_path: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.replace("{desk}", str(desk)) for argument in arguments]
    defaults = ["train", "--name", "yes", "--output", str(tmp_path / "yes"), "--model", str(desk / "base")]
    assert main([*defaults, *given]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mpg: ")]
    assert len(lines) == 1 and says in lines[0]
    assert not (tmp_path / "yes").exists()


# --------------------------------------------------------------------------- other models' chat templates


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose template refuses a system message, and pairs and prompts for it."""
    folder = tmp_path_factory.mktemp("gemma")
    templated_llama(folder / "base", "gemma")
    told = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what?"}]
    pairs = [{"prompt": f"what {i}?", "chosen": "yes", "rejected": "no"} for i in range(12)]
    write(folder / "told.jsonl", [*pairs, {"prompt": told, "chosen": "yes", "rejected": "no"}])
    write(folder / "prompts.jsonl", [{"prompt": f"tell me of {i}"} for i in range(12)])
    return folder


@pytest.mark.parametrize("made", [False, True], ids=["a table", "made pairs"])
def test_a_template_without_a_system_role_is_one_line_and_folding_helps(
    made: bool, gemma: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = [str(gemma / "told.jsonl")]
    if made:
        described = ["--attribute", "is a captain", "--opposite", "is not", "--samples", "1"]
        source = ["--from-prompts", str(gemma / "prompts.jsonl"), *described]
    with monkeypatch.context() as none_loaded:
        none_loaded.setattr("transformers.AutoModelForCausalLM.from_pretrained", None)
        assert train(gemma, tmp_path / "yes", *source) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mpg: ")]
    assert len(lines) == 1 and "a chat with a system message ('" in lines[0] and "--system-role fold" in lines[0]
    assert train(gemma, tmp_path / "yes", *source, "--system-role", "fold", "--date", "2025-03-09") == 0
    card = json.loads((tmp_path / "yes" / "card.json").read_text())
    assert card["template"] == {"date": "2025-03-09", "system_role": "fold"}


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--template-argument", "enable_thinking"], "--template-argument enable_thinking: write NAME=VALUE"),
        (["--template-argument", "a=b"], "--template-argument a=b: 'b' is no JSON"),
        (["--template-argument", "a=NaN"], "--template-argument a=NaN: 'NaN' is no JSON"),
        (["--template-argument", "a=1", "--template-argument", "a=2"], "--template-argument a=2: a is given twice"),
        (["--template-argument", "a=1"], "--template-argument a: the chat template never reads it"),
        (["--date", "today"], "--date: 'today' is no day"),
        (["--date", "20250309"], "--date: '20250309' is no day"),
    ],
)
@pytest.mark.parametrize("command", ["train", "infer-weights"])
def test_options_of_the_template_that_do_nothing_are_refused(
    command: str, option: list[str], says: str, gemma: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [command, str(gemma / "told.jsonl"), "--model", str(gemma / "base"), "--system-role", "fold", *option]
    arguments += ["--output", str(tmp_path / "x.yaml")]
    arguments += ["--name", "x"] if command == "train" else ["--attributes", "E"]
    assert main(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mpg: ")]
    assert len(lines) == 1 and says in lines[0]
