"""A score exists exactly when judging went well."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.scores import Score, Status


@pytest.mark.parametrize("value", [0, 0.0, 0.5, 1.0, 1])
def test_a_scored_text(value: float) -> None:
    assert Score(value, Status.OK, "why").score == value


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.OK])
def test_an_unscored_text(status: Status) -> None:
    assert Score(None, status).score is None
    with pytest.raises(ValueError, match="together"):
        Score(0.5, status)


@pytest.mark.parametrize("value", [None, -0.01, 1.01, float("nan"), float("inf")])
def test_ok_needs_a_score_from_0_to_1(value: float | None) -> None:
    with pytest.raises(ValueError):
        Score(value, Status.OK)


@pytest.mark.parametrize("value", [True, "0.5"])
def test_a_score_is_a_number(value: Any) -> None:
    with pytest.raises(TypeError):
        Score(value, Status.OK)


def test_status_words_are_those_of_the_judgments_table() -> None:
    assert [status.value for status in Status] == ["ok", "parse_error", "refused", "throttled", "failed"]
    read_back: Any = "ok"
    assert Score(0.5, read_back).status is Status.OK
    with pytest.raises(ValueError):
        Score(None, "unheard of")  # type: ignore[arg-type]
