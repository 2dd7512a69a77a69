"""Questionnaires put to any decoder: what type does it answer like, and how many answers could not be read?

The decoder is handed in as a function, so that nothing here knows of models. Items come from the files published
with MPG (60 yes/no, 93 with two options) or from this project (:mod:`evaluation.questionnaires.items`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.questionnaires.items import ITEMS
from personas.preferences import OPPOSITE

# First pole of each dimension: shares are of it.
DIMENSIONS = {"E": "E/I", "I": "E/I", "S": "S/N", "N": "S/N", "T": "T/F", "F": "T/F", "J": "J/P", "P": "J/P"}
# Questions -> answers in words, in their order.
Answer = Callable[[Sequence[str]], Sequence[str]]
# Questions and their options' texts -> log-probability of each option as the answer, in nats.
Score = Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[Sequence[float]]]


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


@dataclass(frozen=True)
class Result:
    """A decoder's answers.

    Attributes:
        shares: dimension -> share of readable answers that speak for its first pole (E, S, T, J); ``None``: none.
        accuracy: dimension -> share that speaks for the wanted pole; of the dimensions that want one.
        type_right: whether the majority is the wanted pole in every one of them.
        absolute_error: mean over them of \\|share - wanted share\\|.
        n, n_unreadable: items, and those whose answer could not be read.
    """

    shares: Mapping[str, float | None]
    accuracy: Mapping[str, float | None]
    type_right: bool | None
    absolute_error: float | None
    n: int
    n_unreadable: int


def ask(questions: Sequence[Question], answer: Answer) -> list[str | None]:
    """Put every question in words; which of its answers each text gives."""
    texts = answer([asked(question) for question in questions])
    return [read(question, text) for question, text in zip(questions, texts, strict=True)]


def choose(questions: Sequence[Question], score: Score) -> list[str | None]:
    """By log-probability: the option that the decoder finds most likely; a tie or a NaN is unreadable."""
    options = [list(question.poles) for question in questions]
    chosen: list[str | None] = []
    for names, values in zip(options, score([asked(q) for q in questions], options), strict=True):
        best = max(values)
        clear = all(map(math.isfinite, values)) and sum(value == best for value in values) == 1
        chosen.append(names[list(values).index(best)] if clear else None)
    return chosen


def result(questions: Sequence[Question], choices: Sequence[str | None], wanted: Mapping[str, float]) -> Result:
    """Sum up answers.

    Args:
        wanted: pole -> weight 0..1, one pole a dimension at most; ``{"E": 1, "N": 0.7}``.

    Raises:
        ValueError: both poles of a dimension are wanted.
    """
    wanted_of = {DIMENSIONS[pole]: (pole, weight) for pole, weight in wanted.items()}
    if len(wanted_of) < len(wanted):
        raise ValueError(f"wanted: {', '.join(wanted)} names both poles of a dimension; name one")
    votes: dict[str, list[str]] = {dimension: [] for dimension in dict.fromkeys(DIMENSIONS.values())}
    for question, choice in zip(questions, choices, strict=True):
        if choice is not None:
            pole = question.poles[choice]
            votes[DIMENSIONS[pole]].append(pole)
    shares = {d: (sum(v == d[0] for v in poles) / len(poles) if poles else None) for d, poles in votes.items()}
    accuracy: dict[str, float | None] = {}
    errors = []
    for dimension, (pole, weight) in wanted_of.items():
        share = shares[dimension]
        mine = None if share is None else share if pole == dimension[0] else 1 - share
        accuracy[dimension] = mine
        if mine is not None:
            errors.append(abs(mine - weight))
    known = [value for value in accuracy.values() if value is not None]
    return Result(
        shares=shares,
        accuracy=accuracy,
        type_right=all(value > 0.5 for value in known) if known and len(known) == len(accuracy) else None,
        absolute_error=math.fsum(errors) / len(errors) if errors else None,
        n=len(questions),
        n_unreadable=sum(choice is None for choice in choices),
    )
