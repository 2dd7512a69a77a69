"""Endpoints that differ, and those that can't be asked: real HTTP servers, the real `openai` client."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from evaluation.endpoint.cache import JudgmentCache
from evaluation.endpoint.limits import Clock
from evaluation.endpoint.rubrics import rubric_of
from evaluation.endpoint.settings import JudgeSetupError, OpenAISettings
from evaluation.items import Item
from evaluation.judges.openai import OpenAIJudge
from evaluation.scores import Status
from tests.judge_server import (
    IN_A_CHOICE,
    NOT_JSON,
    TRICKLE,
    JudgeServer,
    Reply,
    good,
    hang,
    refuses,
    says,
    serving,
    status,
)

KEY = "sk-secret-0123456789"
RUBRICS = [rubric_of("bold", "Speaks boldly.", "Speaks timidly.")]
N = 200


class FastClock(Clock):
    """A minute passes in 60 ms, and every pause is kept."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return time.monotonic() * 1000.0

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(seconds / 1000.0)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def items(n: int = N) -> list[Item]:
    return [Item(f"r{i}", f"text {i} is {'bold' if i % 2 else 'plain'}", prompt="Say something.") for i in range(n)]


def judge_at(url: str, cache: JudgmentCache | None = None, **changes: Any) -> OpenAIJudge:
    settings = OpenAISettings(**({"model": "scripted", "base_url": url, "timeout_s": 60.0} | changes))
    return OpenAIJudge(RUBRICS, settings, cache=cache, clock=FastClock())


def asked(server: JudgeServer, n: int = N, **changes: Any) -> tuple[OpenAIJudge, dict[str, Any]]:
    with serving(server) as url:
        judge = judge_at(url, **changes)
        return judge, judge.judge(items(n), ["bold"])


INCURABLE = [
    status(401),
    status(403),
    refuses(404, {"error": {"message": "model 'scripted' not found", "type": "api_error"}}),
    refuses(404, {"detail": "Not Found"}),
    refuses(400, [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}]),
    refuses(429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    refuses(402, {"error": {"message": "Insufficient credits"}}),
    refuses(200, {"error": {"message": "invalid x-api-key", "type": "authentication_error"}}),
    refuses(400, {"error": "top_k is not supported"}),  # asked for by name, in extra_body
    refuses(400, {"error": {"message": "model is required to be something else", "param": "model"}}),
]


@pytest.mark.parametrize("reply", INCURABLE, ids=str)
def test_what_no_later_call_cures_costs_one_call(reply: Reply) -> None:
    server = JudgeServer(lambda text, n: reply)
    judge, found = asked(server, extra_body={"top_k": 1})
    assert server.calls.total() == 1 == judge.n_calls
    assert judge.incurable and judge.stopped is not None and judge.first_error is not None
    assert judge.first_error in judge.stopped and KEY not in judge.stopped
    assert {s.prompt_tokens for s in found["bold"]} == {None}
    assert [s.status for s in found["bold"]] == [Status.FAILED] * N
    assert found["bold"][0].rationale == judge.stopped or judge.first_error in (found["bold"][0].rationale or "")
    assert {s.rationale for s in found["bold"][1:]} == {f"not asked: {judge.stopped}"}


def test_an_unknown_host_costs_one_try_and_nobody_there_a_handful() -> None:
    judge = judge_at("http://no-such-host.invalid/v1")
    found = judge.judge(items(20), ["bold"])
    assert "its host can't be found" in str(judge.stopped) and judge.n_calls <= 5
    assert {s.status for s in found["bold"]} == {Status.FAILED}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        judge = judge_at(f"http://127.0.0.1:{free.getsockname()[1]}/v1")
        judge.judge(items(), ["bold"])
        assert judge.stopped == "no connection (connection refused), 5 times in a row" and judge.n_calls == 5
        assert not judge.incurable
        judge.judge(items(1), ["bold"])  # the same judge goes on
        assert judge.n_calls == 10


@pytest.mark.parametrize("url", ["http://a..b/v1", "http://xn--/v1", "http://" + "a" * 300 + "/v1"])
def test_an_address_that_nobody_can_call_is_no_traceback(url: str) -> None:
    judge = judge_at(url, max_retries=1)
    assert {s.status for s in judge.judge(items(3), ["bold"])["bold"]} == {Status.FAILED}
    assert judge.stopped is not None and judge.n_calls <= 2


