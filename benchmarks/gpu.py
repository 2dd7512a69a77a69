"""Laws and speed on a GPU, under a time limit: ``python -m benchmarks.gpu --minutes 8 --out results.jsonl``.

Needs no network and no files: the project, torch, transformers and pytest. First the laws on the device
(:mod:`benchmarks.device_laws`), float32 and bfloat16, TF32 off. Then Llamas of the shapes of Llama-3.1-8B and
Llama-3.2-1B with random weights in bfloat16 and rank-16 adapters on all linear layers, calibrated to lifelike laws
(:mod:`benchmarks.random_llama`): ``generate`` of the bare model, transformers' continuous batching and this project's
decoders side by side. Prompts are random tokens, all of one length, no two alike, and no text ends early.

Each result is printed, and written as a line of JSON, as soon as it is there. Each case is a short warm-up and one
measured run, so small differences mean nothing. What there is no time for is named.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

import torch

from benchmarks.device_clock import Clock, Log, OutOfTime, describe
from benchmarks.device_laws import FEW, findings
from benchmarks.device_speed import Speed


def main() -> None:
    """Measure and print; the exit status is 1 if a law does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything, imports aside")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, help="file of JSON lines")
    parser.add_argument("--small", action="store_true", help="small models, few cases: tries the script itself")
    parser.add_argument("--top-third", action="store_true", help="adapters of the upper third of the layers: a trunk")
    parser.add_argument("--only", choices=("laws", "speed"))
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    log, clock = Log(options.out), Clock(options.minutes)
    import transformers

    where = torch.cuda.get_device_name() if options.device == "cuda" else platform.processor() or platform.machine()
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}, Python {platform.python_version()}"
    log(f"{date.today()}, {where}, {versions}, TF32 off", kind="machine", where=where, versions=versions)
    held = True
    if options.only != "speed":
        held = laws(options, log, clock)
    if options.only != "laws":
        Speed(options.device, log, clock, small=options.small, top_third=options.top_third).run()
    log(f"{60 * options.minutes - clock.left:.0f} s in all", kind="end", seconds=60 * options.minutes - clock.left)
    sys.exit(0 if held else 1)


def laws(options: argparse.Namespace, log: Log, clock: Clock) -> bool:
    """Print each law; whether all hold."""
    held = True
    few = {"trees": FEW, "n_requests": 5} if options.small else {}
    print(f"{'law':8}{'format':10}{'case':44}{'found':>12}{'limit':>9}", flush=True)
    for dtype in (torch.float32, torch.bfloat16):
        began = time.monotonic()
        try:
            with clock.limit(600.0 if options.small else 75.0):
                for each in findings(options.device, dtype, **few):
                    held &= each.holds
                    limit = "" if each.limit is None else f"{each.limit:9.1g}"
                    row = f"{each.kind:8}{each.dtype:10}{each.case:44}{each.value:12.3g}{limit:>9}"
                    log(row + ("" if each.holds else "  BROKEN"), **asdict(each) | {"kind": "law", "law": each.kind})
        except (Exception, OutOfTime) as error:  # the rest is worth having all the same
            held = False
            log(f"laws in {dtype}: stopped by {describe(error)}", kind="law-error", error=describe(error))
        took = time.monotonic() - began
        log(f"laws in {dtype}: {took:.0f} s", kind="law-time", seconds=took)
    return held


if __name__ == "__main__":
    main()
