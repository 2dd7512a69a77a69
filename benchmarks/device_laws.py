"""The laws on a device: what the engine draws there, held against enumeration, slow references and transformers.

Over tiny random models on the device itself, in a number format each:

- *pass*: our pass and cache against transformers' own ``forward``, adapters merged into its weights
- *tree*: the engine's decision tree (``tests/decision_trees.py``) against the target's law by enumeration
  (:func:`mpg.law`) over the same ``forward``, total variation over complete responses
- *slow*: texts that are not those of the slow decoder, sampled and greedy
- *alone*: texts that differ from those decoded in a batch of one
- *books*: log-ratios of the engine against those of scoring the finished texts

In float32 a limit is set by the order of sums (TF32 must be off). In 16 bits two passes round differently: there laws
may be a little apart, *slow* is left out, and how many texts of *alone* differ is said and not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.random_llama import adapter, bank_of, llama, merged
from mpg import DecoderSettings, FunctionModel, ModelBank, Request, decode, law
from mpg.models.adapter_files import Lora
from mpg.models.backbone import TransformersBackbone
from mpg.oracle.decoder import decode_slowly
from mpg.score.texts import component_log_probs
from tests.decision_trees import tree_law
from tests.laws import total_variation

WEIGHTS, PROMPT = {"a0": 0.3, "a1": 0.7}, [1, 2]
# Enumerated: a vocabulary of three tokens, of which 0 ends a text.
TREES: dict[str, dict[str, Any]] = {
    "reference": {"name": "reference", "top_k": 2, "weights": {}},
    "mod, strengths": {"name": "mod", "strength": {"a0": 0.5, "a1": 1.5}, "top_p": 0.95},
    "routing": {"name": "routing", "horizon": 2, "top_k": 2, "max_new_tokens": 2},
    "soup": {"name": "soup", "strength": 1.5},
    "sum": {"drafter": "reference", "horizon": 2, "draft_len": 3},
    "sum, top-p, token by token": {"drafter": "reference", "horizon": 2, "draft_len": 1, "top_p": 0.7},
    "sum, no horizon, strength 2": {"drafter": "reference", "horizon": None, "draft_len": 2, "strength": 2.0},
    "sum, drafts of the mixture": {"drafter": "mixture", "horizon": 2, "draft_len": 2, "max_new_tokens": 2},
    "product, top-p": {"aggregate": "product", "draft_len": 2, "strength": 0.5, "top_p": 0.95},
    "sum, greedy": {"drafter": "reference", "horizon": 2, "draft_len": 3, "temperature": 0},
}
FEW = ("sum, top-p, token by token", "sum, drafts of the mixture")
_DECODERS: dict[str, dict[str, Any]] = {
    "reference": {"name": "reference"},
    "scr-exact": {},
    "scr-exact, reference drafts": {"drafter": "reference"},
    "scr-exact, block": {"verification": "block"},
    "scr-exact, product, top-p": {"aggregate": "product", "top_p": 0.9, "top_k": 20},
    "mod": {"name": "mod", "top_p": 0.9},
    "routing": {"name": "routing"},
    "scr": {"name": "scr"},
}
_FEW_DECODERS = ("scr-exact", "scr-exact, product, top-p", "routing")
# float32: sums in another order. 16 bits: a tiny model's logits are off by a few hundredths.
_LIMITS = {
    torch.float32: {"pass": 1e-5, "tree": 1e-5, "books": 1e-3},
    torch.bfloat16: {"pass": 3e-2, "tree": 5e-2, "books": 0.5},
}


@dataclass(frozen=True)
class Finding:
    """One law, held; ``limit`` ``None``: said and not judged. ``value`` is what the kind of it says."""

    kind: str
    case: str
    dtype: str
    value: float
    limit: float | None

    @property
    def holds(self) -> bool:
        return self.limit is None or self.value <= self.limit


def findings(
    device: str, dtype: torch.dtype, *, trees: Sequence[str] = tuple(TREES), n_requests: int = 12
) -> Iterator[Finding]:
    """Each law in turn."""
    name = str(dtype).removeprefix("torch.")
    limits = _LIMITS[dtype]
    for case, value in passes(device, dtype):
        yield Finding("pass", case, name, value, limits["pass"])
    for first, suffix in ((0, ""), (1, "; shared trunk")):  # adapters of the upper layer alone share the lower one
        plain, loras = small_models(device, dtype, vocab_size=3, first=first)
        oracle, bank = oracle_of(plain, loras), bank_of(plain, loras, eos_ids=frozenset({0}))
        for case in trees if not first else FEW:
            yield Finding("tree", case + suffix, name, tree_apart(bank, oracle, TREES[case]), limits["tree"])
        plain, loras = small_models(device, dtype, vocab_size=64, first=first)
        bank = bank_of(plain, loras, eos_ids=frozenset({0}))
        decoders = _DECODERS if not first else {case: _DECODERS[case] for case in _FEW_DECODERS}
        for each in _of_texts(bank, dtype, decoders, n_requests, limits["books"]):
            yield replace(each, case=each.case + suffix)


def _of_texts(
    bank: ModelBank, dtype: torch.dtype, decoders: Mapping[str, dict[str, Any]], n_requests: int, books: float
) -> Iterator[Finding]:
    """What is held of texts, decoder by decoder."""
    name = str(dtype).removeprefix("torch.")
    alike = 0.0 if dtype == torch.float32 else None
    for case, changes in decoders.items():
        for greedy in (False, True):
            if greedy and changes.get("name") == "scr":
                continue
            common = {"max_new_tokens": 12, "chunk_len": 4, "horizon": 5, "temperature": 0 if greedy else 1.0}
            settings = DecoderSettings(**common | changes)
            asked = requests(n_requests)
            together = list(decode(bank, asked, settings, batch_size=n_requests - 1))
            texts = [done.token_ids for done in together]
            label = f"{case}, greedy" if greedy else case
            alone = [next(iter(decode(bank, [request], settings))).token_ids for request in asked]
            yield Finding("alone", label, name, differing(texts, alone), alike)
            if settings.facts.exact and settings.verification == "token" and alike is not None:
                slow = [decode_slowly(bank, request, settings) for request in asked]
                yield Finding("slow", label, name, differing(texts, slow), alike)
            if not greedy and settings.facts.weighted:
                scored = component_log_probs(bank, [(r.prompt_ids, t) for r, t in zip(asked, texts, strict=True)])
                off = [
                    abs(done.log_ratios[f"a{i}"] - float((log_probs[:, 1 + i] - log_probs[:, 0]).sum()))
                    for done, (_, log_probs) in zip(together, scored, strict=True)
                    for i in (0, 1)
                ]
                yield Finding("books", case, name, max(off), books)


def requests(n: int) -> list[Request]:
    """Prompts of many lengths."""
    return [Request(list(range(3, 4 + i * 3 % 11)), WEIGHTS, seed=100 + i) for i in range(n)]


def differing(texts: Sequence[tuple[int, ...]], others: Sequence[tuple[int, ...]]) -> float:
    """How many are not the same."""
    return float(sum(a != b for a, b in zip(texts, others, strict=True)))


def small_models(device: str, dtype: torch.dtype, *, vocab_size: int, first: int = 0) -> tuple[Any, list[Lora]]:
    """A tiny random model and two adapters over it, from a layer up."""
    model = llama("tiny", dtype, device, seed=3, vocab_size=vocab_size)
    return model, [adapter(model, seed=i, rank=2 + i, scale=0.7, first=first) for i in range(2)]


def oracle_of(model: Any, loras: Sequence[Lora]) -> ModelBank:
    """The same models as functions: transformers' forward over a whole text, adapters merged, no cache."""

    @torch.inference_mode()
    def logits(of: Any, tokens: Tensor) -> Tensor:
        hidden = of.model(input_ids=tokens.to(of.device), use_cache=False).last_hidden_state[:, -1]
        return (hidden.float() @ of.get_output_embeddings().weight.float().T).double().cpu()

    def function(of: Any) -> FunctionModel:
        return FunctionModel(partial(logits, of), vocab_size=of.config.vocab_size, eos_id=0)

    def soup(mix: Sequence[float]) -> FunctionModel:
        out = model_before
        for share, lora in zip(mix, loras, strict=True):
            out = merged(out, scaled(lora, share))
        return function(out)

    model_before = merged(model, scaled(loras[0], 0.0))  # a copy: a bank changes its model in place
    own = {f"a{i}": function(merged(model, lora)) for i, lora in enumerate(loras)}
    return ModelBank.from_functions(reference=function(model_before), attributes=own, soup=soup)


