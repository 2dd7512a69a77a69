"""What an adapter loses that leaves the lower layers, or the prompt, alone.

    python -m tools.adapter_layers --data ../shared/data

Trains attributes by the first stage of :mod:`tools.shipped_adapters` (DPO) over several choices of layers, measures
each on held-out pairs, writes texts with each alone at several strengths, and prints the table of docs/adapters.md.
What lies in ``--output`` already is not made again.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from mpg.train.recipe import Recipe, adapted_layers
from personas import MBTI
from tools.adapter_curves import write_curves
from tools.shipped_adapters import CARD_FILE, train

N_LAYERS = 30  # of the embedded model
# An adapter has as many parameters at any height: a rank of 4 over all layers, of 8 over a half or less.
VARIANTS = {"all": Recipe()} | {
    name: Recipe(layers=name.split(",")[0], rank=8, lora_alpha=16, from_answer="answer" in name, learning_rate=rate)
    for name, rate in (
        ("top:1/2", 7e-4),
        ("top:1/3", 7e-4),
        ("top:1/5", 7e-4),
        ("top:1/3, from the answer", 7e-4),
        ("top:1/3, from the answer, rate .0014", 1.4e-3),
        ("top:1/4, from the answer, rate .0018", 1.8e-3),
        ("top:1/5, from the answer, rate .0025", 2.5e-3),
    )
}
_AT_ONCE = 4  # adapters beside each other, of which the table counts the lanes


def lanes_of(recipe: Recipe, n_adapters: int) -> Fraction:
    """Passes through all layers that a token takes with some adapters at once, the reference included."""
    adapted = adapted_layers(recipe.layers, N_LAYERS)
    above = N_LAYERS if adapted is None else N_LAYERS - adapted[0]
    return 1 + Fraction(above * n_adapters, N_LAYERS)


def folder_of(variant: str) -> str:
    return re.sub("[^a-z0-9.]+", "-", variant)


def row_of(variant: str, card: dict[str, Any]) -> str:
    """A line of the table."""
    recipe, held_out = VARIANTS[variant], card["held_out"]
    answer, prompt = lanes_of(recipe, _AT_ONCE), 1 if recipe.from_answer else lanes_of(recipe, _AT_ONCE)
    cells = [f"{card['name']}, {variant}", f"{held_out['accuracy']:.3f}", f"{held_out['mean_margin']:.1f}"]
    cells += [f"{held_out['kl_per_token']:.3f}", f"{held_out['acceptance_per_token']:.2f}"]
    cells.append(f"{float(answer):.2f} / {float(prompt):.2f}")
    cells += [f"{point['adherence']:.2f} / {point['perplexity']:.2f}" for point in card["curve"]]
    return f"| {' | '.join(cells)} |"


def main(argv: Sequence[str] | None = None) -> int:
    """Make what is lacking, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tools.adapter_layers", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with the preference pairs")
    parser.add_argument("--output", type=Path, default=Path("out/adapter-layers"))
    parser.add_argument("--only", nargs="*", default=["E", "J"], choices=list(MBTI), help="attributes")
    parser.add_argument("--variants", nargs="*", default=list(VARIANTS), choices=list(VARIANTS), help="layers")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines = []
    for variant in options.variants:
        folder = options.output / folder_of(variant)
        for name in options.only:
            if not (folder / name / CARD_FILE).is_file():
                train(name, options.data, folder, VARIANTS[variant])
        cards = [folder / name / CARD_FILE for name in options.only]
        if not all("curve" in json.loads(card.read_text("utf-8")) for card in cards):
            write_curves(folder, options.only, output=folder / "curves")
        lines += [row_of(variant, json.loads(card.read_text("utf-8"))) for card in cards]
    strengths = [f"{point['strength']:g}" for point in json.loads(cards[0].read_text("utf-8"))["curve"]]
    head = [
        "adapter",
        "accuracy",
        "margin",
        "KL a token",
        "accepted",
        f"lanes of {_AT_ONCE} (answer / prompt)",
        *strengths,
    ]
    print("\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
