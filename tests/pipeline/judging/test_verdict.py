"""What judges behind endpoints have left unscored is added up piece by piece."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from evaluation.endpoint.rubrics import FLUENCY, Rubric
from evaluation.endpoint.settings import OpenAISettings
from evaluation.items import Item, label_of
from evaluation.judges.openai import OpenAIJudge
from evaluation.scores import Score, Status
from pipeline.exit_status import ExitStatus
from pipeline.judging import verdict as module
from pipeline.judging.table import judgment_rows
from pipeline.judging.verdict import Unscored
from pipeline.store.schema import JUDGMENTS

NAMES = ("bold", "profile", FLUENCY)
OK = Score(0.5, Status.OK)


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OpenAIJudge:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    rubrics = [Rubric("bold", "dares", "is shy"), Rubric("profile", "speaks as {profile}", "as anybody")]
    return OpenAIJudge(rubrics, OpenAISettings(model="m"))


def table(judge: OpenAIJudge, item: Item, *scores: Score) -> pa.Table:
    rows = judgment_rows([item], label_of(judge), {name: [each] for name, each in zip(NAMES, scores, strict=True)})
    return pa.Table.from_pylist(rows, schema=JUDGMENTS)


def failed(why: str) -> Score:
    return Score(None, Status.FAILED, why)


def test_what_nobody_could_judge_does_not_count(judge: OpenAIJudge) -> None:
    """A row without a profile on the profile, and a text without words on all."""
    told, silent = Item("a", "I dare."), Item("b", " .. ", profile="A baker.")
    assert set(judge.unjudgeable(told, NAMES)) == {"profile"} and set(judge.unjudgeable(silent, NAMES)) == set(NAMES)
    assert judge.unjudgeable(Item("c", "I bake.", profile="A baker."), NAMES) == {}
    items = {"a": told, "b": silent}
    missing = Unscored([(judge, NAMES), (object(), NAMES)])
    missing.add(table(judge, told, OK, failed("no profile"), OK), lambda row_ids: {i: items[i] for i in row_ids})
    missing.add(table(judge, silent, *[failed("no words")] * 3), lambda row_ids: {i: items[i] for i in row_ids})
    assert missing.verdict(0.0) is None
    missing.add(table(judge, told, failed("away"), failed("no profile"), failed("away")), lambda row_ids: {"a": told})
    found = missing.verdict(0.4)
    assert found is not None and found.status is ExitStatus.UNSCORED
    assert "2 of 4 judgments are missing" in found.why and "2 times away" in found.why
    assert missing.verdict(0.5) is None


def test_of_very_many_reasons_some_are_told_apart(judge: OpenAIJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_REASONS", 3)
    missing = Unscored([(judge, NAMES)])
    for i in range(9):
        item = Item(str(i), "I dare.", profile="A baker.")
        missing.add(table(judge, item, failed(f"request {i}"), failed("away"), OK), lambda row_ids: {})
    found = missing.verdict(0.1)
    assert found is not None and "18 of 27 judgments are missing" in found.why and "9 times away" in found.why
