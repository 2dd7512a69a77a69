"""What docs/method.md says is what its command prints; the measured texts' yardstick is the untold models' own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from benchmarks import method_measured
from benchmarks.method_measured import ARMS, written
from benchmarks.method_toys import report
from mpg import ModelBank
from mpg.models.chat import encode_chat
from mpg.score.texts import component_log_probs

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "method.md").read_text("utf-8")
RESULTS = (ROOT / "benchmarks" / "results" / "2026-11-27-cpu-method.txt").read_text("utf-8").splitlines()


def blocks(text: str) -> list[str]:
    """Lines of what a document shows as printed."""
    return [line for block in re.findall(r"```text\n(.*?)\n```", text, flags=re.S) for line in block.splitlines()]


def test_the_documents_numbers_are_printed_by_its_command() -> None:
    enumerated, measured = map(blocks, DOCUMENT.split("\n## Measured\n"))
    printed = [line for line in report().splitlines() if line]
    assert sorted(enumerated) == sorted(printed)
    assert set(printed) <= set(RESULTS) and set(measured) <= set(RESULTS) and len(measured) > len(ARMS)


def test_numbers_in_the_documents_sentences_stand_in_its_tables() -> None:
    """Numbers with two decimals and more; a share of .192 is 0.192 of a table."""
    said = re.sub(r"```text\n.*?\n```", "", DOCUMENT, flags=re.S)
    numbers = {f"0{n}" if n.startswith(".") else n for n in re.findall(r"(?<![\d.])\d*\.\d{2,}", said)} - {"2511.01891"}
    assert numbers <= set(re.findall(r"\d*\.\d+", "\n".join(blocks(DOCUMENT))))


@pytest.mark.parametrize("arm", ["reference", "prompting", "sum, horizon 4", "told + product, strength 2"])
def test_texts_are_measured_by_the_untold_models(arm: str, llama: Path, adapters: dict[str, Path]) -> None:
    bank = ModelBank.load(llama, {"E": adapters["x"], "J": adapters["y"]})
    settings = method_measured.replace(ARMS[arm], max_new_tokens=6)
    (text,) = written(bank, ["Who?"], settings, told=arm in ("prompting", "told + product, strength 2"))
    untold = encode_chat(bank.tokenizer, [{"role": "user", "content": "Who?"}])
    ((_, log_probs),) = component_log_probs(bank, [(untold, text.completion.token_ids)], temperature=0.8)
    reference, e, j = log_probs.sum(0).tolist()
    assert text.log_r == pytest.approx((e - reference, j - reference), abs=1e-3)
    assert text.log_pi_0 == pytest.approx(reference, abs=1e-3)


@pytest.mark.long
def test_the_measured_part_runs(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        method_measured.measure(n_texts=2, n_tokens=8)
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    assert all(re.search(rf"^{re.escape(arm)} ", said, flags=re.M) for arm in ARMS) and "CPU minutes" in said
