"""Peak memory of decoding with N adapters against the reference alone: ``python benchmarks/memory.py``.

Both hold the same number of lanes, hence the same KV cache: N adapters x R rows against (N + 1) R rows of
the bare model. Each is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.dtype import pick_dtype
from mpg.models.embedded import SMOLLM2
from pipeline.job.model import shipped_adapters


def main() -> None:
    """Run both children and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=8, help="how many; E, J, N, T in turn")
    parser.add_argument("--rows", type=int, default=4, help="decoded together with adapters")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(peak_mib(options.adapters, options.rows, options.tokens)))
        return
    with_adapters = _measured(options.adapters, options.rows, options.tokens)
    alone = _measured(0, options.rows * (options.adapters + 1), options.tokens)
    print(f"scr-exact, {options.adapters} adapters x {options.rows} rows: {with_adapters:.0f} MiB")
    print(
        f"reference, {options.rows * (options.adapters + 1)} rows: {alone:.0f} MiB; ratio {with_adapters / alone:.2f}"
    )


def _measured(adapters: int, rows: int, tokens: int) -> float:
    size = ["--adapters", str(adapters), "--rows", str(rows), "--tokens", str(tokens)]
    done = subprocess.run([sys.executable, __file__, "--child", *size], stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def peak_mib(n_adapters: int, n_rows: int, n_tokens: int) -> float:
    """Largest resident set of this process (on CUDA: allocated on the device), in MiB, after decoding."""
    shipped = [(name, shipped_adapters()[name]) for name in "EJNT"]
    adapters: dict[str, str | Path] = {f"a{i}": shipped[i % len(shipped)][1] for i in range(n_adapters)}
    cuda = torch.cuda.is_available()
    dtype = getattr(torch, pick_dtype("auto"))
    bank = ModelBank.load(SMOLLM2, adapters, dtype=dtype, device="cuda" if cuda else "cpu")
    bank.eos_ids = frozenset()  # all rows run to the full length
    name = "scr-exact" if adapters else "reference"
    settings = DecoderSettings(name=name, max_new_tokens=n_tokens)
    weights = dict.fromkeys(adapters, 1 / len(adapters)) if adapters else {}
    requests = [Request(list(range(100 + i, 148 + i)), weights, seed=i) for i in range(n_rows)]
    for _ in decode(bank, requests, settings, batch_size=n_rows):
        pass
    if cuda:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
