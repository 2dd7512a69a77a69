"""A second stage of training: the adapter's own best answers, by rejection sampling (RAFT, Dong et al. 2023).

An adapter by DPO carries its attribute and, with it, the style of the texts it was trained on: its answers are
less likely under the reference than the reference's own. Here it answers prompts itself, several times each; of
its answers those are kept that carry the attribute most *and* that the reference finds most likely, and the adapter
is trained on these a little further. What is learnt is what the reference could have said.

The kept answers are sampled at a temperature below 1, so the adapter grows a little sharper: part of what lowers
perplexity is that. No judge takes part in the choice.
"""

from __future__ import annotations

import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mpg.decoding.engine import decode
from mpg.decoding.seeding import derived_seed
from mpg.models.bank import ModelBank
from mpg.models.chat import encode_chat
from mpg.models.ends import answer_text
from mpg.models.hub import Place
from mpg.models.template import PLAIN, ChatStyle
from mpg.request import Request
from mpg.settings import DecoderSettings
from mpg.train.recipe import RefineRecipe
from mpg.train.save import put_in_place, save_adapter
from mpg.train.sft import sft_row, sft_trainer

Chat = Sequence[Mapping[str, str]]
# Shorter answers say too little of an attribute to be learnt from.
_LEAST_CHARACTERS = 60
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")


@dataclass(frozen=True)
class Answer:
    """One sampled answer and what it is chosen by.

    Attributes:
        prompt: index into the prompts.
        log_ratio: nats a token, of the attribute; less the opposite's, where there is one.
        log_prob: nats a token, under the reference.
    """

    prompt: int
    text: str
    log_ratio: float
    log_prob: float


def sample_answers(
    bank: ModelBank,
    prompts: Sequence[Chat],
    attribute: str,
    opposite: str | None,
    recipe: RefineRecipe,
    style: ChatStyle = PLAIN,
) -> list[Answer]:
    """The component's own answers at strength 1; those cut off by their length end at their last whole sentence."""
    settings = DecoderSettings(
        name="routing",
        horizon=None,
        max_new_tokens=recipe.max_new_tokens,
        temperature=recipe.temperature,
        top_p=recipe.top_p,
    )
    weights = {attribute: 1.0} | ({opposite: 0.0} if opposite is not None else {})  # 0: scored, never drawn from
    requests = []
    for i, chat in enumerate(prompts):
        ids = encode_chat(bank.tokenizer, chat, style=style)
        requests += [Request(ids, weights, derived_seed(recipe.seed, i, j)) for j in range(recipe.samples)]
    answers = []
    for index, done in enumerate(decode(bank, requests, settings, batch_size=64)):
        text = answer_text(bank.tokenizer, done.token_ids, bank.eos_ids)
        if done.finish_reason == "length":
            ends = [match.end() for match in _SENTENCE_END.finditer(text)]
            text = text[: ends[-1]] if ends else ""
        if len(text) >= _LEAST_CHARACTERS:
            n = len(done.token_ids)
            ratio = done.log_ratios[attribute] - (done.log_ratios[opposite] if opposite is not None else 0.0)
            answers.append(Answer(index // recipe.samples, text, ratio / n, done.log_prob_reference / n))
    return answers


def best_answers(answers: Sequence[Answer], recipe: RefineRecipe) -> list[Answer]:
    """Of each prompt the ``keep`` best by ``log_ratio + fluency * log_prob``, each in standard deviations.

    Raises:
        ValueError: fewer than two answers.
    """
    if len(answers) < 2:
        raise ValueError(f"answers: {len(answers)} of use; give more prompts or samples")
    spread_ratio = statistics.pstdev(a.log_ratio for a in answers) or 1.0
    spread_prob = statistics.pstdev(a.log_prob for a in answers) or 1.0

    def value(answer: Answer) -> float:
        return answer.log_ratio / spread_ratio + recipe.fluency * answer.log_prob / spread_prob

    kept: list[Answer] = []
    for prompt in dict.fromkeys(answer.prompt for answer in answers):
        mine = sorted((a for a in answers if a.prompt == prompt), key=value, reverse=True)
        kept += list({a.text: a for a in mine}.values())[: recipe.keep]
    return kept


def refine_adapter(
    adapter: str | Path,
    *,
    model_id: str,
    prompts: Sequence[Chat],
    answers: Sequence[Answer],
    recipe: RefineRecipe,
    output: str | Path,
    dtype: torch.dtype = torch.float32,
    style: ChatStyle = PLAIN,
) -> dict[str, Any]:
    """Train an adapter further on answers and write it without a card; returns what a card says of it.

    Args:
        adapter: PEFT folder to begin from; may be ``output`` itself.
        output: replaced whole when training has ended.
        style: what the chat template is told beside the messages.
    """
    tokenizer, model = _load(adapter, model_id, dtype)
    rows = [sft_row(tokenizer, prompts[answer.prompt], answer.text, style) for answer in answers]
    output = Path(output)
    scratch = output.parent / f".{output.name}.refining"
    trainer = sft_trainer(model, tokenizer, rows, recipe, scratch / "trainer", bf16=dtype == torch.bfloat16)
    trainer.train()
    if recipe.scale != 1.0:
        config = trainer.model.peft_config["default"]
        config.lora_alpha = round(config.lora_alpha * recipe.scale, 6)
    save_adapter(trainer.model, scratch / "adapter", model_id)
    for kept in output.glob("*.json") if output.is_dir() else ():
        if kept.name != "adapter_config.json":
            shutil.copy2(kept, scratch / "adapter" / kept.name)
    put_in_place(scratch, output)
    return asdict(recipe) | {"answers": len(answers)}


def _load(adapter: str | Path, model_id: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Tokenizer, and the adapter over its base: the adapter in float32, whatever the base is in."""
    from peft import PeftModel

    from mpg.models.pretrained import load_tokenizer, load_weights

    base = load_weights(Place(model_id), dtype)
    model = PeftModel.from_pretrained(base, str(adapter), is_trainable=True)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    return load_tokenizer(Place(model_id)), model
