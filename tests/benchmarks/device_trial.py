"""Runs in a process of its own (it has a pretended device from then on): texts on that device beside those on the CPU.

Prints a line of JSON: texts that differ, by decoder; how a model that is broken in the middle of a text is named.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from benchmarks.pretend_device import onto, pretending
from benchmarks.random_llama import adapter, bank_of, llama, sharpen
from mpg import Completion, DecoderSettings, ModelBank, Request, decode

CASES: dict[str, dict[str, Any]] = {
    "reference": {"name": "reference"},
    "mod": {"name": "mod", "token_log_ratios": True},
    "mod, top-p": {"name": "mod", "top_p": 0.9},
    "sum": {"name": "scr-exact", "token_log_ratios": True},
    "sum, no horizon": {"name": "scr-exact", "horizon": None},
    "sum, strength": {"name": "scr-exact", "strength": {"a0": 1.5}},
    "sum, top-p": {"name": "scr-exact", "top_p": 0.9},
    "sum, top-k, cold": {"name": "scr-exact", "top_k": 5, "temperature": 0.7},
    "sum, greedy": {"name": "scr-exact", "temperature": 0.0},
    "sum, top-p, drafts of the mixture": {"name": "scr-exact", "drafter": "mixture", "top_p": 0.9},
    "sum, block": {"name": "scr-exact", "verification": "block"},
    "product, top-p": {"name": "scr-exact", "aggregate": "product", "top_p": 0.9},
    "soup": {"name": "soup"},
    "routing": {"name": "routing"},
    "scr": {"name": "scr"},
    "best-of-n": {"name": "best-of-n", "n_candidates": 2},
}
IN_CHUNKS = ("sum", "sum, top-p", "product, top-p")  # also with four drafts a round
TOLERANCE = 1e-3  # of a log-ratio over a text of 20 tokens, in nats


def bank(*, first: int, device: bool) -> ModelBank:
    """Adapters from layer ``first`` of two up, of a rank that no device likes."""
    model = llama("small", torch.float32, "cpu")
    sharpen(model)
    loras = [adapter(model, seed=i, scale=0.1, rank=5, first=first) for i in range(3)]
    return bank_of(onto(model) if device else model, loras, eos_ids=frozenset({7}))


def texts(models: ModelBank, settings: dict[str, Any], draft_len: int | None) -> list[Completion]:
    """Six rows of several attributes, four at a time: they come and go, and some end early."""
    made, names = DecoderSettings(**settings | {"max_new_tokens": 20}), models.attributes
    asked = []
    for i in range(6):
        some = {names[0]: 0.5, names[1]: 0.3, names[2]: 0.2} if i % 3 else {names[i % 2]: 1.0}
        asked.append(Request([3, 4, 5 + i, 8, 9, 10 + i], some if made.facts.weighted else {}, i))
    return list(decode(models, asked, made, batch_size=4, draft_len=draft_len))


def apart(one: Completion, other: Completion) -> bool:
    """Whether two rows differ by more than rounding."""
    if (one.token_ids, one.n_chunks, one.acceptance_rate) != (other.token_ids, other.n_chunks, other.acceptance_rate):
        return True
    values = [(one.log_prob_reference, other.log_prob_reference)]
    values += [(one.log_ratios[name], other.log_ratios[name]) for name in one.log_ratios]
    for name, terms in (one.token_log_ratios or {}).items():
        values += zip(terms, (other.token_log_ratios or {})[name], strict=True)
    return any(abs(a - b) > TOLERANCE for a, b in values)


def broken() -> str:
    """What is said where one adapter's logits stop being numbers after a few tokens of one row."""
    models = bank(first=0, device=True)
    (backbone,) = models.backbones
    right, seen = backbone.head, []  # type: ignore[attr-defined]

    def head(hidden: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = right(hidden)
        seen.append(len(logits))
        if len(seen) == 3:
            logits[5] = torch.nan  # lines are the references of four rows, then the first attribute's of four
        return logits

    backbone.head = head  # type: ignore[attr-defined]
    settings = DecoderSettings(name="mod", max_new_tokens=8, top_p=0.9)
    asked = [Request([3, 4, 5 + i], dict.fromkeys(models.attributes, 1 / 3), i) for i in range(4)]
    try:
        list(decode(models, asked, settings))
    except FloatingPointError as error:
        return f"{error} After {len(seen)} passes."
    return "nothing"


def main() -> None:
    found = []
    for first in (0, 1):  # one: below, branches share a trunk
        on_cpu = bank(first=first, device=False)
        with pretending():
            on_device = bank(first=first, device=True)
        for name, settings in CASES.items():
            for draft_len in (None, 4) if name in IN_CHUNKS else (None,):
                wanted = texts(on_cpu, settings, draft_len)
                with pretending():
                    got = texts(on_device, settings, draft_len)
                found += [f"{name}, {first}, {draft_len}" for a, b in zip(got, wanted, strict=True) if apart(a, b)]
    with pretending():
        print(json.dumps({"apart": found, "broken": broken()}))


if __name__ == "__main__":
    main()
