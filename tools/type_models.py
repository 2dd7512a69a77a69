"""What the commands that train one model an MBTI type have in common (MODPO's, MORLHF's)."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from personas import KNOWN, mbti_type
from personas.preferences import MBTI_FILE
from tools.shipped_adapters import CARD_FILE, LICENCES, provenance

Card = dict[str, Any]


def options_of(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None, output: Path, types: Sequence[str]
) -> argparse.Namespace:
    """A command's options with those that all have, checked; a refusal ends the process with status 2.

    Args:
        parser: with the command's own.
        output, types: by default.
    """
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {MBTI_FILE}")
    parser.add_argument("--output", type=Path, default=output, help="folder of the models")
    parser.add_argument("--types", nargs="+", default=list(types), metavar="TYPE")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="of the base weights (float32: the faster one where bfloat16 is emulated)")  # fmt: skip
    options = parser.parse_args(argv)
    if not (options.data / MBTI_FILE).is_file():
        parser.error(f"--data {options.data}: no {MBTI_FILE} there; give the folder that holds it")
    for code in options.types:
        try:
            mbti_type(code)
        except ValueError as error:
            parser.error(f"--types {error}")
    return options


def about(code: str, data: Path) -> dict[str, Any]:
    """What a type's card says of it, as the trainings take it."""
    return {
        "name": code,
        "description": " ".join(KNOWN[pole].description for pole in mbti_type(code).weights),
        "data": provenance(MBTI_FILE, data),
        "license": LICENCES[MBTI_FILE],
    }


def train_all(options: argparse.Namespace, train: Callable[[str, Path], Card], found: Callable[[Card], str]) -> int:
    """Train what is not there yet, and say how long each took, of the clock and of processors; the exit status.

    A model is there when its card is: the folder is put in its place whole.

    Args:
        train: type, folder to write -> the card.
        found: what is said of a card.
    """
    from mpg.train.begin import TrainError

    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    for code in options.types:
        folder = options.output / code
        if (folder / CARD_FILE).is_file():
            continue
        wall, work = time.perf_counter(), time.process_time()
        try:
            card = train(code, folder)
        except TrainError as error:
            print(error)
            return 2
        wall, work = time.perf_counter() - wall, time.process_time() - work
        print(f"{code}: {wall:.0f} s, {work:.0f} s of processor time; {found(card)}")
    return 0
