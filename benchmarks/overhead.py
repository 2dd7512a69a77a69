"""What Beam, shards and bookkeeping cost: a whole job's wall time against the bare engine's, for the same cells.

    python -m benchmarks.overhead                       # workflows/demo.yaml
    python -m benchmarks.overhead --set prompts.limit=36 --turns 3

Both are processes of their own, from their start to their end, turn by turn: one loads the models and hands all cells
to ``mpg.decode`` at once, the other is ``mpg run`` without a judge, from job file to data set.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from pipeline.job.load import load_job

DEMO = Path(__file__).parent.parent / "workflows" / "demo.yaml"


def bare(job_file: str, overrides: list[str]) -> None:
    """Decode a job's cells with the engine alone."""
    from pipeline.quiet import quiet_libraries

    quiet_libraries()
    from mpg.decoding.resilient import BatchSize, decode_each
    from pipeline.decode.bank import ProcessBank
    from pipeline.decode.requests import request_of
    from pipeline.plan.computed_with import cores
    from pipeline.plan.plan import Plan

    plan = Plan.of(load_job(job_file, overrides))
    cells = plan.cells()
    bank = ProcessBank(plan.sources, threads=cores()).bank
    n_tokens = 0
    for settings in dict.fromkeys(repr(cell.decoder) for cell in cells):
        group = [cell for cell in cells if repr(cell.decoder) == settings]
        requests = [request_of(bank, cell) for cell in group]
        for _, completion in decode_each(bank, requests, group[0].decoder, BatchSize(plan.job.batch_size)):
            n_tokens += len(completion.token_ids)
    print(f"{len(cells)} cells, {n_tokens} tokens")


def timed(command: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", nargs="?", default=str(DEMO))
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(options.job, options.set)
        return
    overrides = [word for each in options.set for word in ("--set", each)]
    times: dict[str, list[float]] = {"engine": [], "job": []}
    for turn in range(options.turns):
        seconds, said = timed([sys.executable, __file__, options.job, *overrides, "--bare"])
        times["engine"].append(seconds)
        with tempfile.TemporaryDirectory() as folder:
            output = ["--set", f"output={folder}/out", "--set", "judges=[]"]
            times["job"].append(
                timed([sys.executable, "-m", "pipeline.cli", "run", options.job, *overrides, *output])[0]
            )
        print(f"turn {turn + 1}: engine {seconds:.1f} s ({said.strip()}), job {times['job'][-1]:.1f} s", flush=True)
    ratios = [job / engine for job, engine in zip(times["job"], times["engine"], strict=True)]
    print(f"job / engine: {median(ratios):.3f} (median of {len(ratios)}; {', '.join(f'{r:.3f}' for r in ratios)})")


if __name__ == "__main__":
    main()
