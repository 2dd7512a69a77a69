"""Tokens per second of the decoders beside transformers' ``generate``: ``python benchmarks/engine.py``.

Everything runs in one process on one set of weights: the embedded model, the shipped adapters with equal
weights, temperature 0.8, top-p 0.95. For each batch size the decoders take turns, so that a drift of the
machine's speed touches all alike; the figure is the median of the turns, the ratio is to ``generate`` of the
reference alone in the same turn.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.embedded import SMOLLM2, resolve
from mpg.revisions import pick_dtype
from pipeline.job import shipped_adapters

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="new tokens a row")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--chunk", type=int, nargs="*", default=[4, 8], help="chunk lengths of scr-exact")
    options = parser.parse_args()
    from transformers import AutoModelForCausalLM

    dtype = getattr(torch, pick_dtype("auto"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    adapters = shipped_adapters()
    bank = ModelBank.load(SMOLLM2, adapters, dtype=dtype, device=device)
    plain = AutoModelForCausalLM.from_pretrained(resolve(SMOLLM2), dtype=dtype).to(device).eval()
    weights = {name: 1 / len(adapters) for name in adapters}
    lines = (ROOT / "workflows" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]

    def settings(name: str, chunk: int = 8) -> DecoderSettings:
        return DecoderSettings(
            name=name, chunk_len=chunk, max_new_tokens=options.tokens, temperature=0.8, top_p=0.95, horizon=8
        )

    def ours(wanted: DecoderSettings, batch: int) -> int:
        requests = [
            Request(
                bank.tokenizer.apply_chat_template(p, add_generation_prompt=True, return_dict=False), weights, seed=i
            )
            for i, p in enumerate(prompts[:batch])
        ]
        return sum(len(c.token_ids) for c in decode(bank, requests, wanted, batch_size=batch))

    def generate(batch: int) -> int:
        tokenizer = bank.tokenizer
        tokenizer.padding_side = "left"
        inputs = tokenizer.apply_chat_template(
            prompts[:batch], add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
        ).to(device)
        with torch.inference_mode():
            out = plain.generate(
                **inputs, do_sample=True, temperature=0.8, top_p=0.95, top_k=0, max_new_tokens=options.tokens
            )
        new = out[:, inputs["input_ids"].shape[1] :]
        return int((new != tokenizer.pad_token_id).sum())

    runs: dict[str, Callable[[int], int]] = {"generate (reference)": generate}
    runs["reference"] = lambda batch: ours(settings("reference"), batch)
    for chunk in options.chunk:
        runs[f"scr-exact, chunk {chunk}"] = lambda batch, chunk=chunk: ours(settings("scr-exact", chunk), batch)
    runs["scr, chunk 8"] = lambda batch: ours(settings("scr"), batch)

    print(f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {device}, {dtype}")
    print(f"torch {torch.__version__}, {len(adapters)} adapters, {options.tokens} new tokens, {options.turns} turns")
    print(f"{'decoder':24}" + "".join(f"{f'batch {b}: tokens/s':>22}{'ratio':>8}" for b in options.batch))
    speeds: dict[tuple[str, int], list[float]] = {}
    for batch in options.batch:
        for turn in range(options.turns + 1):  # the first is a warm-up
            for name, run in runs.items():
                started = time.perf_counter()
                made = run(batch)
                if turn:
                    speeds.setdefault((name, batch), []).append(made / (time.perf_counter() - started))
    for name in runs:
        cells = []
        for batch in options.batch:
            own, base = speeds[name, batch], speeds["generate (reference)", batch]
            ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
            cells.append(f"{statistics.median(own):22.1f}{ratio:8.2f}")
        print(f"{name:24}" + "".join(cells))


if __name__ == "__main__":
    main()
