"""Pairwise comparison in both orders, against a real server: what the order decides is no verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from evaluation.endpoint.cache import JudgmentCache
from evaluation.endpoint.rubrics import rubric_of
from evaluation.endpoint.settings import OpenAISettings
from evaluation.items import Item
from evaluation.judges.pairwise import PairwiseJudge
from evaluation.scores import Status
from tests.judge_server import JudgeServer, Reply, says, serving

RUBRICS = [rubric_of("bold", "Speaks boldly."), rubric_of("warm", "Is warm.")]
BOLD, PLAIN = Item("a", "I am bold!", prompt="Hi"), Item("b", "I am plain.", prompt="Hi")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


class Comparing(JudgeServer):
    """Names the bolder text for `bold`, and always A for `warm`; counts its calls."""

    n = 0

    def reply(self, body: dict[str, Any]) -> tuple[str, Reply]:
        user = body["messages"][-1]["content"]
        texts = [text for _, text in re.findall(r"<(TEXT-\w+)>\n(.*?)\n</\1>", user, re.DOTALL)]
        bold = ["bold" in text for text in texts]
        with self.lock:
            self.n += 1
        choice = "tie" if bold[0] == bold[1] else "A" if bold[0] else "B"
        return texts[0], says(json.dumps({"more": {"bold": choice, "warm": "A"}}))


def judge(url: str, cache: JudgmentCache | None = None) -> PairwiseJudge:
    return PairwiseJudge(RUBRICS, OpenAISettings(model="m", base_url=url, max_retries=0), cache=cache)


def test_both_orders_make_one_verdict(tmp_path: Path) -> None:
    server, cache = Comparing(), JudgmentCache(tmp_path / "c.sqlite")
    with serving(server) as url:
        asked = judge(url, cache)
        assert asked.position_bias is None
        found = asked.compare([BOLD, PLAIN, BOLD], [PLAIN, BOLD, BOLD], ["bold", "warm"])
        assert [s.score for s in found["bold"]] == [1.0, 0.0, 0.5]
        assert [s.score for s in found["warm"]] == [0.5, 0.5, 0.5]  # the order decided: no verdict
        # bold: A, B, B, A named in the four orders that decide; warm: A in all six.
        assert asked.position_bias == pytest.approx((2 + 6) / (4 + 6))
        assert server.n <= 6 and found["bold"][0].prompt_tokens in (100, 200)  # an order asked before costs nothing
        before = server.n
        again = judge(url, cache).compare([BOLD, PLAIN, BOLD], [PLAIN, BOLD, BOLD], ["bold", "warm"])
        assert [s.score for s in again["bold"]] == [1.0, 0.0, 0.5] and server.n == before


@pytest.mark.parametrize(
    ("reply", "status", "why"),
    [
        (says("A is bolder"), Status.PARSE_ERROR, "0 JSON objects with a comparison"),
        (says('{"more": {"bold": "C", "warm": "A"}}'), Status.PARSE_ERROR, "no choice for bold"),
        (says(None, refusal="No."), Status.REFUSED, "No."),
    ],
)
def test_what_cannot_be_read_is_no_verdict(reply: Reply, status: Status, why: str) -> None:
    with serving(JudgeServer(lambda text, n: reply)) as url:
        (score,) = judge(url).compare([BOLD], [PLAIN], ["bold"])["bold"]
    assert (score.score, score.status) == (None, status) and why in (score.rationale or "")


def test_lists_that_do_not_fit() -> None:
    asked = judge("http://127.0.0.1:9/v1")
    with pytest.raises(ValueError, match="no rubric of 'cold'"):
        asked.compare([BOLD], [PLAIN], ["cold"])
    with pytest.raises(ValueError, match="zip"):
        asked.compare([BOLD], [], ["bold"])
