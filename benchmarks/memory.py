"""Peak memory of decoding with N adapters against the reference alone: ``python -m benchmarks.memory``.

Both hold the same number of lanes, hence the same KV cache: N adapters x R rows against (N + 1) R rows of
the bare model. Besides, what decoding adds to the loaded models where little should be held: whole responses of 8 and
64 tokens (``best-of-n``, 16 rows), and rows of one attribute each under 16 adapters (32 rows). Each is measured in a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.chat import encode_chat
from mpg.models.dtype import pick_dtype
from mpg.models.embedded import SMOLLM2
from pipeline.job.model import shipped_adapters

_PROMPT = "days are left until the holidays begin. What would you do with them?"


@dataclass(frozen=True)
class Case:
    """What is decoded in a process of its own; ``one_each``: a row has one attribute, not all."""

    decoder: str
    adapters: int
    rows: int
    tokens: int
    one_each: bool = False


def main() -> None:
    """Run the children, print the ratio and what is added."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapters", type=int, default=8, help="how many; E, J, N, T in turn")
    parser.add_argument("--rows", type=int, default=4, help="decoded together with adapters")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(peak_mib(Case(**json.loads(options.child)))))
        return
    n_lanes = options.rows * (options.adapters + 1)
    with_adapters, _ = _measured(Case("scr-exact", options.adapters, options.rows, options.tokens))
    alone, _ = _measured(Case("reference", 0, n_lanes, options.tokens))
    print(f"scr-exact, {options.adapters} adapters x {options.rows} rows: {with_adapters:.0f} MiB")
    print(f"reference, {n_lanes} rows: {alone:.0f} MiB; ratio {with_adapters / alone:.2f}")
    whole = [_measured(Case("best-of-n", 2, 16, tokens))[1] for tokens in (8, 64)]
    print(f"best-of-n, 2 adapters x 16 rows: decoding adds {whole[0]:.0f} MiB at 8 tokens, {whole[1]:.0f} at 64")
    _, narrow = _measured(Case("scr-exact", 16, 32, options.tokens, one_each=True))
    print(f"scr-exact, 16 adapters, 32 rows of one attribute: decoding adds {narrow:.0f} MiB")


def _measured(case: Case) -> tuple[float, float]:
    child = [sys.executable, __file__, "--child", json.dumps(asdict(case))]
    done = subprocess.run(child, stdout=subprocess.PIPE, check=True)
    peak, added = json.loads(done.stdout.splitlines()[-1])
    return peak, added


def _peak(cuda: bool) -> float:
    if cuda:
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _now(cuda: bool) -> float:
    if cuda:
        return torch.cuda.memory_allocated() / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mib(case: Case) -> tuple[float, float]:
    """In MiB: largest resident set of this process (on CUDA: allocated on the device), and what decoding added to it.

    Loading may have held more than decoding does: then what was added is at most the number given.
    """
    shipped = [(name, shipped_adapters()[name]) for name in "EJNT"]
    adapters: dict[str, str | Path] = {f"a{i}": shipped[i % len(shipped)][1] for i in range(case.adapters)}
    cuda = torch.cuda.is_available()
    dtype = getattr(torch, pick_dtype("auto"))
    bank = ModelBank.load(SMOLLM2, adapters, dtype=dtype, device="cuda" if cuda else "cpu")
    bank.eos_ids = frozenset()  # all rows run to the full length
    settings = DecoderSettings(name=case.decoder, max_new_tokens=case.tokens, n_candidates=2)
    weights = dict.fromkeys(adapters, 1 / len(adapters)) if adapters else {}
    # Chats as a job's, since the adapters are on from where an answer begins; all of one length.
    chats = [[{"role": "user", "content": f"{10 + i} {_PROMPT}"}] for i in range(case.rows)]
    requests = [
        Request(encode_chat(bank.tokenizer, chat), {f"a{i % case.adapters}": 1.0} if case.one_each else weights, seed=i)
        for i, chat in enumerate(chats)
    ]
    before = _now(cuda)
    for _ in decode(bank, requests, settings, batch_size=case.rows):
        pass
    peak = max(_peak(cuda), before)  # the system's two counts of the same pages differ by a few
    return peak, peak - before


if __name__ == "__main__":
    main()
