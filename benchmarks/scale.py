"""Planning, shards and the finished data set at any number of rows, decoding replaced by rows of one fixed text.

    python -m benchmarks.scale                          # 10 thousand, 100 thousand and 1 million rows
    python -m benchmarks.scale --rows 10000 10000000
    python -m benchmarks.scale --accept                 # about as many candidates, of which half pass
    python -m benchmarks.scale --rows 1000000 --workers 1 2     # worker processes, which put the data set together, too

Each size is `mpg run` in a process of its own on the embedded model's tokenizer and two shipped adapters: 1,000 prompts
x 5 personas x as many samples as it takes, 1,000 rows a shard. Everything is the real thing but the texts: workers make
their cells of the plan, rows are written by the real stage, judged by the log-ratio judge, joined into a data set with
its card. Driver and worker are one process: its peak of memory holds both. Printed are the seconds until the graph is
submitted, in it, and after it, rows a second, the graph's bytes, and the peak beside that of the first line. With more
than one worker these are processes of their own, and the peak is the driver's.

With ``--accept`` there are two texts, by a row's seed: the shipped classifier scores them once, and lets one of them
pass. Five rows are wanted of each prompt and persona, which takes ten candidates at least, and there are so many
prompts that it takes the candidates asked for; "rows" are those that it took then, somewhat more, and the time in the
graph is that of all rounds, with what is looked at between them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import yaml

N_PROMPTS, N_PERSONAS, ROWS_PER_SHARD = 1_000, 5, 1_000
TEXT = "A text of sixty characters, as every other row here has one."
# The classifier gives the first 0.94 for E and 0.93 for J, the other 0.19 and 0.46.
TEXTS = (
    "We should organise a big party with all our friends and make a strict timetable!",
    "Perhaps. I would rather read by myself and wander without any plan.",
)
ACCEPT = {"min_score": 0.7, "rows_per_cell": 5, "max_candidates": 40}
A_CELL = 10  # candidates that those rows take at least, where half of them pass


def job_of(folder: Path, n_rows: int, *, accept: bool = False) -> Path:
    """A job of so many rows; or, of about so many candidates."""
    n_prompts = n_rows // (A_CELL * N_PERSONAS) if accept else N_PROMPTS
    lines = (json.dumps({"id": f"p{i}", "prompt": f"Tell me about the number {i}."}) for i in range(n_prompts))
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    job = {
        "name": "scale",
        "model": {"id": "embedded/smollm2-135m-instruct"},
        "attributes": [{"name": "E"}, {"name": "J"}],
        "personas": {"kind": "simplex", "steps": N_PERSONAS - 1},
        "prompts": {"file": "prompts.jsonl"},
        "decoder": {"name": "scr-exact"},
        "samples_per_cell": max(1, n_rows // (N_PROMPTS * N_PERSONAS)),
        "rows_per_shard": ROWS_PER_SHARD,
        "judges": [{"kind": "log-ratio"}],
        "output": "out",
    }
    if accept:
        job |= {"accept": ACCEPT, "samples_per_cell": 1, "judges": [{"kind": "classifier"}]}
    (folder / "job.yaml").write_text(yaml.safe_dump(job))
    return folder / "job.yaml"


def measured(job_file: Path, workers: int) -> dict[str, Any]:
    """Run a job whose texts are all the same, and tell what it took."""
    import apache_beam as beam

    from evaluation.items import Item, Judge
    from evaluation.scores import Score
    from pipeline.beam import execute, graph, judge_fn
    from pipeline.beam.decode_fn import DecodeFn
    from pipeline.beam.options import beam_options
    from pipeline.beam.work import DecodedShard, Places
    from pipeline.job.load import load_job
    from pipeline.quiet import quiet_libraries
    from pipeline.run.run import run_job

    quiet_libraries()
    moments: dict[str, float] = {}
    job = load_job(job_file)
    texts = (TEXT,) if job.accept is None else TEXTS

    class FixedText(DecodeFn):
        """Rows of one fixed text in place of decoded ones."""

        def setup(self) -> None:
            from pipeline.beam.travel import unpacked_sources

            self._here = unpacked_sources(self._plan.rule.sources)
            self._grid = self._shared_grid.acquire(self._open, tag=self._plan.folder)
            self._stop = lambda: False

        def process(self, places: Places) -> Iterator[DecodedShard]:
            shard, sources = self._shard(places), self._plan.rule.sources
            revisions = dict(sources.adapter_revisions)
            measured = {
                "finish_reason": "stop",
                "n_tokens": 12,
                "log_prob_reference": -24.0,
                "decoder": "scr-exact",
                "exact": True,
                "acceptance_rate": 0.8,
                "n_chunks": 2,
                "n_clipped": 0,
                "n_salvaged": 0,
                "n_fallbacks": 0,
                "tv_bound": 0.0,
                "model": sources.model_label,
                "dtype": sources.dtype,
                "tokens": None,
                "token_log_ratios": None,
            }
            rows = [
                cell.columns()
                | measured
                | {
                    "response": texts[cell.seed % len(texts)],
                    "seed": cell.seed,
                    "config_hash": cell.config_hash,
                    "strengths": [1.0 for _ in cell.weights],
                    "log_ratios": [0.5 for _ in cell.weights],
                    "adapters": [revisions[name] for name, _ in cell.weights],
                }
                for cell in shard.cells
            ]
            yield DecodedShard(rows, of_range=shard.of_range)

    class Once:
        """A judge that is asked once about each text."""

        def __init__(self, judge: Judge) -> None:
            self._judge, self.name, self.version, self.knows = judge, judge.name, judge.version, judge.knows
            self._known: dict[tuple[str, str], Score] = {}

        def judge(self, items: Sequence[Item], attributes: Sequence[str]) -> dict[str, list[Score]]:
            for text, item in {item.text: item for item in items}.items():
                new = [name for name in attributes if (text, name) not in self._known]
                self._known |= {(text, name): some[0] for name, some in self._judge.judge([item], new).items()}
            return {name: [self._known[item.text, name] for item in items] for name in attributes}

    def built(pipeline: beam.Pipeline, *rest: Any) -> None:
        real_build(pipeline, *rest)
        moments["graph"] = float(pipeline.to_runner_api().ByteSize())
        moments.setdefault("submitted", time.perf_counter())

    real_build, graph.DecodeFn, graph.build = graph.build, FixedText, built
    real_load, real_run = judge_fn.load_assigned, execute.run
    if job.accept is not None:
        judge_fn.load_assigned = lambda assignment: Once(real_load(assignment))

    def run(*arguments: Any) -> Any:
        books = real_run(*arguments)
        moments["ran"] = time.perf_counter()
        return books

    execute.run, arguments = run, list[str]()
    if workers > 1:  # workers are given this graph, and not what a process of its own would make of the work
        arguments = [f"--direct_num_workers={workers}", "--direct_running_mode=multi_processing"]
        execute.supervised = lambda graph, arguments: execute.execute(graph, beam_options(arguments))
    started = time.perf_counter()
    result = run_job(job, arguments)
    ended = time.perf_counter()
    return {
        "candidates": result.run["counts"]["planned"],
        "rows": result.run["counts"]["rows"],
        "judgments": result.run["counts"]["judgments"],
        "plan_s": moments["submitted"] - started,
        "run_s": moments["ran"] - moments["submitted"],
        "finish_s": ended - moments["ran"],
        "graph_bytes": int(moments["graph"]),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--accept", action="store_true", help="half of what is drawn passes; rows are candidates then")
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--folder", help="for the data sets; left out: a temporary one")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        print(json.dumps(measured(Path(options.job), options.workers[0])))
        return
    first = 0.0
    print("rows        workers   plan s   run s   finish s   rows/s   graph kB   peak MiB   over the first", flush=True)
    for n, workers in product(options.rows, options.workers):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            job = str(job_of(Path(folder), n, accept=options.accept))
            command = [sys.executable, "-m", "benchmarks.scale", "--workers", str(workers), "--job", job]
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        wanted = n * ACCEPT["rows_per_cell"] // A_CELL if options.accept else n
        assert found["rows"] == found["judgments"] / 2 == wanted, found
        n = found["candidates"]
        first = first or found["peak_mib"]
        seconds = found["plan_s"] + found["run_s"] + found["finish_s"]
        print(
            f"{n:<11,} {workers:7d} {found['plan_s']:8.1f} {found['run_s']:7.1f} {found['finish_s']:10.1f} "
            f"{n / seconds:8.0f} {found['graph_bytes'] / 1000:10.1f} {found['peak_mib']:10.0f} "
            f"{found['peak_mib'] - first:+16.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
