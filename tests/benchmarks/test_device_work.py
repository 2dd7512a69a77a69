"""What decoders ask of a device, counted on a pretended one; and that they write there what they write on a CPU.

Each in a process of its own, which has a device from then on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Operators that are no views, a token-step at 32 layers: what issue 18 asks for. Measured: a part outside the layers
# and one a layer (benchmarks/README.md); 5 % more of them fail here, long before what was asked for is exceeded.
WANTED = {"reference": 700, "mod": 900, "scr-exact, product, top-p .95": 1100, "scr-exact, sum, top-p .95": 1100}
MEASURED = {
    "reference": (52, 16),
    "mod": (64, 24),
    "scr-exact, sum": (111, 24),
    "scr-exact, sum, top-p .95": (133, 24),
    "scr-exact, product, top-p .95": (122, 24),
    "routing": (151, 29.5),
}


def counts(layers: int, *decoders: str) -> dict[str, dict[str, Any]]:
    few = ["--layers", str(layers), "--vocab", "2048", "--batch", "8", "--json"]
    named = [argument for decoder in decoders for argument in ("--decoder", decoder)]
    command = [sys.executable, "-m", "benchmarks.device_work", *few, *named]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.long
def test_no_decoder_waits_more_than_twice_or_has_more_operators_than_were_counted() -> None:
    one, two = counts(1, *MEASURED), counts(2, *MEASURED)
    for name, (around, a_layer) in MEASURED.items():
        few, more = one[name], two[name]
        assert few["waits"] + few["uploads"] <= 2, (name, few["wait_places"], few["upload_places"])
        step = more["operators"] - few["operators"]
        assert step <= 1.05 * a_layer, (name, step, more["by_place"])
        assert few["operators"] - step <= 1.05 * around, (name, few["operators"] - step, few["by_place"])
        assert around + 32 * a_layer <= WANTED.get(name, 1100), name
        assert len(few["widths"]) == 1 and not few["widths"][0] % 64, (name, few["widths"])


def test_a_wait_and_an_operator_that_come_back_are_counted(tmp_path: Path) -> None:
    """A mutant: a round that asks the device for a value, and for a copy, at each step."""
    script = tmp_path / "mutant.py"
    script.write_text(
        "import sys; sys.argv = ['device_work', '--layers', '1', '--vocab', '2048', '--batch', '2', '--json',\n"
        "                        '--decoder', 'reference']\n"
        "from benchmarks import device_work\n"
        "from mpg.decoding.rounds.direct import DirectRound\n"
        "right = DirectRound.step\n"
        "def asking(self, session, rows):\n"
        "    int(rows.n_new.max()); rows.tokens.clone()\n"
        "    right(self, session, rows)\n"
        "DirectRound.step = asking\n"
        "device_work.main()\n",
        "utf-8",
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, script], cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["reference"]
    assert found["waits"] == 2  # and the one that stays
    assert {"max", "_local_scalar_dense", "clone"} <= found["by_name"].keys()


@pytest.mark.long
def test_texts_and_books_on_a_device_are_those_on_a_cpu_and_a_broken_model_is_named() -> None:
    """In one test, so that no two workers make the trial."""
    command = [sys.executable, "-m", "tests.benchmarks.device_trial"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trial = json.loads(done.stdout.splitlines()[-1])
    assert trial["apart"] == []
    assert trial["broken"].startswith("request 1: attribute 'a0': its logits are not numbers")
    assert trial["broken"].endswith("After 3 passes.")
