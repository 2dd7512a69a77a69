"""A judge model's answer: strictly read, or not at all. What can't be read never becomes a number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.endpoint.rubrics import FLUENCY, GRADES
from evaluation.scores import Score, Status
from personas.text import one_line, storable

_LONGEST_REASON = 300
# Braces of an answer at which an object is looked for: an answer of nothing but braces is none.
_MOST_TRIES = 1000
# What stands in an answer for a key that is given twice, with two values: nobody knows which is meant.
TWICE = "(given twice)"


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
    """Every outermost JSON object in a text, whatever stands around it; a key given twice holds :data:`TWICE`."""
    decoder, found, at = json.JSONDecoder(object_pairs_hook=_once), [], text.find("{")
    for _ in range(_MOST_TRIES):
        if at < 0:
            break
        try:
            value, end = decoder.raw_decode(text, at)
        except RecursionError:  # nested without end: what it holds further inside is no answer either
            break
        except ValueError:  # no JSON, or a number of thousands of digits
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        found[key] = TWICE if key in found and found[key] != value else value
    return found


def _shown(value: object) -> str:
    return one_line(repr(value))[:120]


def _grade(value: object) -> Grade:
    if not isinstance(value, dict):
        raise AnswerError("no grade of it in the answer" if value is None else f"{_shown(value)} is no grade")
    reason = value.get("reason", "")
    if not isinstance(reason, str):
        raise AnswerError(f"reason {_shown(reason)} is no text")
    return Grade(
        _number(value.get("attribute"), "attribute"),
        _number(value.get("opposite"), "opposite"),
        storable(reason[:_LONGEST_REASON]),
    )


def _number(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in GRADES:
        raise AnswerError(f"{name}: {_shown(value)} is no whole grade from {GRADES[0]} to {GRADES[-1]}")
    return value
