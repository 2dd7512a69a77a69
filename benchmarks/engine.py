"""Decoders side by side: ``python -m benchmarks.engine``. What bounds the figures: ``benchmarks/README.md``.

Everything runs in one process: the embedded model, the shipped adapters with equal weights. For each batch
size the decoders take turns, so that a drift of the machine's speed touches all alike; a figure is the
median of the turns, a ratio the median of the turns' ratios to ``generate`` of the reference alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.dtype import pick_dtype
from mpg.models.embedded import SMOLLM2, resolve
from pipeline.job.model import shipped_adapters

ROOT = Path(__file__).parent.parent
GENERATE, NAIVE_MOD = "generate (reference)", "MOD by transformers"


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--tokens", type=int, default=64, help="new tokens a row")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--decoders", nargs="*", default=["reference", "scr-exact", "mod", "routing", "scr"])
    parser.add_argument("--adapters", type=int, default=4, help="how many; E, J, N, T in turn")
    parser.add_argument("--adapter", type=Path, nargs="*", default=[], help="folders of others than the shipped ones")
    parser.add_argument(
        "--from-layer",
        type=int,
        default=0,
        help="leave out what the adapters change below it: what a trunk is worth; such texts mean nothing",
    )
    parser.add_argument("--same-prompt", action="store_true", help="one prompt for all rows, not one a row")
    options = parser.parse_args()

    dtype = getattr(torch, pick_dtype("auto"))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bench = Bench(options, dtype, device, adapters=options.adapter)
    print(f"{date.today()}, {platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, {device}")
    print(f"torch {torch.__version__}, {dtype}, {options.adapters} adapters, {options.tokens} new tokens, ", end="")
    print(f"temperature {options.temperature:g}, top-p {options.top_p:g}, median of {options.turns} turns")
    print(f"{'decoder':24}" + "".join(f"{f'batch {b}: tokens/s':>22}{'ratio':>8}" for b in options.batch))
    runs: dict[str, Callable[[int], int]] = {GENERATE: bench.generate}
    for name in options.decoders:
        runs[name] = bench.naive_mod if name == NAIVE_MOD else bench.ours(name)
    speeds: dict[tuple[str, int], list[float]] = {}
    for batch in options.batch:
        for turn in range(options.turns + 1):  # the first is a warm-up
            for name, run in runs.items():
                started = time.perf_counter()
                made = run(batch)
                if turn or options.turns == 0:
                    speeds.setdefault((name, batch), []).append(made / (time.perf_counter() - started))
    for name in runs:
        cells = []
        for batch in options.batch:
            own, base = speeds[name, batch], speeds[GENERATE, batch]
            ratio = statistics.median(a / b for a, b in zip(own, base, strict=True))
            cells.append(f"{statistics.median(own):22.1f}{ratio:8.2f}")
        print(f"{name:24}" + "".join(cells))


def cut(adapter: Path, first: int) -> Path:
    """An adapter without what it changes below a layer."""
    if not first:
        return adapter
    folder = Path(tempfile.mkdtemp()) / adapter.name
    shutil.copytree(adapter, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    kept = {name: each for name, each in weights.items() if int(name.partition(".layers.")[2].split(".")[0]) >= first}
    layers = sorted({int(name.partition(".layers.")[2].split(".")[0]) for name in kept})
    save_file(kept, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text("utf-8")) | {"layers_to_transform": layers}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


class Bench:
    """The models and the ways to run them; each returns how many tokens it made."""

    def __init__(
        self,
        options: argparse.Namespace,
        dtype: torch.dtype,
        device: str,
        *,
        model: str = SMOLLM2,
        adapters: Sequence[Path] = (),
    ) -> None:
        from transformers import AutoModelForCausalLM

        self.options, self.device = options, device
        folders = [cut(each, options.from_layer) for each in adapters or map(shipped_adapters().__getitem__, "EJNT")]
        # Named anew so that more than there are can be asked for: a copy costs what another adapter would.
        chosen = [folders[i % len(folders)] for i in range(options.adapters)]
        self.adapters: Mapping[str, Any] = {f"{folder.name}{i}": folder for i, folder in enumerate(chosen)}
        self.bank = ModelBank.load(model, self.adapters, dtype=dtype, device=device)
        self.bank.eos_ids = frozenset()  # all rows run to the full length, as in `generate` below
        self.tokenizer = self.bank.tokenizer
        self.tokenizer.padding_side = "left"
        self.plain = AutoModelForCausalLM.from_pretrained(resolve(model), dtype=dtype).to(device).eval()
        lines = (ROOT / "workflows" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
        chats = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]
        self.chats = [chats[0]] * len(chats) if options.same_prompt else chats

    def ours(self, name: str, **changes: Any) -> Callable[[int], int]:
        """A decoder of this project; ``name`` may end in ``/reference`` or ``/mixture``, who drafts."""
        name, _, drafter = name.partition("/")
        settings = DecoderSettings(
            name=name,
            drafter=drafter or None,
            max_new_tokens=self.options.tokens,
            temperature=self.options.temperature,
            top_p=self.options.top_p,
        )
        settings = replace(settings, **changes)
        weights = dict.fromkeys(self.adapters, 1 / len(self.adapters))

        def run(batch: int) -> int:
            prompts = self.tokenizer.apply_chat_template(
                self.chats[:batch], add_generation_prompt=True, return_dict=False
            )
            requests = [Request(prompt, weights, seed=i) for i, prompt in enumerate(prompts)]
            return sum(len(c.token_ids) for c in decode(self.bank, requests, settings, batch_size=batch))

        return run

    def _inputs(self, batch: int) -> Any:
        return self.tokenizer.apply_chat_template(
            self.chats[:batch], add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True
        ).to(self.device)

    @torch.inference_mode()
    def generate(self, batch: int, **more: Any) -> int:
        """transformers' own loop over the reference, all rows to the full length; ``more``: options of ``generate``."""
        inputs, n = self._inputs(batch), self.options.tokens
        sampling = {"temperature": self.options.temperature, "top_p": self.options.top_p, "top_k": 0} | more
        out = self.plain.generate(**inputs, do_sample=True, max_new_tokens=n, min_new_tokens=n, **sampling)
        return batch * (out.shape[1] - inputs["input_ids"].shape[1])

    @torch.inference_mode()
    def naive_mod(self, batch: int) -> int:
        """Token-by-token MOD as public code does it: N + 1 forward passes a token, one model each.

        The bare model stands in for each adapted one, which costs at least as much.
        """
        from transformers import DynamicCache

        inputs = self._inputs(batch)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        caches = [DynamicCache() for _ in range(1 + len(self.adapters))]
        for _ in range(self.options.tokens):
            total = 0.0
            for cache in caches:
                out = self.plain(input_ids=ids, attention_mask=mask, past_key_values=cache, logits_to_keep=1)
                total = total + out.logits[:, -1].float().log_softmax(-1)
            law = (total / len(caches) / self.options.temperature).softmax(-1)
            ids = torch.multinomial(law, 1)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
        return batch * self.options.tokens


if __name__ == "__main__":
    main()
