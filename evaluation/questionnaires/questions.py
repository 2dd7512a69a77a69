"""Questionnaires: their items, how each is put in words, and how an answer in words is read.

Items come from the files published with MPG (60 yes/no, 93 with two options) or from this project
(:mod:`evaluation.questionnaires.own_items`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evaluation.questionnaires.own_items import ITEMS
from personas.preferences import OPPOSITE

# First pole of each dimension: shares are of it.
DIMENSIONS = {"E": "E/I", "I": "E/I", "S": "S/N", "N": "S/N", "T": "T/F", "F": "T/F", "J": "J/P", "P": "J/P"}


# Beside a file's place, the name of the project's own items.
OWN = "own"
# Of an answer in words: it begins with its yes, no, A or B; the reasons after it are not read.
ANSWER_TOKENS = 24


class QuestionnaireError(ValueError):
    """A questionnaire that can't be read; one line with file, item and remedy."""


@dataclass(frozen=True)
class Question:
    """One item: what is asked, and the pole that each answer speaks for."""

    key: str
    text: str
    poles: Mapping[str, str]  # answer (`yes`, `no`, `A`, `B`) -> pole

    @property
    def dimension(self) -> str:
        return DIMENSIONS[next(iter(self.poles.values()))]


def own_items() -> list[Question]:
    """The project's sixty."""
    return [_yes_no(f"own:{i}", text, pole) for i, (pole, text) in enumerate(ITEMS, start=1)]


def items_of(source: str | Path) -> list[Question]:
    """The project's own, or a file's. Raises QuestionnaireError: see :func:`load_questionnaire`."""
    return own_items() if str(source) == OWN else load_questionnaire(source)


def load_questionnaire(path: str | Path) -> list[Question]:
    """Items of a file: ``{key: {rewritten_en, category}}`` (yes/no) or ``{key: {question, A, B}}``.

    Raises:
        QuestionnaireError: no such file, not JSON, or the first item that is of neither form.
    """
    path = Path(path)
    try:
        entries = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise QuestionnaireError(f"{path}: can't be read ({error}); give a JSON file") from error
    if not isinstance(entries, dict) or not entries:
        raise QuestionnaireError(f"{path}: holds no items; write {{key: {{question, A, B}}}}")
    questions = []
    for key, entry in entries.items():
        try:
            if "category" in entry:
                questions.append(_yes_no(key, entry["rewritten_en"], entry["category"]))
            else:
                text = entry["question"].replace("\\n", "\n")
                poles = {letter: entry[letter] for letter in "AB"}
                if any(pole not in OPPOSITE for pole in poles.values()):
                    raise KeyError(f"pole {poles}")
                questions.append(Question(key, text, poles))
        except (KeyError, TypeError, AttributeError) as error:
            raise QuestionnaireError(
                f"{path}: item {key}: {error} is missing or wrong; see the module's form"
            ) from error
    return questions


def _yes_no(key: str, text: str, pole: str) -> Question:
    return Question(key, text, {"yes": pole, "no": OPPOSITE[pole]})


def asked(question: Question) -> str:
    """The question as it is put: with the answers to choose from."""
    if "yes" in question.poles:
        return f"{question.text} Answer yes or no, then say why."
    return f"{question.text}\nAnswer with the letter A or B, then say why."


def read(question: Question, answer: str) -> str | None:
    """Which of its answers a text gives; ``None`` where it gives none, or both."""
    if "yes" in question.poles:
        found = re.search(r"\b(yes|no|yeah|nope|absolutely not|absolutely|definitely not|definitely)\b", answer.lower())
        word = found.group(1) if found else None
        return None if word is None else "yes" if word in ("yes", "yeah", "absolutely", "definitely") else "no"
    # The letter as a word of its own: `A`, `(A)`, `A.`, `option B`; a lone `A` that begins a sentence is an article.
    letters = set(re.findall(r"(?:^|[\s(\"'*])([AB])(?=[\s]*(?:[.):,\"'*]|$))", answer.strip()))
    return letters.pop() if len(letters) == 1 else None