def test_a_refusal_that_nobody_explains_ends_after_a_few_texts() -> None:
    server = JudgeServer(lambda text, n: refuses(400, {"error": "no"}))
    judge, _ = asked(server)
    assert judge.incurable and judge.stopped == "5 texts in a row came to nothing (HTTP 400: no)"
    assert server.calls.total() == 7  # two of them without a JSON schema, too


@pytest.mark.parametrize("reply", [status(500), NOT_JSON, IN_A_CHOICE, status(422), says("")], ids=str)
def test_a_server_that_never_answers_is_not_asked_about_every_text(reply: Reply) -> None:
    server = JudgeServer(lambda text, n: reply)
    judge, _ = asked(server)
    assert judge.stopped is not None and server.calls.total() <= 9 and KEY not in judge.stopped


def test_a_key_that_is_withdrawn_ends_it_soon() -> None:
    server = JudgeServer(lambda text, n: status(401) if server.calls.total() > 50 else good(text, n))
    judge, found = asked(server, in_flight=4)
    assert judge.incurable and server.calls.total() <= 50 + 3 + 2 * 4  # in flight, and as the third is heard
    assert sum(s.score is not None for s in found["bold"]) == 50


def test_what_is_refused_about_one_text_costs_that_text() -> None:
    long = refuses(400, {"error": {"message": "maximum context length is 512", "code": "context_length_exceeded"}})
    filtered = refuses(400, {"error": {"message": "filtered", "code": "content_filter"}})
    flagged = refuses(403, {"error": {"message": "Your input was flagged"}})

    def script(text: str, n: int) -> Reply:
        number = int(text.split()[1])
        return (
            long if number % 10 < 3 else filtered if number % 10 == 3 else flagged if number % 10 == 4 else good("", n)
        )

    server = JudgeServer(script)
    judge, found = asked(server, 100)
    assert server.calls.total() == 100 and judge.stopped is None
    assert Counter(s.status for s in found["bold"]) == {Status.OK: 50, Status.REFUSED: 50}


UNSUPPORTED = "Unsupported parameter: '{}' is not supported with this model."


