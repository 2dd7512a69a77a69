"""Preference pairs: reading them and splitting them by question.

One split serves everything that learns from the pairs. The adapters (``mpg``) and the
classifier judge (``evaluation``) are fitted on ``train`` and measured on ``held_out``; a
question never stands on both sides, whatever poles and answers it came with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

# One pole of each MBTI dimension and its opposite.
OPPOSITE = {"E": "I", "I": "E", "S": "N", "N": "S", "T": "F", "F": "T", "J": "P", "P": "J"}
MBTI_FILE = "mbti_preferences.parquet"
HELD_OUT_PERCENT = 20


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one question; ``chosen`` speaks for the attribute, ``rejected`` against."""

    question: str
    chosen: str
    rejected: str

    def as_chat(self) -> list[dict[str, str]]:
        """The question as chat templates want it."""
        return [{"role": "user", "content": self.question}]


def is_held_out(question: str) -> bool:
    """Whether a question is kept from training: fixed by the question's own hash.

    Case and white space do not count, so near-identical questions fall on the same side.
    """
    key = " ".join(question.lower().split())
    return int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) % 100 < HELD_OUT_PERCENT


def load_mbti_pairs(folder: str | Path, pole: str) -> list[PreferencePair]:
    """All pairs that tell ``pole`` from its opposite, oriented so that ``chosen`` is ``pole``.

    Rows filed under the opposite pole are turned round: their ``rejected`` speaks for ``pole``.
    Duplicates and rows with equal sides are dropped.

    Raises:
        KeyError: ``pole`` is not one of E I S N T F J P.
        FileNotFoundError: the folder has no ``mbti_preferences.parquet``.
    """
    opposite = OPPOSITE[pole]
    table = pq.read_table(Path(folder) / MBTI_FILE, columns=["pole", "question", "chosen", "rejected"])
    pairs: dict[PreferencePair, None] = {}
    for row in table.to_pylist():
        question, chosen, rejected = (row[key].strip() for key in ("question", "chosen", "rejected"))
        if chosen == rejected or row["pole"] not in (pole, opposite):
            continue
        if row["pole"] == opposite:
            chosen, rejected = rejected, chosen
        pairs[PreferencePair(question, chosen, rejected)] = None
    return list(pairs)


def split(pairs: Iterable[PreferencePair]) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """(train, held_out), by question."""
    train: list[PreferencePair] = []
    held_out: list[PreferencePair] = []
    for pair in pairs:
        (held_out if is_held_out(pair.question) else train).append(pair)
    return train, held_out
