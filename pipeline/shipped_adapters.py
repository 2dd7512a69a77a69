"""Train the adapters that the project ships: ``python -m pipeline.shipped_adapters --data ../shared/data``."""

from __future__ import annotations

import argparse
import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

from mpg.embedded import SMOLLM2
from mpg.train import Recipe, train_adapter
from personas import MBTI
from personas.preferences import MBTI_FILE, load_mbti_pairs, split
from pipeline.job import SHIPPED_ADAPTERS

# The poles that ship, with the held-out reward accuracy each must reach.
FLOORS = {"E": 0.85, "I": 0.85, "S": 0.78, "N": 0.78, "T": 0.78, "F": 0.78, "J": 0.85, "P": 0.85}
_SOURCE = (
    "PKU-YuanGroup/Machine-Mindset (Apache-2.0), English pairs, those of S/N and T/F as selected by Libra117/MPG; "
    "questions split by hash, 80 % to train on"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Train each adapter and print its held-out figures; exit status 1 where one misses its floor."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.shipped_adapters", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {MBTI_FILE}")
    parser.add_argument("--output", type=Path, default=SHIPPED_ADAPTERS, help="folder to write adapters to")
    parser.add_argument("--only", nargs="*", default=list(FLOORS), choices=list(FLOORS), help="poles to train")
    options = parser.parse_args(argv)
    source = options.data / MBTI_FILE
    if not source.is_file():
        parser.error(f"--data {options.data}: no {MBTI_FILE} there; give the folder that holds it")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    missed = []
    print("pole  pairs  held-out  accuracy  floor  margin  log-likelihood of chosen (reference -> adapter)")
    for pole in options.only:
        train, held_out = split(load_mbti_pairs(options.data, pole))
        card = train_adapter(
            name=pole,
            description=MBTI[pole].description,
            model_id=SMOLLM2,
            train_pairs=train,
            held_out_pairs=held_out,
            data={"file": MBTI_FILE, "sha256": digest, "source": _SOURCE},
            output=options.output / pole,
            recipe=Recipe(),
        )
        report = card["held_out"]
        print(
            f"{pole:4}  {card['recipe']['train_pairs']:5}  {report['n_pairs']:8}  {report['accuracy']:8.3f}  "
            f"{FLOORS[pole]:5.2f}  {report['mean_margin']:6.1f}  "
            f"{report['chosen_log_likelihood_reference']:.1f} -> {report['chosen_log_likelihood']:.1f}",
            flush=True,
        )
        if report["accuracy"] < FLOORS[pole]:
            missed.append(pole)
    if missed:
        print(f"below the floor: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