def scaled(lora: Lora, share: float) -> Lora:
    factors = {name: (down, up * share) for name, (down, up) in lora.factors.items()}
    return Lora(lora.label, lora.config, factors, {}, {})


def tree_apart(bank: ModelBank, oracle: ModelBank, case: dict[str, Any]) -> float:
    """Total variation between the engine's decision tree over a bank and the law of the same models as functions."""
    changes = {"name": "scr-exact", "chunk_len": 4, "max_new_tokens": 3} | case
    weights, draft_len = changes.pop("weights", WEIGHTS), changes.pop("draft_len", None)
    settings = DecoderSettings(**changes)
    with pytest.MonkeyPatch.context() as patch:
        tree = tree_law(bank, PROMPT, weights, settings, patch, draft_len=draft_len)
    return float(total_variation(tree, law(oracle, PROMPT, weights, settings)))


@torch.inference_mode()
def passes(device: str, dtype: torch.dtype) -> Iterator[tuple[str, float]]:
    """Largest total variation a token between our pass and transformers', of texts fed in parts to changing lanes."""
    plain, loras = small_models(device, dtype, vocab_size=64)
    models = [merged(plain, scaled(loras[0], 0.0)), *(merged(plain, lora) for lora in loras)]
    (backbone,) = bank_of(plain, loras).backbones
    assert isinstance(backbone, TransformersBackbone) and backbone.way == "lean"
    generator = torch.Generator().manual_seed(1)
    texts = torch.randint(1, 64, (6, 12), generator=generator).to(device)
    for branch, model in enumerate(models):
        hidden = model.model(input_ids=texts, use_cache=False).last_hidden_state
        wanted = (hidden.float() @ model.get_output_embeddings().weight.float().T).softmax(-1)
        mixes = torch.zeros(6, 2, dtype=torch.float64)
        if branch:
            mixes[:, branch - 1] = 1.0
        session = backbone.session(6, 16)
        worst = 0.0
        # All at once; lanes that are gathered, token by token; two runs of lanes; all again.
        for lanes, first, last in (
            ((0, 1, 2, 3, 4, 5), 0, 5),
            ((5, 0, 3), 5, 6),
            ((5, 0, 3), 6, 7),
            ((1, 2, 4), 5, 8),
            ((0, 3, 5), 7, 8),
            ((0, 1, 2, 3, 4, 5), 8, 12),
        ):
            starts = torch.full((len(lanes),), first, device=device)
            fed = texts[list(lanes), first:last]
            got = session.logits(session.append(lanes, mixes[: len(lanes)], fed, starts)).softmax(-1)
            worst = max(worst, float((got - wanted[list(lanes), first:last]).abs().sum(-1).max()) / 2)
        session.close()
        yield ("the bare model" if branch == 0 else f"adapter {branch}"), worst
