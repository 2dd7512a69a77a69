"""Questions put to any decoder: what type does it answer like, and how many answers could not be read?

The decoder is handed in as a function, so that nothing here knows of models.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evaluation.questionnaires.questions import DIMENSIONS, Question, asked, read
from personas import Persona
from personas.attributes import MBTI

# Questions -> answers in words, in their order.
Writer = Callable[[Sequence[str]], Sequence[str]]
# Questions and their options' texts -> log-probability of each option as the answer, in nats.
Scorer = Callable[[Sequence[str], Sequence[Sequence[str]]], Sequence[Sequence[float]]]


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


def ask(questions: Sequence[Question], answer: Writer) -> list[str | None]:
    """Put every question in words; which of its answers each text gives."""
    texts = answer([asked(question) for question in questions])
    return [read(question, text) for question, text in zip(questions, texts, strict=True)]


def choose(questions: Sequence[Question], score: Scorer) -> list[str | None]:
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
    shares = _shares(questions, choices)
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


def wanted_of(persona: Persona) -> dict[str, float]:
    """Pole -> wanted share of answers: of each dimension the pole with more weight, by the weights of the two.

    ``{E: 0.5, J: 0.5}`` wants only E's and J's answers; ``{E: 0.6, I: 0.2, J: 0.2}`` three quarters of E's.
    """
    weights = {name: weight for name, weight in persona.active.items() if name in MBTI}
    wanted = {}
    for first, second in {(d[0], d[-1]): None for d in DIMENSIONS.values()}:
        total = weights.get(first, 0.0) + weights.get(second, 0.0)
        if total > 0:
            pole = first if weights.get(first, 0.0) >= weights.get(second, 0.0) else second
            wanted[pole] = weights[pole] / total
    return wanted


def _shares(questions: Sequence[Question], choices: Sequence[str | None]) -> dict[str, float | None]:
    """Dimension -> share of its readable answers that speak for its first pole; ``None``: none is readable."""
    votes: dict[str, list[str]] = {dimension: [] for dimension in dict.fromkeys(DIMENSIONS.values())}
    for question, choice in zip(questions, choices, strict=True):
        if choice is not None:
            pole = question.poles[choice]
            votes[DIMENSIONS[pole]].append(pole)
    return {d: (sum(v == d[0] for v in poles) / len(poles) if poles else None) for d, poles in votes.items()}
