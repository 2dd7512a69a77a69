"""What docs/method.md says of the embedded model with two shipped adapters: ``python -m benchmarks.method --measured``.

Every arm answers the same prompts with the same seeds. All texts are held against the same yardstick, whatever they
were drawn from: the untold reference and the untold adapters at strength 1, ``log r_i(y) = log pi_i(y) - log pi_0(y)``.
"""

from __future__ import annotations

import json
import math
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from evaluation.judges.classifier import ClassifierJudge
from evaluation.statistics.aggregate import clustered_mean
from evaluation.statistics.joint import joint_adherence, share
from evaluation.tables import aligned
from mpg import UNTOLD, Completion, DecoderSettings, ModelBank, Request, decode
from mpg.laws.bound import BOUND_FLOOR
from mpg.models.chat import encode_chat
from mpg.models.dtype import pick_dtype
from mpg.models.embedded import SMOLLM2
from personas import MBTI
from personas.telling import traits_in_words
from pipeline.job.model import shipped_adapters

PROMPTS = Path(__file__).parent.parent / "workflows" / "prompts.jsonl"
NAMES = ("E", "J")
WEIGHTS = dict.fromkeys(NAMES, 0.5)
CERTAIN = 0.9
CHUNKS = (1, 4, 8, 16, 48)
SCR_TEXTS = 16

_SUM, _MOD = DecoderSettings(temperature=0.8), DecoderSettings(name="mod", temperature=0.8)
# The reference's law, too: told nothing, it is `prompting` with the books of the attributes.
REFERENCE = DecoderSettings(name="prompting", temperature=0.8, token_log_ratios=True)
ARMS: Mapping[str, DecoderSettings] = {
    "reference": REFERENCE,
    **{f"sum, horizon {h or 'none'}": replace(_SUM, horizon=h) for h in (None, 16, 8, 4, 1)},
    **{f"product, strength {s}": replace(_MOD, strength=float(s)) for s in (1, 2)},
    "prompting": REFERENCE,
    "told + sum, horizon none": replace(_SUM, horizon=None, tell="reference"),
    "told + product, strength 2": replace(_MOD, strength=2.0, tell="reference"),
}


@dataclass(frozen=True)
class Text:
    """A text under the yardstick.

    Attributes:
        log_r: ``log r_i`` of each attribute, in nats.
        log_pi_0: under the untold reference; of ``n`` tokens.
    """

    text: str
    log_r: tuple[float, float]
    log_pi_0: float
    n: int
    completion: Completion

    @property
    def log_odds(self) -> float:
        """Of the first attribute having written it, against the second, at equal weights."""
        return self.log_r[0] - self.log_r[1]


def measure(n_texts: int, n_tokens: int) -> None:
    """Print both tables."""
    torch.set_num_threads(1)  # threads that wait for each other on a busy machine cost CPU time, and add nothing
    bank = ModelBank.load(
        SMOLLM2, {name: shipped_adapters()[name] for name in NAMES}, dtype=getattr(torch, pick_dtype("auto"))
    )
    questions = [json.loads(line)["prompt"] for line in PROMPTS.read_text("utf-8").splitlines()][:n_texts]
    print(f"{date.today()}, {platform.machine()}, 1 thread, cpu, torch {torch.__version__}, {pick_dtype('auto')}")
    print(f"{', '.join(NAMES)} at equal weights, {len(questions)} prompts, up to {n_tokens} tokens, ", end="")
    print("temperature 0.8, nothing truncated; intervals 95 %", flush=True)
    judge, lines, reference = ClassifierJudge.load(), [], []
    for name, settings in ARMS.items():
        told = name == "prompting" or settings.tell != "none"
        texts = written(bank, questions, replace(settings, max_new_tokens=n_tokens), told=told)
        reference = reference or texts
        lines.append([name, *line_of(texts, judge)])
        print(f"# {'  '.join(lines[-1])}", file=sys.stderr, flush=True)
    header = ["target", "one wrote it", "sd log odds", "both raised", "E", "J", "both judged", "perplexity"]
    print(aligned(header, lines))
    print()
    print(f"chunks of the reference's texts under the sum, weights equal at their beginning; M = {BOUND_FLOOR:g}")
    header = ["tokens", "chunks", "mean R", "sd log R", "largest R", "accepted", "mean (R - M)+", "1 - M accepted"]
    print(aligned(header, [chunk_line(reference, n) for n in CHUNKS if n <= n_tokens]))
    print()
    for how in (DecoderSettings(name="scr"), DecoderSettings(drafter="reference")):
        texts = written(bank, questions[:SCR_TEXTS], replace(how, temperature=0.8, max_new_tokens=n_tokens), told=False)
        print(books_of(how.name, [text.completion for text in texts]), flush=True)
    print(f"{time.process_time() / 60:.1f} CPU minutes")