@pytest.mark.parametrize(
    ("lacks", "left_out"),
    [
        ({"max_tokens": "use max_completion_tokens"}, ["max_tokens (sent as max_completion_tokens)"]),
        ({"max_tokens": UNSUPPORTED.format("max_tokens"), "max_completion_tokens": "unknown max_completion_tokens"},
         ["max_tokens"]),
        ({"temperature": UNSUPPORTED.format("temperature")}, ["temperature"]),
        ({"seed": refuses(422, {"detail": [{"loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]})},
         ["seed"]),
        ({"response_format": "This server does not support json_schema"}, ["response_format"]),
        ({"response_format": refuses(200, {"error": "'response_format.type' must be 'text'"})}, ["response_format"]),
        ({name: UNSUPPORTED.format(name) for name in ("seed", "temperature", "response_format", "max_tokens")},
         ["seed", "temperature", "response_format", "max_tokens (sent as max_completion_tokens)"]),
    ],
)  # fmt: skip
def test_what_an_endpoint_does_not_take_is_left_out_once(
    lacks: dict[str, Any], left_out: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = JudgeServer(lacks=lacks)
    with serving(server) as url, caplog.at_level(logging.WARNING):
        cache = JudgmentCache(tmp_path / "c.sqlite")
        judge = judge_at(url, cache)
        found = judge.judge(items(40), ["bold"])
        assert [s.score for s in found["bold"]] == [0.0, 1.0] * 20
        assert judge.dialect.left_out == left_out
        assert server.calls.total() == 40 + len(lacks) and caplog.text.count("judge: ") == len(lacks)
        judge_at(url, cache).judge([Item("new", "a new text")], ["bold"])  # another run knows
        assert server.calls.total() == 41 + len(lacks)
        for name in lacks:
            assert sum(name in body for body in server.bodies) <= len(lacks)
    assert judge.version == judge_at("http://127.0.0.1:9/v1").version


def test_calls_under_way_when_it_is_found_out_are_asked_again_and_lose_nothing() -> None:
    server = JudgeServer(lacks={"seed": "seed: unknown field"}, delay_s=0.05)
    with serving(server) as url:
        judge = judge_at(url, max_retries=0)
        judge.dialect.answered = True  # so that all calls go out at once
        found = judge.judge(items(64), ["bold"])
    assert [s.score for s in found["bold"]] == [0.0, 1.0] * 32 and judge.stopped is None
    assert 1 < sum("seed" in body for body in server.bodies) <= 32


def test_a_parameter_that_others_were_answered_with_is_about_the_text() -> None:
    """`max_tokens must be at least 1, got -30`: the text is too long, the parameter is not to blame."""
    bad = refuses(400, {"error": "max_tokens must be at least 1, got -30"})
    server = JudgeServer(lambda text, n: bad if 7 <= int(text.split()[1]) < 17 else good(text, n))
    judge, found = asked(server, 20, in_flight=1)
    assert [i for i, s in enumerate(found["bold"]) if s.score is None] == [*range(7, 17)]
    assert judge.dialect.left_out == [] and server.calls.total() == 20 and judge.stopped is None


def test_a_budget_that_could_not_be_kept_ends_it() -> None:
    no_length = {name: UNSUPPORTED.format(name) for name in ("max_tokens", "max_completion_tokens")}
    server = JudgeServer(lacks=no_length)
    judge, _ = asked(server, 20, budget=1.0, prompt_price=1.0)
    assert judge.incurable and "without which no budget can be kept" in str(judge.stopped)
    assert server.calls.total() == 2 and judge.budget.spent == judge.budget.reserved == 0.0


def test_a_schema_that_is_asked_for_by_name_can_not_be_left_out() -> None:
    server = JudgeServer(lacks={"response_format": "response_format is not supported"})
    judge, _ = asked(server, structured="json_schema")
    assert judge.incurable and "response_format is refused; give structured: auto, or none" in str(judge.stopped)
    assert server.calls.total() == 1


@pytest.mark.parametrize("reply", [TRICKLE, hang(1.0)], ids=str)
def test_the_time_limit_of_a_call_is_wall_clock_time(reply: Reply) -> None:
    server = JudgeServer(lambda text, n: reply if n == 0 else good(text, n))
    begin = time.monotonic()
    _, found = asked(server, 2, timeout_s=0.4)
    assert [s.score for s in found["bold"]] == [0.0, 1.0]
    assert time.monotonic() - begin < 30  # it ends at all


def test_a_date_to_come_back_at_is_kept() -> None:
    with serving(JudgeServer(lambda text, n: late if n == 0 else good(text, n))) as url:
        late = status(429, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True))
        judge = judge_at(url)
        found = judge.judge(items(3), ["bold"])
    assert [s.score for s in found["bold"]] == [0.0, 1.0, 0.0]
    assert isinstance(judge._clock, FastClock) and sum(judge._clock.slept) > 90


def test_a_server_that_asks_for_more_than_the_patience_is_left_alone() -> None:
    server = JudgeServer(lambda text, n: status(429, retry_after="7200"))
    judge, found = asked(server)
    assert server.calls.total() == 1 and not judge.incurable
    assert "come back in 7200 s, longer than patience_s 900" in str(judge.stopped)
    assert {s.status for s in found["bold"]} == {Status.THROTTLED}


def test_extra_fields_are_sent_and_part_of_the_answers_identity() -> None:
    server = JudgeServer()
    judge, _ = asked(server, 1, extra_body={"top_k": 1, "chat_template_kwargs": {"enable_thinking": False}})
    assert server.bodies[0]["top_k"] == 1 and server.bodies[0]["chat_template_kwargs"] == {"enable_thinking": False}
    plain, _ = asked(server, 1, temperature=None)
    assert "temperature" not in server.bodies[1] and server.bodies[1]["max_tokens"] == 600
    assert len({judge.version, plain.version, judge_at("http://127.0.0.1:9/v1").version}) == 3


BAD_ANSWERS = [
    '{"grades": {"bold": {"attribute": 1e400, "opposite": 1, "reason": "so"}}, "fluency": 4}',
    '{"grades": {"bold": {"attribute": NaN, "opposite": 1, "reason": "so"}}, "fluency": 4}',
    '{"grades": {"bold": {"attribute": ' + "9" * 5000 + ', "opposite": 1}}, "fluency": 4}',
    '{"grades": {"bold": {"attribute": 5, "opposite": 1, "attribute": 1}}, "fluency": 4}',
    '{"grades": {"bold": {"attribute": 5, "opposite": 1}, "bold": {"attribute": 1, "opposite": 5}}, "fluency": 4}',
    '{"grades": ' + '{"bold": ' * 5000,
    "{" * 100_000,
    '{"grades": {"bold": "\\ud800"}}',
    '{"grades": {"bold": {"attribute": 5, "opposite": 1, "reason": ["\\ud800"]}}}',
    "\ud800",
]


@pytest.mark.parametrize("answer", BAD_ANSWERS, ids=lambda text: text[:40].encode("ascii", "backslashreplace").decode())
def test_an_absurd_answer_costs_its_own_cell(answer: str) -> None:
    server = JudgeServer(lambda text, n: says(answer) if text.startswith("text 1 ") else good(text, n))
    _, found = asked(server, 4)
    assert [s.status for s in found["bold"]] == [Status.OK, Status.PARSE_ERROR, Status.OK, Status.OK]
    assert len(found["bold"][1].rationale or "") <= 300
    (found["bold"][1].rationale or "").encode()


def test_half_a_surrogate_pair_in_a_reason_is_kept_spelled_out(tmp_path: Path) -> None:
    answer = '{"grades": {"bold": {"attribute": 5, "opposite": 1, "reason": "so \\ud83d\\u0000"}}, "fluency": 4}'
    cache = JudgmentCache(tmp_path / "c.sqlite")
    with serving(JudgeServer(lambda text, n: says(answer))) as url:
        for _ in range(2):  # as it came, and as it was kept
            (score,) = judge_at(url, cache).judge(items(1), ["bold"])["bold"]
            assert (score.score, score.rationale) == (1.0, "so \\ud83d\x00")


def test_a_text_that_can_not_be_sent_is_unscored_with_its_reason() -> None:
    server = JudgeServer()
    odd = [
        Item("a", "x \ud800"),
        Item("b", "fine", prompt="\udcff"),
        Item("c", "fine"),
        Item("d", "y", profile="\ud800"),
    ]
    with serving(server) as url:
        found = judge_at(url).judge(odd, ["bold"])["bold"]
    assert [s.status for s in found] == [Status.FAILED, Status.FAILED, Status.OK, Status.FAILED]
    assert found[0].rationale == "the text holds half a surrogate pair, which can't be sent"
    assert server.calls.total() == 1


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        {"prompt_tokens": 1e400, "completion_tokens": 1},
        {"prompt_tokens": 10**40, "completion_tokens": 1},
        {"prompt_tokens": -1, "completion_tokens": True},
    ],
)
def test_absurd_usage_is_no_usage(usage: Any) -> None:
    content = '{"grades": {"bold": {"attribute": 5, "opposite": 1, "reason": "so"}}, "fluency": 4}'
    body = {"choices": [{"message": {"content": content}, "finish_reason": "stop"}], "usage": usage}
    judge, found = asked(JudgeServer(lambda text, n: refuses(200, body)), 1, budget=1.0, prompt_price=1.0)
    assert found["bold"][0].score == 1.0 and found["bold"][0].prompt_tokens is None
    assert judge.budget.spent > 0  # what it may have cost at most


def test_a_server_that_hands_the_key_back() -> None:
    content = f'{{"grades": {{"bold": {{"attribute": 5, "opposite": 1, "reason": "key {KEY}"}}}}, "fluency": 4}}'
    _, found = asked(JudgeServer(lambda text, n: says(content)), 1)
    assert found["bold"][0].rationale == "key ***"
    for said in (KEY, KEY[:14], f"Bearer {KEY}", f"'{KEY}\\n'", f"https://user:{KEY}@host"):
        judge, _ = asked(JudgeServer(lambda text, n, said=said: refuses(401, {"error": f"not {said} {{}}"})), 1)
        assert judge.stopped is not None and KEY[:11] not in judge.stopped and "not" in judge.stopped


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("OPENAI_API_KEY", "sk-secret two", "api_key_env: what OPENAI_API_KEY holds is no key"),
        ("OPENAI_API_KEY", "sk-sécret", "api_key_env: what OPENAI_API_KEY holds is no key"),
        ("OPENAI_BASE_URL", "https://user:hunter2@host/v1", "OPENAI_BASE_URL: holds a user, a password or a key"),
        ("OPENAI_BASE_URL", "https://host/v1?api_key=hunter2", "OPENAI_BASE_URL: holds a user, a password or a key"),
        ("OPENAI_BASE_URL", "localhost:8000", "OPENAI_BASE_URL: 'localhost:8000' is no address"),
        ("OPENAI_BASE_URL", "http://host:99999/v1", "OPENAI_BASE_URL: 'http://host:99999/v1' is no address"),
        ("OPENAI_BASE_URL", "http://", "OPENAI_BASE_URL: 'http://' is no address"),
        ("OPENAI_BASE_URL", "http://[::1/v1", "is no address"),
    ],
)
def test_an_environment_that_does_not_do(name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(JudgeSetupError, match=says) as caught:
        OpenAIJudge(RUBRICS, OpenAISettings(model="m"))
    assert "hunter2" not in str(caught.value) and "cret" not in str(caught.value)
