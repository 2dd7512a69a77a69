"""The table of peers: every row is there, with its figures or with why it has none; vLLM is asked for what it says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import peers
from benchmarks.peers_process import Missing, environment

ROWS = [
    peers.GENERATE,
    peers.LOOKUP,
    peers.EARLY_EXIT,
    peers.NAIVE_MOD,
    peers.RELEASED_MOD,
    peers.REFERENCE,
    peers.SUM,
    peers.PRODUCT,
]
VLLM = [peers.VLLM_BARE, peers.VLLM_ADAPTERS, peers.VLLM_SUM]

# vLLM takes gigabytes. This stand-in has of it what the script calls; `KNOB` says what goes wrong.
STAND_IN = """
import json, os
__version__ = "0.0"
KNOB, CALLS = {knob!r}, {calls!r}
class SamplingParams:
    def __init__(self, **settings):
        self.__dict__.update(settings)
class Output:
    def __init__(self, token_ids):
        self.token_ids, self.outputs = token_ids, [self]
class LLM:
    def __init__(self, model, **settings):
        print("vLLM talks on standard output")
        self.lora = settings.get("enable_lora", False)
        if KNOB == "no adapters" and self.lora:
            raise ValueError("rank 3 is too low\\n for this")
    def reset_prefix_cache(self):
        pass
    def generate(self, prompts, sampling, use_tqdm, lora_request):
        if KNOB == "dies" and self.lora:
            os._exit(3)
        lora = lora_request and [each.path for each in lora_request]
        with open(CALLS, "a") as calls:
            lengths = [len(each["prompt_token_ids"]) for each in prompts]
            calls.write(json.dumps([self.lora, lengths, sampling.max_tokens, sampling.ignore_eos, lora]) + "\\n")
        return [Output([1] * (sampling.max_tokens - (KNOB == "too few"))) for _ in prompts]
"""
LORA = """
class LoRARequest:
    def __init__(self, name, number, path):
        self.path = path
"""


def stand_in(folder: Path, knob: str = "") -> tuple[Path, Path]:
    """An environment that says it has vLLM in it; and the file that its calls are written to."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "vllm" / "lora").mkdir(parents=True)
    calls = folder / "calls.jsonl"
    (site / "vllm" / "__init__.py").write_text(STAND_IN.format(knob=knob, calls=str(calls)), "utf-8")
    (site / "vllm" / "lora" / "__init__.py").touch()
    (site / "vllm" / "lora" / "request.py").write_text(LORA, "utf-8")
    (site / "torch.pth").write_text(str(Path(torch.__file__).parents[1]), "utf-8")
    (folder / "installed.txt").write_text("a stand-in\n", "utf-8")
    return folder, calls


@pytest.fixture
def page(llama: Path, adapters: dict[str, Path]):
    folders = [str(adapters["x"]), str(adapters["y"])]

    def page(*more: str) -> str:
        few = ["--turns", "1", "--batch", "1", "2", "--model", str(llama), "--adapter", *folders, "--adapters", "3"]
        return peers.main([*few, *more])

    return page


def cells(page: str, row: str) -> list[str]:
    (line,) = [line for line in page.splitlines() if line.startswith(f"| {row} |")]
    return [cell.strip() for cell in line.removeprefix(f"| {row} |").strip("|").split("|")]


def measured(cell: str) -> bool:
    return re.fullmatch(r"\d+\.\d \(\d+\.\d\d\)", cell) is not None


def reasons(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("- Not measured: ")]


def test_every_row_has_its_figures_or_its_reason(page) -> None:
    said = page("--tokens", "2", "--without-vllm")
    one_row_at_a_time = {peers.LOOKUP, peers.EARLY_EXIT}
    for row in ROWS:
        assert [measured(cell) for cell in cells(said, row)] == [True, row not in one_row_at_a_time], said
    assert cells(said, peers.GENERATE)[0].endswith("(1.00)") and cells(said, peers.RELEASED_MOD)[0].endswith("(0.25)")
    for row in VLLM:
        assert cells(said, row) == ["-", "-"]
        assert f"- Not measured: {row}, batch 1, 2: left out (--without-vllm)" in reasons(said)
    for row in one_row_at_a_time:
        (why,) = [line for line in reasons(said) if row in line]
        assert f"{row}, batch 2: ValueError: assisted generate is only supported for batch_size = 1" in why
    assert len(reasons(said)) == 5


