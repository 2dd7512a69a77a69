"""The script for a GPU, on the CPU: it finds laws that hold and laws that don't, and keeps to its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.device_clock import Clock, OutOfTime
from benchmarks.device_laws import (
    FEW,
    PROMPT,
    TREES,
    WEIGHTS,
    findings,
    oracle_of,
    passes,
    small_models,
    tree_apart,
)
from benchmarks.random_llama import APART, adapter, bank_of, llama, scale_for, sharpen
from mpg import DecoderSettings, law
from mpg.models.cache import LaneCache

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_laws_hold_on_a_cpu(dtype: torch.dtype) -> None:
    found = list(findings("cpu", dtype, trees=FEW, n_requests=3))
    assert [each for each in found if not each.holds] == []
    assert {each.kind for each in found} >= {"pass", "tree", "alone", "books"}
    assert dtype != torch.float32 or "slow" in {each.kind for each in found}


def bank_and_oracle():
    model, loras = small_models("cpu", torch.float32, vocab_size=3)
    oracle = oracle_of(model, loras)
    return bank_of(model, loras, eos_ids=frozenset({0})), oracle


def test_a_law_that_is_not_the_targets_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, oracle = bank_and_oracle()
    case = TREES["sum, top-p, token by token"]
    assert tree_apart(bank, oracle, case) < 1e-5
    monkeypatch.setattr("mpg.laws.verify.residual", lambda target, draft: target)
    assert tree_apart(bank, oracle, case) > 1e-3


def test_a_cache_that_writes_one_place_too_far_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(value for _, value in passes("cpu", torch.float32)) < 1e-5
    right = LaneCache.aim

    def wrong(self, lanes, starts, n_tokens):
        mask = right(self, lanes, starts, n_tokens)
        self._positions = (self._positions + (n_tokens == 1)).clamp_max(self.capacity - 1)
        return mask

    monkeypatch.setattr(LaneCache, "aim", wrong)
    assert max(value for _, value in passes("cpu", torch.float32)) > 1e-3


def test_what_is_enumerated_are_laws_over_many_texts() -> None:
    _, oracle = bank_and_oracle()
    for name, case in TREES.items():
        changes = {"name": "scr-exact", "chunk_len": 4, "max_new_tokens": 3} | case
        weights = changes.pop("weights", WEIGHTS)
        changes.pop("draft_len", None)
        settings = DecoderSettings(**changes)
        texts = law(oracle, PROMPT, weights, settings)
        assert len(texts) == 1 if settings.greedy else len(texts) > 3, (name, texts)


def test_random_models_are_scaled_to_laws_like_those_of_trained_ones() -> None:
    model = llama("small", torch.float32, "cpu")
    assert sharpen(model) == pytest.approx(1.6, abs=0.05)
    assert sharpen(model) == pytest.approx(1.6, abs=0.05)
    scale, apart = scale_for(bank_of(model, [adapter(model, seed=0)]))
    assert apart == pytest.approx(APART, abs=0.01)
    model = llama("small", torch.float32, "cpu")
    sharpen(model)
    again, apart = scale_for(bank_of(model, [adapter(model, seed=0, scale=scale)]))
    assert again == pytest.approx(1.0, abs=0.05)


def test_a_case_that_takes_too_long_is_stopped() -> None:
    with pytest.raises(OutOfTime), Clock(1.0).limit(0.2):
        while True:
            pass


@pytest.mark.long
def test_the_script_prints_and_writes_what_it_finds_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    def run(minutes: str, *more: str) -> tuple[str, list[dict]]:
        out = tmp_path / f"{minutes}.jsonl"
        command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--small", "--minutes", minutes]
        done = subprocess.run([*command, "--out", out, *more], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout, [json.loads(line) for line in out.read_text("utf-8").splitlines()]

    printed, found = run("8", "--only", "speed")
    kinds = {each["kind"] for each in found}
    assert kinds == {"machine", "speed-header", "made", "speed", "kernels", "end"}, printed
    speeds = {(each["decoder"], each["batch"]): each for each in found if each["kind"] == "speed"}
    assert {("generate", 4), ("scr-exact", 1), ("reference", 4), ("continuous batching", 1)} <= speeds.keys()
    assert all(each["tokens"] == 8 * batch for (_, batch), each in speeds.items())
    assert 0 < speeds["scr-exact, product, top-p .95", 4]["accepted"] < 1
    printed, found = run("0.05", "--only", "speed")
    assert {"left-out", "machine", "end"} <= {each["kind"] for each in found} and "left out, no time" in printed
