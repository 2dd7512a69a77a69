"""vLLM asked over a pipe. Runs in an environment of its own: nothing of this project is imported here.

Each line of standard input and output is JSON. The first line says what to load: ``{"model": FOLDER, "adapters":
[FOLDER, ...], "dtype": "bfloat16", "rows": 32}``; the answer is ``{"version": "0.32.0", "threads": 2}``. Each further
line is work: ``{"prompts": [[1, 2, ...], ...], "passes": [{"tokens": 8, "adapters": [0, null, ...]}, ...]}``. A pass
makes so many tokens of each row under that row's adapter (``null``: the bare model), whether or not a text would end,
and the next one goes on from there; the answer ``{"tokens": [64, ...]}`` counts the new tokens of each row. What goes
wrong is answered as ``{"error": "..."}``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # those that vLLM has room for, see its LoRAConfig


def main() -> None:
    """Answer until standard input ends."""
    # The answers keep standard output to themselves: what vLLM prints there goes where errors go.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    engine = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if engine is None:
                engine = Engine(asked)
                answer = engine.about()
            else:
                answer = {"tokens": engine.run(asked["prompts"], asked["passes"])}
        except Exception as error:  # the other side names it and goes on without
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Engine:
    """vLLM as it comes, in this process: with two cores, a process for its scheduler would take one of them."""

    def __init__(self, asked: dict[str, Any]) -> None:
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        self.adapters = [LoRARequest(f"adapter-{i}", i + 1, folder) for i, folder in enumerate(asked["adapters"])]
        more: dict[str, Any] = {}
        if self.adapters:  # not where there are none: what has room for adapters is slower without them, too
            ranks = [
                json.loads((Path(each) / "adapter_config.json").read_text("utf-8"))["r"] for each in asked["adapters"]
            ]
            room = next((rank for rank in RANKS if rank >= max(ranks)), max(ranks))
            more = {"enable_lora": True, "max_loras": len(self.adapters), "max_lora_rank": room}
        self.llm = LLM(
            asked["model"],
            dtype=asked["dtype"],
            generation_config="vllm",
            max_num_seqs=asked["rows"],
            kv_cache_memory_bytes=1 << 30,
            **more,
        )

    def about(self) -> dict[str, Any]:
        """What runs, and on how many threads."""
        import torch
        import vllm

        return {"version": vllm.__version__, "threads": torch.get_num_threads()}

    def run(self, prompts: list[list[int]], passes: list[dict[str, Any]]) -> list[int]:
        """Decode; the number of new tokens of each row."""
        from vllm import SamplingParams

        self.llm.reset_prefix_cache()  # a turn must not find what the one before it computed
        rows = [list(prompt) for prompt in prompts]
        for each in passes:
            outputs = self.llm.generate(
                [{"prompt_token_ids": row} for row in rows],
                SamplingParams(temperature=1.0, max_tokens=each["tokens"], ignore_eos=True, detokenize=False),
                use_tqdm=False,
                lora_request=[None if i is None else self.adapters[i] for i in each["adapters"]]
                if self.adapters
                else None,
            )
            for row, output in zip(rows, outputs, strict=True):
                row.extend(output.outputs[0].token_ids)
        return [len(row) - len(prompt) for row, prompt in zip(rows, prompts, strict=True)]


if __name__ == "__main__":
    main()
