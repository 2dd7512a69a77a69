"""This project beside what else a user could run: ``python -m benchmarks.peers --turns 5 --write``.

One run, one machine: for each batch size the engines take turns, vLLM's too, which run in processes of their own and
are asked over pipes. All get the same prompts, and every row runs to the same number of new tokens. A figure is the
median of the turns (the first, a warm-up, is left out), a ratio the median of the turns' ratios to ``generate`` of the
bare model. A peer that can't be had or fails is named with its reason, and its row stays.

vLLM's CPU build is installed into an environment of its own at the first start (3.5 GB), and compiles the model then.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.device_clock import describe
from benchmarks.engine import NAIVE_MOD, ROOT, Bench
from benchmarks.peers_process import REQUIREMENT, Missing, Vllm, environment
from mpg import DecoderSettings
from mpg.models.dtype import pick_dtype
from mpg.models.embedded import SMOLLM2, resolve
from mpg.models.hub import ADAPTER_CONFIG
from pipeline.decode.machine import processor

PAGE = ROOT / "benchmarks" / "peers.md"
GENERATE = "`generate` of the bare model (transformers)"
LOOKUP, EARLY_EXIT = "assisted `generate`: prompt lookup", "assisted `generate`: an early layer drafts"
RELEASED_MOD = "MOD as its authors released it, by its formula"
REFERENCE, SUM = "this project's `reference`", "this project's `scr-exact`, `sum`, complete books"
PRODUCT = "this project's `scr-exact`, `product`, top-p .95, complete books"
VLLM_BARE, VLLM_ADAPTERS = "vLLM (CPU), bare model", "vLLM (CPU), one adapter a row (no mixture, no books)"
VLLM_SUM = "vLLM (CPU), `sum` by 8-token segments under drawn adapters (no books)"
HORIZON = 8
assert DecoderSettings().horizon == HORIZON

NOTES = f"""\
- **assisted `generate`**: what transformers offers to the bare model without a second one. Drafts are n-grams of the
  prompt (10 tokens), or what the first two thirds of the layers say (`assistant_early_exit`).
- **{NAIVE_MOD}** (`benchmarks/engine.py`): N + 1 passes a token, each over the whole batch with a KV cache of its own,
  the bare model in the place of each adapted one.
- **{RELEASED_MOD}** is computed, not run: `generate` / (N + 1). The code released with Shi et al. (NeurIPS 2024,
  "Decoding-Time Language Model Alignment with Multiple Objectives") runs one whole forward pass a token for each
  adapter in turn and one for the bare model, each over the batch with a KV cache of its own; models are never batched.
  Each pass is taken to cost a token of `generate`: what that does besides the pass is so counted N + 1 times, and the
  adapters, which are not merged there, not at all. That code decodes greedily or with beams; it does not sample.
