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

from personas.attributes import ROLE_PLAY
from personas.profiles import ROLE_PLAY_QUESTION, render, with_system

# One pole of each MBTI dimension and its opposite.
OPPOSITE = {"E": "I", "I": "E", "S": "N", "N": "S", "T": "F", "F": "T", "J": "P", "P": "J"}
MBTI_FILE = "mbti_preferences.parquet"
ROLE_PLAY_FILE = "roleplay_preferences.parquet"
# Of the prompts that the published role-play answers were made with.
_LABELS = ("User Message:", "Personalities:", "Response:")
_TYPOGRAPHY = str.maketrans({'"': "", "“": "", "”": "", "‘": "'", "’": "'", "—": "-", "–": "-"})
HELD_OUT_PERCENT = 20


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one question; ``chosen`` speaks for the attribute, ``rejected`` against."""

    question: str
    chosen: str
    rejected: str
    system: str = ""

    def as_chat(self) -> list[dict[str, str]]:
        """The question, and what comes before it, as chat templates want it."""
        chat = [{"role": "user", "content": self.question}]
        return with_system(chat, self.system) if self.system else chat


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
        (held_out if is_held_out(f"{pair.system} {pair.question}") else train).append(pair)
    return train, held_out


def load_role_play_pairs(folder: str | Path, attribute: str) -> list[PreferencePair]:
    """All pairs of ``profile`` or ``personality``, under the system message that their adapter reads.

    The published answers differ in more than what they say: most of ``rejected`` begin with a quotation mark or
    with ``User Message:``, and only they have curly quotes and long dashes. A preference model would learn that
    first, so it is taken away (see :func:`plain`). Pairs that are equal then, empty, or still hold a part of the
    prompt that they were made with are dropped.

    Raises:
        KeyError: another attribute.
        FileNotFoundError: the folder has no ``roleplay_preferences.parquet``.
    """
    template = ROLE_PLAY[attribute].system
    assert template is not None
    pairs: dict[PreferencePair, None] = {}
    for row in pq.read_table(Path(folder) / ROLE_PLAY_FILE).to_pylist():
        chosen, rejected = plain(row["chosen"]), plain(row["rejected"])
        leftover = any(label in answer for label in _LABELS for answer in (chosen, rejected))
        if row["attribute"] == attribute and chosen and rejected and chosen != rejected and not leftover:
            system = render(template, {"profile": row["profile"].strip(), "personality": row["personality"].strip()})
            pairs[PreferencePair(ROLE_PLAY_QUESTION, chosen, rejected, system)] = None
    return list(pairs)


def plain(answer: str) -> str:
    """An answer without the marks of how it was made: labels, quotation marks, long dashes."""
    text = " ".join(answer.translate(_TYPOGRAPHY).split()).replace(" - ", "-")
    before, label, after = text.partition("User Message:")
    if label:
        question, label, response = after.partition("Response:")
        text = before + (response if label else question)
    return text.strip()
