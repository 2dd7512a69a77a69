"""MORLHF's models of MBTI types, for ``mpg compare``: ``python -m tools.morlhf --data ../shared/data --types ESTP``.

One model a type, by reinforcement learning (TRL's RLOO) on the sum of its four poles' implicit rewards, each at weight
1/4 (:mod:`mpg.train.morlhf`), on the questions that the shipped adapters' pairs are trained on. It changes the layers
that the poles' adapters change, and serves one weight vector: it is not shipped. A step writes and scores
``--prompts-a-step`` times ``--samples`` texts; a training is hours of a processor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from mpg.models.embedded import SMOLLM2
from mpg.train.recipe import MorlhfRecipe
from personas import mbti_type
from pipeline.job.model import SHIPPED_ADAPTERS
from tools.shipped_adapters import CARD_FILE, pairs_of, recipe_of
from tools.type_models import about, options_of, train_all

OUTPUT = Path("out/morlhf")
# Questions of the comparison's tasks, in the same folder: none of them is trained on.
ASKED, COLUMN = "mbti_qa_*.json", "instruction"
_DEFAULT = MorlhfRecipe()
_OPTIONS = {  # option -> (field of the recipe, what it is)
    "--steps": ("steps", "optimizer steps"),
    "--prompts-a-step": ("prompts", "questions that a step answers"),
    "--samples": ("samples", "answers to each, two at least"),
    "--max-new-tokens": ("max_new_tokens", "of an answer"),
    "--learning-rate": ("learning_rate", "peak, with a cosine schedule"),
    "--beta": ("beta", "of the KL to the reference; the adapters' own aims at their product at strength 1, half at 2"),
    "--seed": ("seed", "of the order of the questions and of the answers"),
}


def questions_of(code: str, data: Path) -> list[str]:
    """That the pairs of a type's poles are trained on, each once: none that is held out, none of the comparison's."""
    asked = {_key(row[COLUMN]) for file in sorted(data.glob(ASKED)) for row in json.loads(file.read_text("utf-8"))}
    questions = [pair.question for pole in mbti_type(code).weights for pair in pairs_of(pole, data)[0]]
    return [question for question in dict.fromkeys(questions) if _key(question) not in asked]


def _key(question: str) -> str:
    return " ".join(question.lower().split())


def recipe_for(code: str, **given: Any) -> MorlhfRecipe:
    """Rank and size of the shipped adapters; of the layers those of the pole whose adapter changes most."""
    widest = max((recipe_of(pole) for pole in mbti_type(code).weights), key=lambda each: Fraction(each.layers[4:]))
    like = {field: getattr(widest, field) for field in ("rank", "lora_alpha", "layers", "from_answer")}
    return MorlhfRecipe(**like, **given)


def train(code: str, data: Path, output: Path, dtype: str = "float32", **given: Any) -> dict[str, Any]:
    """Train the model of a type into ``output``; its card.

    Args:
        dtype: of the frozen base weights.
        given: fields of the recipe.

    Raises:
        ValueError: no MBTI type. TrainError: as :func:`mpg.train.morlhf.train_morlhf`.
    """
    import torch

    from mpg.train.morlhf import Reward, train_morlhf

    rewards = {}
    for pole, weight in mbti_type(code).weights.items():
        card = json.loads((SHIPPED_ADAPTERS / pole / CARD_FILE).read_text("utf-8"))
        rewards[pole] = Reward(str(SHIPPED_ADAPTERS / pole), weight, card["recipe"]["beta"])
    return train_morlhf(
        **about(code, data),
        model_id=SMOLLM2,
        prompts=[[{"role": "user", "content": question}] for question in questions_of(code, data)],
        rewards=rewards,
        output=output,
        recipe=recipe_for(code, **given),
        dtype=getattr(torch, dtype),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not there yet, and say how long each took and what it came to."""
    parser = argparse.ArgumentParser(prog="python -m tools.morlhf", description=__doc__)
    for option, (field, said) in _OPTIONS.items():
        default = getattr(_DEFAULT, field)
        parser.add_argument(option, type=type(default), default=default, dest=field, help=f"{said} ({default:g})")
    options = options_of(parser, argv, OUTPUT, ["ESTP", "INFJ"])
    given = {field: getattr(options, field) for field, _ in _OPTIONS.values()}
    try:
        MorlhfRecipe(**given)
    except ValueError as error:
        parser.error(str(error))
    return train_all(
        options,
        lambda code, folder: train(code, options.data, folder, options.dtype, **given),
        lambda card: f"{card['texts']} texts; first and last: {json.dumps([card['curve'][0], card['curve'][-1]])}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
