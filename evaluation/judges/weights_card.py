"""The card beside a weights file: what it says of itself, read without the libraries that the weights need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1


class JudgeWeightsError(RuntimeError):
    """The weights and their card are missing, damaged or of another format."""


def card_path(path: Path) -> Path:
    """The card beside a weights file: same name, ``.json``."""
    return path.with_suffix(".json")


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_card(path: Path, card: Mapping[str, Any]) -> None:
    """Write the card of a weights file."""
    card_path(path).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")


def read_card(path: Path) -> dict[str, Any]:
    """The card of a weights file, which must be the file that it describes.

    Raises:
        JudgeWeightsError: a file is missing or can't be read, of another format, or fits its card not.
    """
    if not path.is_file() or not card_path(path).is_file():
        raise JudgeWeightsError(f"{path} or its card {card_path(path).name} is missing")
    try:
        card = json.loads(card_path(path).read_text("utf-8"))
        digest = sha256(path)
    except (OSError, ValueError) as error:
        raise JudgeWeightsError(f"{card_path(path)} can't be read ({' '.join(str(error).split())})") from error
    dimensions = card.get("dimensions") if isinstance(card, dict) else None
    whole = isinstance(dimensions, dict) and all(isinstance(each, dict) for each in dimensions.values())
    if not whole or card.get("format") != FORMAT or not isinstance(card.get("version"), str):
        raise JudgeWeightsError(f"{card_path(path)} is no card of a judge, or of another format")
    if card.get("sha256") != digest:
        raise JudgeWeightsError(f"{path} is not the file that its card describes (SHA-256 differs)")
    return dict(card)


def poles_of(card: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Dimension -> the pole whose probability is modelled, and the opposite one if it is asked for, too."""
    return {dimension: tuple(facts["poles"]) for dimension, facts in card["dimensions"].items()}
