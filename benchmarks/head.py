"""What a vocabulary head in 16 bits does to laws, books and texts, and what one in float32 costs.

    python -m benchmarks.head

The embedded model in bfloat16 with four shipped adapters. The head's products are the same either way; *bfloat16*
rounds the logits to 16 bits afterwards, as a head in that format does, *float32* keeps them. What is left is from the
layers, which compute in bfloat16.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.backbone import TransformersBackbone
from mpg.models.embedded import SMOLLM2
from mpg.models.lane_linear import MatMul
from pipeline.job.model import shipped_adapters

_TOKENS, _ROWS, _CALLS = 48, 8, 23


def main() -> None:
    """Measure and print."""
    adapters = {name: shipped_adapters()[name] for name in "EJNT"}
    bank = ModelBank.load(SMOLLM2, adapters, dtype=torch.bfloat16)
    backbone = bank.backbones[0]
    assert isinstance(backbone, TransformersBackbone)
    weight = backbone.model.get_output_embeddings().weight.detach()
    heads: dict[str, Callable[[Tensor], Tensor]] = {"float32": backbone.head, "bfloat16": MatMul(weight)}
    lines = (Path(__file__).parent.parent / "workflows" / "prompts.jsonl").read_text("utf-8").splitlines()[:_ROWS]
    chats = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]
    prompts = bank.tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    settings = DecoderSettings(max_new_tokens=_TOKENS)
    requests = [Request(prompt, dict.fromkeys(adapters, 0.25), seed) for seed, prompt in enumerate(prompts)]
    texts = [(prompt, done.token_ids) for prompt, done in zip(prompts, decode(bank, requests, settings), strict=True)]

    laws = {name: [log_laws(bank, head, *text) for text in texts] for name, head in heads.items()}
    pairs = list(zip(laws["bfloat16"], laws["float32"], strict=True))
    apart = torch.cat([(a.exp() - b.exp()).abs().sum(-1).flatten() / 2 for a, b in pairs])
    print(
        f"a branch's law in bfloat16, off by (total variation a token): mean {apart.mean():.4f}, most {apart.max():.4f}"
    )
    books = []
    for (low, full), (_, response) in zip(pairs, texts, strict=True):
        tokens = torch.tensor(response)[None, :, None].expand(len(low), -1, 1)
        books.append(float((low - full).gather(2, tokens).sum(1).abs().max()))
    print(f"a text's books in bfloat16, off by at most {max(books):.2f} nats in {_TOKENS} tokens")
    whole = ModelBank.load(SMOLLM2, adapters, dtype=torch.float32)
    (layers,) = whole.backbones
    assert isinstance(layers, TransformersBackbone)
    exact = [log_laws(whole, layers.head, *text) for text in texts]
    left = torch.cat(
        [(a.exp() - b.exp()).abs().sum(-1).flatten() / 2 for a, b in zip(laws["float32"], exact, strict=True)]
    )
    print(
        f"left with the head in float32, to the whole model in float32: mean {left.mean():.4f}, most {left.max():.4f}"
    )
    for name, head in heads.items():
        backbone.head = head  # type: ignore[assignment]
        many, few = (list(decode(bank, requests, settings, batch_size=size)) for size in (_ROWS, 2))
        different = sum(a.token_ids != b.token_ids for a, b in zip(many, few, strict=True))
        print(f"texts that differ between batch {_ROWS} and 2, head in {name}: {different} of {_ROWS}")
    for n in (1, 8, 40, 160):
        hidden = torch.randn(n, weight.shape[1]).bfloat16()
        times = {name: timed(head, hidden) for name, head in heads.items()}
        both = ", ".join(f"{name} {ms:.2f}" for name, ms in times.items())
        print(f"ms for {n} states: {both}: x {times['float32'] / times['bfloat16']:.2f}")


@torch.inference_mode()
def log_laws(bank: ModelBank, head: Callable[[Tensor], Tensor], prompt: list[int], response: tuple[int, ...]) -> Tensor:
    """Of each token of a response under every branch, ``[branches, tokens, vocab]``."""
    session = bank.session(1, len(prompt) + len(response))
    session.add_row(range(bank.layout.n_branches), prompt_of=lambda _: prompt)
    entries = session.every_lane()
    ids = torch.tensor([[*prompt, *response][:-1]]).expand(len(entries), -1)
    states = session.append(entries, ids, torch.zeros_like(entries.rows))
    ((_, hidden),) = states._parts
    found = head(hidden[:, len(prompt) - 1 :]).float().log_softmax(-1)
    session.close()
    return found


@torch.inference_mode()
def timed(head: Callable[[Tensor], Tensor], hidden: Tensor) -> float:
    """Milliseconds of a call, the median of some."""
    taken = []
    for _ in range(_CALLS):
        started = time.perf_counter()
        head(hidden)
        taken.append(time.perf_counter() - started)
    return 1000 * statistics.median(taken[3:])


if __name__ == "__main__":
    main()