def test_vllm_is_asked_for_the_same_texts(page, adapters: dict[str, Path], tmp_path: Path) -> None:
    venv, calls = stand_in(tmp_path / "venv")
    said = page("--tokens", "10", "--venv", str(venv), "--vllm", "a stand-in", "--batch", "2")
    assert [measured(cell) for row in VLLM for cell in cells(said, row)] == [True] * 3
    assert "vLLM 0.0 on" in said
    found = [json.loads(line) for line in calls.read_text("utf-8").splitlines()]
    assert found[:4] == found[4:], "a warm-up and a turn are alike"
    (bare, one, first, then), x, y = found[:4], str(adapters["x"]), str(adapters["y"])
    assert bare == [False, bare[1], 10, True, None] and len(bare[1]) == 2
    assert one == [True, bare[1], 10, True, [x, y]]
    assert first[:4] == [True, bare[1], 8, True] and then[:4] == [True, [n + 8 for n in bare[1]], 2, True]
    assert {*first[4], *then[4]} <= {x, y} and len(first[4]) == 2


def test_an_adapter_that_begins_at_the_answer_is_always_on_in_vllm(adapters: dict[str, Path], tmp_path: Path) -> None:
    """vLLM refuses aLoRA; all else of the copy is the adapter's, which stays as it is."""
    plain, later = adapters["x"], tmp_path / "later"
    assert peers.always_on(plain, tmp_path / "none") == plain and not (tmp_path / "none").exists()
    shutil.copytree(plain, later)
    config = json.loads((later / "adapter_config.json").read_text("utf-8")) | {"alora_invocation_tokens": [1, 2]}
    (later / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    copy = peers.always_on(later, tmp_path / "copy")
    assert json.loads((copy / "adapter_config.json").read_text("utf-8")) == config | {"alora_invocation_tokens": None}
    weights = "adapter_model.safetensors"
    assert (copy / weights).read_bytes() == (plain / weights).read_bytes()
    assert json.loads((later / "adapter_config.json").read_text("utf-8")) == config


@pytest.mark.parametrize(
    ("knob", "lost", "why"),
    [
        ("no adapters", VLLM[1:], "ValueError: rank 3 is too low for this"),
        ("dies", VLLM[1:], "its process ended: exit status 3"),
        ("too few", VLLM, "new tokens where"),
    ],
)
def test_what_fails_in_vllm_is_named(page, tmp_path: Path, knob: str, lost: list[str], why: str) -> None:
    venv, _ = stand_in(tmp_path / "venv", knob)
    said = page("--tokens", "2", "--venv", str(venv), "--vllm", "a stand-in", "--batch", "2")
    for row in VLLM:
        assert [measured(cell) for cell in cells(said, row)] == [row not in lost], said
        assert [why in line for line in reasons(said) if row in line] == [True] * (row in lost), said
    assert all(measured(cell) for row in (peers.GENERATE, peers.SUM) for cell in cells(said, row))


def test_an_environment_that_cannot_be_made_is_one_line(page, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    said = page("--tokens", "2", "--venv", str(venv), "--vllm", "./no-such-folder", "--batch", "1")
    for row in VLLM:
        (why,) = [line for line in reasons(said) if row in line]
        assert why.startswith(f"- Not measured: {row}, batch 1: pip install ./no-such-folder: ERROR: ")
    with pytest.raises(Missing, match="pip install"):  # nothing is believed to be installed the next time
        environment(venv, "./no-such-folder")
    (tmp_path / "file").touch()
    with pytest.raises(Missing, match="no environment in"):
        environment(tmp_path / "file", "a stand-in")


@pytest.mark.parametrize("wrong", [["--turns", "0"], ["--tokens", "0"], ["--batch", "0"], ["--batch", "100000"]])
def test_what_cannot_be_measured_is_refused_at_once(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        peers.main(wrong)
    assert f"error: {' '.join(wrong)}: " in capsys.readouterr().err
