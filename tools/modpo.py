"""MODPO's models of MBTI types, for ``mpg compare``: ``python -m tools.modpo --data ../shared/data --types ENTJ ESTP``.

One model a type, trained on the pairs of its first pole with the shipped adapters of the other three in the margin
(:mod:`mpg.train.modpo`), all at weight 1/4, by the recipe of that pole's own adapter. They are as large as the shipped
ones, and serve one weight vector each: they are not shipped.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mpg.models.embedded import SMOLLM2
from personas import KNOWN, mbti_type
from personas.preferences import MBTI_FILE
from pipeline.job.model import SHIPPED_ADAPTERS
from tools.shipped_adapters import CARD_FILE, LICENCES, pairs_of, provenance, recipe_of

OUTPUT = Path("out/modpo")
logger = logging.getLogger(__name__)


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
        name=code,
        description=" ".join(KNOWN[pole].description for pole in weights),
        model_id=SMOLLM2,
        train_pairs=train_pairs,
        held_out_pairs=held_out,
        data=provenance(MBTI_FILE, data),
        license=LICENCES[MBTI_FILE],
        output=output,
        recipe=recipe_of(first),
        others={pole: (str(SHIPPED_ADAPTERS / pole), weights[pole]) for pole in others},
        dtype=getattr(torch, dtype),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Train what is not there yet, and say how long each took."""
    parser = argparse.ArgumentParser(prog="python -m tools.modpo", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {MBTI_FILE}")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of the models")
    parser.add_argument("--types", nargs="*", default=["ENTJ", "ESTP", "INFJ", "ISFP"], metavar="TYPE")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="of the base weights (float32: the faster one where bfloat16 is emulated)")  # fmt: skip
    options = parser.parse_args(argv)
    if not (options.data / MBTI_FILE).is_file():
        parser.error(f"--data {options.data}: no {MBTI_FILE} there; give the folder that holds it")
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    for code in options.types:
        folder = options.output / code
        if not (folder / CARD_FILE).is_file():
            wall, work = time.perf_counter(), time.process_time()
            card = train(code, options.data, folder, options.dtype)
            wall, work = time.perf_counter() - wall, time.process_time() - work
            print(f"{code}: {wall:.0f} s, {work:.0f} s of processor time; held out: {json.dumps(card['held_out'])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
