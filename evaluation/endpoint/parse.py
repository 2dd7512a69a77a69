"""A judge model's answer: strictly read, or not at all. What can't be read never becomes a number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.endpoint.rubrics import FLUENCY, GRADES
from evaluation.scores import Score, Status

_LONGEST_REASON = 300


@dataclass(frozen=True)
class Grade:
    """One attribute's grades, 1..5, and why."""

    attribute: int
    opposite: int
    reason: str

    @property
    def score(self) -> float:
        """``(g - 1)/4`` of the attribute and ``1 - (o - 1)/4`` of its opposite, averaged."""
        return ((self.attribute - 1) / 4 + 1 - (self.opposite - 1) / 4) / 2


class AnswerError(ValueError):
    """An answer that is not in the agreed form; the message says what is wrong with it."""


def parse_answer(text: str, attributes: Sequence[str]) -> dict[str, Score]:
    """Scores of the attributes and of :data:`~evaluation.endpoint.rubrics.FLUENCY`, each read for itself.

    Raises:
        AnswerError: the text does not hold exactly one JSON object with ``grades``.
    """
    found = [value for value in json_objects(text) if isinstance(value.get("grades"), dict)]
    if len(found) != 1:
        raise AnswerError(f"{len(found)} JSON objects with grades, not one, in {text[:120]!r}")
    (answer,) = found
    scores = {}
    for name in attributes:
        try:
            grade = _grade(answer["grades"].get(name))
            scores[name] = Score(grade.score, Status.OK, grade.reason or None)
        except AnswerError as error:
            scores[name] = Score(None, Status.PARSE_ERROR, str(error))
    try:
        scores[FLUENCY] = Score((_number(answer.get(FLUENCY), FLUENCY) - 1) / 4, Status.OK)
    except AnswerError as error:
        scores[FLUENCY] = Score(None, Status.PARSE_ERROR, str(error))
    return scores


def json_objects(text: str) -> list[dict[str, Any]]:
    """Every outermost JSON object in a text, whatever stands around it."""
    decoder, found, at = json.JSONDecoder(), [], text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (json.JSONDecodeError, RecursionError):
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def _grade(value: object) -> Grade:
    if not isinstance(value, dict):
        raise AnswerError("no grade of it in the answer" if value is None else f"{value!r} is no grade")
    reason = value.get("reason", "")
    if not isinstance(reason, str):
        raise AnswerError(f"reason {reason!r} is no text")
    return Grade(
        _number(value.get("attribute"), "attribute"),
        _number(value.get("opposite"), "opposite"),
        reason[:_LONGEST_REASON],
    )


def _number(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in GRADES:
        raise AnswerError(f"{name}: {value!r} is no whole grade from {GRADES[0]} to {GRADES[-1]}")
    return value
