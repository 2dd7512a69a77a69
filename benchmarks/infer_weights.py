"""How far inferred weights are from the true ones, by number of pairs: ``python -m benchmarks.infer_weights``.

Real models, a simulated user: SmolLM2-135M writes two answers to each prompt, and the user prefers one by the
Bradley-Terry model over the shipped adapters' log-ratios with known weights. For each number of pairs many
users are drawn, each with weights and pairs of their own.
"""

from __future__ import annotations

import argparse
import json
from datetime import date
from pathlib import Path

import numpy as np
import torch

from mpg import DecoderSettings, ModelBank, Request, decode
from mpg.models.dtype import pick_dtype
from mpg.models.embedded import SMOLLM2
from mpg.score.texts import component_log_probs
from mpg.score.weights import COVERAGE, draws_from_pairs
from pipeline.job.model import shipped_adapters

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="*", default=[5, 20, 100])
    parser.add_argument("--pool", type=int, default=160, help="pairs written, of which each user judges some")
    parser.add_argument("--tokens", type=int, default=48, help="longest answer")
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--decided", type=float, default=2.0, help="typical |logit| of a user's preference")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    adapters = {name: shipped_adapters()[name] for name in "EJNT"}
    bank = ModelBank.load(SMOLLM2, adapters, dtype=getattr(torch, pick_dtype("auto")), device=device)
    differences = answer_differences(bank, options.pool, options.tokens)
    generator = np.random.default_rng(0)
    scale = options.decided / float(np.sqrt(np.mean(differences**2)))
    print(f"{date.today()}, {', '.join(bank.attributes)}; {options.pool} pairs of up to {options.tokens} tokens")
    print("pairs  mean |error| of a weight  equal weights' error  in the 95 % interval")
    for n in options.pairs:
        errors, blind, inside = [], [], []
        for _ in range(options.users):
            truth = generator.dirichlet(np.ones(len(bank.attributes)))
            mine = differences[generator.choice(len(differences), n, replace=False)]
            logits = scale * np.sqrt(len(truth)) * mine @ truth
            liked = generator.random(n) < 1 / (1 + np.exp(-logits))
            draws = draws_from_pairs(np.where(liked[:, None], mine, -mine))
            low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=0)
            errors.append(np.abs(draws.mean(axis=0) - truth).mean())
            inside.append(((low <= truth) & (truth <= high)).mean())
            blind.append(np.abs(1 / len(truth) - truth).mean())
        print(f"{n:5}  {np.mean(errors):24.3f}  {np.mean(blind):20.3f}  {np.mean(inside):20.1%}")


def answer_differences(bank: ModelBank, n_pairs: int, n_tokens: int) -> np.ndarray:
    """``log r_i`` of one answer of the reference less that of another, ``[pairs, attributes]``."""
    lines = (ROOT / "workflows" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    chats = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]
    prompts = bank.tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    asked = [prompts[i // 2 % len(prompts)] for i in range(2 * n_pairs)]
    settings = DecoderSettings(name="reference", max_new_tokens=n_tokens)
    requests = [Request(prompt, {}, seed=i) for i, prompt in enumerate(asked)]
    answers = [completion.token_ids for completion in decode(bank, requests, settings)]
    scored = component_log_probs(bank, list(zip(asked, answers, strict=True)))
    totals = np.stack([log_probs.sum(0).numpy() for _, log_probs in scored])
    ratios = totals[:, list(bank.layout.policy)] - totals[:, list(bank.layout.reference)]
    return ratios[::2] - ratios[1::2]


if __name__ == "__main__":
    main()