def written(bank: ModelBank, questions: Sequence[str], settings: DecoderSettings, *, told: bool) -> list[Text]:
    """One text a question; the reference told of both attributes, or not."""
    system = traits_in_words(WEIGHTS, {name: MBTI[name].description for name in NAMES})
    requests = []
    for seed, question in enumerate(questions):
        chat = [{"role": "user", "content": question}]
        untold = encode_chat(bank.tokenizer, chat)
        mine = encode_chat(bank.tokenizer, [{"role": "system", "content": system}, *chat]) if told else untold
        prompts = dict.fromkeys((*NAMES, UNTOLD), untold) if told else {}
        requests.append(Request(mine, WEIGHTS, seed, prompts))
    found = []
    for done in decode(bank, requests, settings, batch_size=16):
        log_pi_0 = done.log_prob_reference if done.log_prob_untold is None else done.log_prob_untold
        # Of a told reference that no law divides by, ratios are to it, and are put right here.
        off = done.log_prob_reference - log_pi_0 if settings.facts.told else 0.0
        e, j = (done.log_ratios[name] + off for name in NAMES)
        text = bank.tokenizer.decode(done.token_ids, skip_special_tokens=True)
        found.append(Text(text, (e, j), log_pi_0, len(done.token_ids), done))
    return found


def line_of(texts: Sequence[Text], judge: ClassifierJudge) -> list[str]:
    """An arm's line of the first table."""
    prompts = range(len(texts))
    certain = math.log(CERTAIN / (1 - CERTAIN))
    scores = judge.score_many([each.text for each in texts], NAMES)
    by_text = [[scores[name][i].score for name in NAMES] for i in prompts]
    return [
        share([float(abs(each.log_odds) > certain) for each in texts], prompts).shown,
        f"{np.std([each.log_odds for each in texts]):.1f}",
        share([float(min(each.log_r) > 0) for each in texts], prompts).shown,
        *(clustered_mean([each[i] for each in by_text], prompts).shown for i in range(len(NAMES))),
        joint_adherence(by_text, prompts).shown,
        f"{math.exp(-sum(each.log_pi_0 for each in texts) / sum(each.n for each in texts)):.2f}",
    ]


def chunk_line(texts: Sequence[Text], length: int) -> list[str]:
    """What a bound of M would do to chunks of a length (a text's rest is left out).

    The lost mass stands there twice: as the mean of (R - M)+, whose tail few chunks show, and as 1 less the mean of
    min(R, M), which has no tail and is the same where the mean of R is 1.
    """
    ratios = []
    for each in texts:
        terms = each.completion.token_log_ratios or {}
        steps = np.array([terms[name] for name in NAMES])  # [attributes, tokens]
        for first in range(0, each.n - length + 1, length):
            ratios.append(float(np.mean(np.exp(steps[:, first : first + length].sum(1)))))
    r = np.array(ratios)
    return [
        f"{length}", f"{len(r)}", f"{r.mean():.2f}", f"{np.log(r).std():.2f}", f"{r.max():.1f}",
        f"{np.minimum(1, r / BOUND_FLOOR).mean():.2f}", f"{np.maximum(0, r - BOUND_FLOOR).mean():.2f}",
        f"{1 - np.minimum(BOUND_FLOOR, r).mean():.2f}",
    ]  # fmt: skip


def books_of(name: str, done: Sequence[Completion]) -> str:
    """What a decoder's texts cost."""
    tokens, chunks = (sum(count) for count in zip(*((len(c.token_ids), c.n_chunks) for c in done), strict=True))
    accepted = sum((c.acceptance_rate or 0) * c.n_chunks for c in done) / chunks
    what = "chunks" if name == "scr" else "tokens"
    said = f"{name}, horizon 8, drafts of the reference: {accepted:.2f} of the drafted {what} kept"
    if name != "scr":
        return said
    per_text = chunks / len(done)
    clipped, salvaged, fallbacks = (
        sum(getattr(c, field) for c in done) for field in ("n_clipped", "n_salvaged", "n_fallbacks")
    )
    return (
        f"{said};\n  {per_text:.1f} chunks of 8 drafted for a text of {tokens / len(done):.1f} tokens, "
        f"{clipped / chunks:.1%} clipped, "
        f"{salvaged / chunks:.1%} salvaged, {fallbacks / len(done):.1f} tokens a text drawn in their stead"
    )