- **vLLM**: its settings are its own defaults, but for one process instead of two (it keeps a core free for the other,
  its scheduler's) and a prefix cache that is emptied before each turn. LoRA turns its compilation off. One adapter a
  row is no mixture; it is the least that one could cost there. By segments, a row goes on under another drawn adapter
  every {HORIZON} tokens: the law of `sum` with that horizon, strength 1, but no log-ratios and no `log_prob_reference`.
- Adapters that are on from the answer alone, which vLLM refuses, are on from the beginning there.
- **complete books**: every token is scored under all N + 1 branches."""

Run = Callable[[int], int]


def main(arguments: Sequence[str] | None = None) -> str:
    """Measure and print one page; returns it."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _options(arguments)
    dtype = pick_dtype("auto")
    with ExitStack() as stack:
        bench = Bench(options, getattr(torch, dtype), "cpu", model=options.model, adapters=options.adapter)
        runs, versions = own_runs(bench), [f"torch {torch.__version__}, transformers {transformers.__version__}"]
        found, vllm = vllm_runs(bench, dtype, stack)
        versions += vllm
        speeds: dict[tuple[str, int], list[float]] = {}
        missing: dict[tuple[str, int], str] = {}
        for batch in options.batch:
            measure(runs | found, batch, options, speeds, missing)
    rows = list(runs | found)
    rows.insert(rows.index(NAIVE_MOD) + 1, RELEASED_MOD)
    for batch in options.batch:
        passes = options.adapters + 1
        speeds[RELEASED_MOD, batch] = [speed / passes for speed in speeds[GENERATE, batch]]
    command = shlex.join(["python", "-m", "benchmarks.peers", *arguments])
    page = f"""\
# What else a user could run

`{command}`, {date.today()}; {processor()}, {torch.get_num_threads()} threads; {dtype}; {", ".join(versions)}.

{options.model}, {options.adapters} adapters with equal weights, {options.tokens} new tokens a row, temperature 1,
nothing truncated unless said. Tokens/s, in brackets the multiple of `generate`:
of {options.turns} turns the median, of the tokens/s and, apart from it, of each turn's multiple.

{table(rows, options.batch, speeds)}

{left_out(missing)}{NOTES}
"""
    print(page)
    if options.write:
        PAGE.write_text(page, encoding="utf-8")
    return page


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="new tokens a row")
    parser.add_argument("--venv", type=Path, default=ROOT / "out" / "peers", help="folder of vLLM's own environment")
    parser.add_argument("--vllm", default=REQUIREMENT, help=f"what pip installs there (default {REQUIREMENT})")
    parser.add_argument("--without-vllm", action="store_true")
    parser.add_argument("--write", action="store_true", help="write benchmarks/peers.md, too")
    parser.add_argument("--model", default=SMOLLM2, help="an id or folder")
    parser.add_argument("--adapter", type=Path, nargs="+", default=[], help="folders (default: E, J, N, T)")
    parser.add_argument("--adapters", type=int, default=4, help="how many, the folders in turn")
    # What else Bench reads.
    parser.set_defaults(temperature=1.0, top_p=1.0, from_layer=0, same_prompt=False)
    options = parser.parse_args(arguments)
    for name in ("turns", "tokens", "adapters"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: at least 1")
    prompts = (ROOT / "workflows" / "prompts.jsonl").read_text(encoding="utf-8").count("\n")
    for batch in options.batch:
        if not 1 <= batch <= prompts:
            parser.error(f"--batch {batch}: 1 to {prompts}, the number of prompts")
    return options


def own_runs(bench: Bench) -> dict[str, Run]:
    """What runs in this process, by its row; each returns how many tokens it made."""
    n_layers = bench.plain.config.num_hidden_layers
    return {
        GENERATE: bench.generate,
        LOOKUP: lambda batch: bench.generate(batch, prompt_lookup_num_tokens=10),
        EARLY_EXIT: lambda batch: bench.generate(batch, assistant_early_exit=max(1, 2 * n_layers // 3)),
        NAIVE_MOD: bench.naive_mod,
        REFERENCE: bench.ours("reference"),
        SUM: bench.ours("scr-exact"),
        PRODUCT: bench.ours("scr-exact", aggregate="product", top_p=0.95),
    }


def vllm_runs(bench: Bench, dtype: str, stack: ExitStack) -> tuple[dict[str, Run], list[str]]:
    """What runs in vLLM, by its row, and its version; a row that can't be had is a run that raises :class:`Missing`."""
    options = bench.options
    names = (VLLM_BARE, VLLM_ADAPTERS, VLLM_SUM)
    if options.without_vllm:
        return dict.fromkeys(names, _raises("left out (--without-vllm)")), []
    venv = options.venv.absolute()
    try:
        python = environment(venv, options.vllm)
    except Missing as missing:
        return dict.fromkeys(names, _raises(str(missing))), []
    n, width = len(bench.adapters), options.tokens
    draws = random.Random(0)  # the same adapters in every turn
    widths = [min(HORIZON, width - start) for start in range(0, width, HORIZON)]
    drawn = [[draws.randrange(n) for _ in range(max(options.batch))] for _ in widths]
    passes: dict[str, Callable[[int], list[dict[str, Any]]]] = {
        VLLM_BARE: lambda batch: [{"tokens": width, "adapters": [None] * batch}],
        VLLM_ADAPTERS: lambda batch: [{"tokens": width, "adapters": [i % n for i in range(batch)]}],
        VLLM_SUM: lambda batch: [
            {"tokens": each, "adapters": rows[:batch]} for each, rows in zip(widths, drawn, strict=True)
        ],
    }
    runs: dict[str, Run] = {}
    versions: set[str] = set()
    copies = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    for name, adapters, rows in (("bare", [], names[:1]), ("adapters", list(bench.adapters.values()), names[1:])):
        loads = {
            "model": str(Path(resolve(options.model)).absolute()),
            "adapters": [str(always_on(Path(each).absolute(), copies / str(i))) for i, each in enumerate(adapters)],
            "dtype": dtype,
            "rows": max(options.batch),
        }
        try:
            process = Vllm(python, venv / f"vllm-{name}.log", loads)
        except Missing as missing:
            runs |= dict.fromkeys(rows, _raises(str(missing)))
            continue
        stack.callback(process.close)
        versions.add(f"vLLM {process.about['version']} on {process.about['threads']} threads")
        runs |= {row: _asks(process, bench, passes[row]) for row in rows}
    return runs, sorted(versions)


def always_on(adapter: Path, copy: Path) -> Path:
    """An adapter as vLLM takes it: of one that is on from the answer (aLoRA) a copy that is on from the beginning."""
    config = json.loads((adapter / ADAPTER_CONFIG).read_text("utf-8"))
    if config.get("alora_invocation_tokens") is None:
        return adapter
    shutil.copytree(adapter, copy)
    (copy / ADAPTER_CONFIG).write_text(json.dumps(config | {"alora_invocation_tokens": None}), "utf-8")
    return copy


def _raises(reason: str) -> Run:
    def run(batch: int) -> int:
        raise Missing(reason)

    return run


def _asks(process: Vllm, bench: Bench, passes: Callable[[int], list[dict[str, Any]]]) -> Run:
    def run(batch: int) -> int:
        chats = bench.chats[:batch]
        prompts = bench.tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
        return process.run(prompts, passes(batch))

    return run


def measure(
    runs: Mapping[str, Run],
    batch: int,
    options: argparse.Namespace,
    speeds: dict[tuple[str, int], list[float]],
    missing: dict[tuple[str, int], str],
) -> None:
    """One batch size: the runs in turns. Adds tokens/s turn by turn, or why a run has none.

    Raises:
        Exception: whatever ``generate``, to which all are compared, fails with.
    """
    for turn in range(options.turns + 1):  # the first is a warm-up
        for name, run in runs.items():
            if (name, batch) in missing:
                continue
            started = time.perf_counter()
            try:
                made = run(batch)
                if made != batch * options.tokens:
                    raise Missing(f"{made} new tokens where {batch * options.tokens} were asked for")
            except Exception as error:
                if name == GENERATE:
                    raise
                missing[name, batch] = str(error) if isinstance(error, Missing) else describe(error)
                speeds.pop((name, batch), None)
                print(f"batch {batch}, {name}: none: {missing[name, batch]}", file=sys.stderr, flush=True)
                continue
            speed = made / (time.perf_counter() - started)
            print(f"batch {batch}, turn {turn}, {name}: {speed:.1f} tokens/s", file=sys.stderr, flush=True)
            if turn:
                speeds.setdefault((name, batch), []).append(speed)


def table(rows: Sequence[str], batches: Sequence[int], speeds: Mapping[tuple[str, int], list[float]]) -> str:
    """Markdown: a row each, ``-`` where there is no speed."""
    lines = ["| |" + "".join(f" batch {batch} |" for batch in batches), "|---|" + "---|" * len(batches)]
    for row in rows:
        cells = []
        for batch in batches:
            own, base = speeds.get((row, batch)), speeds[GENERATE, batch]
            if own is None:
                cells.append("-")
                continue
            ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
            cells.append(f"{statistics.median(own):.1f} ({ratio:.2f})")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def left_out(missing: Mapping[tuple[str, int], str]) -> str:
    """Markdown: a line for each row that lacks a speed and why, the batch sizes of one reason together."""
    batches: dict[tuple[str, str], list[int]] = {}
    for (row, batch), reason in missing.items():
        batches.setdefault((row, reason), []).append(batch)
    lines = (
        f"- Not measured: {row}, batch {', '.join(map(str, sizes))}: {reason}\n"
        for (row, reason), sizes in batches.items()
    )
    return "".join(lines)


if __name__ == "__main__":
    main()
