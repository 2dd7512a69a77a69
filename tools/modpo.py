"""MODPO's models of MBTI types, for ``mpg compare``: ``python -m tools.modpo --data ../shared/data --types ENTJ ESTP``.

One model a type, trained on the pairs of its first pole with the shipped adapters of the other three in the margin
(:mod:`mpg.train.modpo`), all at weight 1/4, by the recipe of that pole's own adapter. They are as large as the shipped
ones, and serve one weight vector each: they are not shipped.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpg.models.embedded import SMOLLM2
from personas import mbti_type
from pipeline.job.model import SHIPPED_ADAPTERS
from tools.shipped_adapters import pairs_of, recipe_of
from tools.type_models import about, options_of, train_all

OUTPUT = Path("out/modpo")


def train(code: str, data: Path, output: Path, dtype: str = "float32") -> dict[str, Any]:
    """Train the model of a type into ``output``; its card.

    Args:
        dtype: of the frozen base weights.

    Raises:
        ValueError: no MBTI type. TrainError: as :func:`mpg.train.dpo.train_adapter`.
    """
    import torch

    from mpg.train.dpo import train_adapter

    weights = mbti_type(code).weights
    first, *others = weights
    train_pairs, held_out = pairs_of(first, data)
    return train_adapter(
        **about(code, data),
        model_id=SMOLLM2,
        train_pairs=train_pairs,
        held_out_pairs=held_out,
        output=output,
        recipe=recipe_of(first),
        others={pole: (str(SHIPPED_ADAPTERS / pole), weights[pole]) for pole in others},
        dtype=getattr(torch, dtype),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not there yet, and say how long each took."""
    parser = argparse.ArgumentParser(prog="python -m tools.modpo", description=__doc__)
    options = options_of(parser, argv, OUTPUT, ["ENTJ", "ESTP", "INFJ", "ISFP"])
    return train_all(
        options,
        lambda code, folder: train(code, options.data, folder, options.dtype),
        lambda card: f"held out: {json.dumps(card['held_out'])}",
    )


if __name__ == "__main__":
    raise SystemExit(main())
