"""Judging by the Batch API: a real HTTP server with files and batches, a run that is stopped, answers that lack."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from evaluation.endpoint.cache import JudgmentCache
from evaluation.endpoint.rubrics import rubric_of
from evaluation.endpoint.settings import OpenAISettings
from evaluation.items import Item
from evaluation.judges.openai_batch import BatchJudge
from evaluation.scores import Status
from tests.judge_server import JudgeServer

RUBRICS = [rubric_of("bold", "Speaks boldly.")]


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")


class Batches:
    """Files and batches.

    ``polls``: looks until a batch ends; ``ends``: how; ``lacks``: texts left unanswered; ``takes_none``: refuses files.
    """

    def __init__(self, polls: int = 2, ends: str = "completed", lacks: str = "never") -> None:
        self.polls, self.ends, self.lacks = polls, ends, lacks
        self.takes_none = False
        self.refusals: list[tuple[int, Any]] = []  # what the next calls are answered with
        self.lacks_parameters: dict[str, str] = {}  # parameter -> what is said of it in the file of errors
        self.says_of_all: tuple[int, Any] | None = None  # in the file of errors, of every question
        self.files: dict[str, bytes] = {}
        self.created = self.looks = 0
        self.answers = JudgeServer()

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if self.refusals:
            return self.refusals.pop(0)
        if method == "POST" and path == "/v1/files":
            (payload,) = re.findall(rb'\r\n\r\n(\{"custom_id.*?)\r\n--', body, re.DOTALL)
            self.files["in"] = payload
            return 200, {"id": "in", "object": "file", "bytes": 1, "created_at": 0, "filename": "x", "purpose": "batch"}
        if method == "POST" and self.takes_none:
            return 400, {"error": {"message": "no batches here", "type": "x"}}
        if method == "POST":
            self.created += 1
            return 200, self.batch("in_progress")
        if path.startswith("/v1/batches/"):
            self.looks += 1
            if self.looks < self.polls:
                return 200, self.batch("in_progress")
            self.files["out"], self.files["err"] = self.results()
            return 200, self.batch(self.ends)
        return 200, self.files[path.split("/")[3]]

    def batch(self, status: str) -> dict[str, Any]:
        ended = {"output_file_id": "out", "error_file_id": "err"} if status != "in_progress" else {}
        return {"id": "b1", "object": "batch", "endpoint": "x", "input_file_id": "in", "completion_window": "24h",
                "status": status, "created_at": 0, **ended}  # fmt: skip

    def results(self) -> tuple[bytes, bytes]:
        good, bad = [], []
        for line in self.files["in"].decode().splitlines():
            entry = json.loads(line)
            text, reply = self.answers.reply(entry["body"])
            choice = {
                "index": 0,
                "message": {"role": "assistant", "content": reply["content"]},
                "finish_reason": "stop",
            }
            answer = {"id": "x", "choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}
            refused = [said for name, said in self.lacks_parameters.items() if name in entry["body"]]
            if refused or self.says_of_all:
                code, said = self.says_of_all or (400, {"error": {"message": refused[0]}})
                bad.append({"custom_id": entry["custom_id"], "response": {"status_code": code, "body": said}})
            elif self.lacks in text:
                bad.append({"custom_id": entry["custom_id"], "response": {"status_code": 500, "body": "oops"}})
            else:
                good.append({"custom_id": entry["custom_id"], "response": {"status_code": 200, "body": answer}})
        return tuple("".join(json.dumps(each) + "\n" for each in some).encode() for some in (good, bad))  # type: ignore[return-value]


@contextmanager
def serving(batches: Batches) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            code, answer = batches.handle(self.command, self.path, body)
            payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


def items(n: int) -> list[Item]:
    return [Item(f"r{i}", f"text {i} is {'bold' if i % 2 else 'plain'}") for i in range(n)]


def judge(url: str, tmp_path: Path, **changes: Any) -> BatchJudge:
    settings = OpenAISettings(model="m", base_url=url, **changes)
    cache = JudgmentCache(tmp_path / "cache.sqlite")
    return BatchJudge(RUBRICS, settings, cache=cache, state=tmp_path / "batch.json", poll_s=0.01)


def test_answers_come_by_batch_and_are_kept(tmp_path: Path) -> None:
    batches = Batches()
    with serving(batches) as url:
        asked = judge(url, tmp_path)
        found = asked.judge(items(6), ["bold"])
        assert [s.score for s in found["bold"]] == [0.0, 1.0] * 3
        assert asked.budget.prompt_tokens == 600 and asked.n_calls == 6 and batches.looks >= 2
        assert not (tmp_path / "batch.json").exists()
        again = judge(url, tmp_path).judge(items(6), ["bold"])
        assert [s.score for s in again["bold"]] == [0.0, 1.0] * 3 and batches.created == 1


def test_a_run_that_is_stopped_waits_for_the_same_batch(tmp_path: Path) -> None:
    batches = Batches(polls=10**9)
    with serving(batches) as url:
        asked = judge(url, tmp_path)

        async def stop(seconds: float) -> None:
            raise KeyboardInterrupt

        asked._clock.sleep = stop  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            asked.judge(items(4), ["bold"])
        assert (tmp_path / "batch.json").is_file()
        batches.polls = 0
        assert [s.score for s in judge(url, tmp_path).judge(items(4), ["bold"])["bold"]] == [0.0, 1.0] * 2
        assert batches.created == 1


def test_what_a_batch_lacks_is_unscored_and_asked_anew(tmp_path: Path) -> None:
    batches = Batches(ends="expired", lacks="text 1")
    with serving(batches) as url:
        found = judge(url, tmp_path).judge(items(4), ["bold"])["bold"]
        assert [s.status for s in found] == [Status.OK, Status.FAILED, Status.OK, Status.OK]
        assert "oops" in (found[1].rationale or "")
        batches.lacks, batches.ends = "never", "completed"
        assert [s.score for s in judge(url, tmp_path).judge(items(4), ["bold"])["bold"]] == [0.0, 1.0] * 2
        assert batches.created == 2 and batches.files["in"].count(b"custom_id") == 1


def test_a_batch_that_may_cost_more_than_the_budget_is_not_sent(tmp_path: Path) -> None:
    batches = Batches()
    with serving(batches) as url:
        asked = judge(url, tmp_path, budget=1e-6, prompt_price=1.0)
        found = asked.judge(items(2), ["bold"])["bold"]
    assert {s.status for s in found} == {Status.FAILED} and batches.created == 0
    assert asked.stopped is not None and "more than is left of the budget of 1e-06" in asked.stopped


def test_a_batch_that_is_refused_costs_nothing(tmp_path: Path) -> None:
    batches = Batches()
    batches.takes_none = True
    with serving(batches) as url:
        asked = judge(url, tmp_path, budget=1.0, prompt_price=1.0)
        assert {s.status for s in asked.judge(items(2), ["bold"])["bold"]} == {Status.FAILED}
        assert "the batch could not be had" in str(asked.stopped) and "no batches here" in str(asked.stopped)
        assert asked.budget.reserved == 0 and not (tmp_path / "batch.json").exists()
        batches.takes_none = False
        assert {s.status for s in asked.judge(items(2), ["bold"])["bold"]} == {Status.OK} and asked.stopped is None


def test_a_parameter_that_is_refused_is_left_out_of_the_next_batch(tmp_path: Path) -> None:
    batches = Batches()
    batches.lacks_parameters = {"max_tokens": "use max_completion_tokens", "seed": "unknown field: seed"}
    with serving(batches) as url:
        asked = judge(url, tmp_path)
        assert [s.score for s in asked.judge(items(4), ["bold"])["bold"]] == [0.0, 1.0] * 2
        assert batches.created == 3 and asked.stopped is None
        assert asked.dialect.left_out == ["max_tokens (sent as max_completion_tokens)", "seed"]
        body = json.loads(batches.files["in"].splitlines()[0])["body"]
        assert body["max_completion_tokens"] == 600 and "seed" not in body


@pytest.mark.parametrize(
    ("of_all", "words"),
    [
        ((401, {"error": {"message": "bad key sk-secret"}}), "HTTP 401: bad key ***"),
        ((404, {"detail": "model not found"}), "HTTP 404: model not found"),
    ],
)
def test_what_no_later_call_cures_ends_a_batch_judge(tmp_path: Path, of_all: tuple[int, Any], words: str) -> None:
    batches = Batches()
    batches.says_of_all = of_all
    with serving(batches) as url:
        asked = judge(url, tmp_path)
        assert {s.status for s in asked.judge(items(4), ["bold"])["bold"]} == {Status.FAILED}
    assert asked.incurable and asked.stopped == words == asked.first_error and batches.created == 1


@pytest.mark.parametrize(
    ("refusals", "incurable", "words"),
    [
        ([(401, {"error": "bad key"})], True, "the batch could not be had: HTTP 401: bad key"),
        ([(429, {"error": {"code": "insufficient_quota", "message": "none left"}})], True, "none left"),
        ([(404, "<html><title>Not Found</title>")], True, "Not Found"),
        ([(500, {"error": "oops"})] * 2, False, "the batch could not be had: HTTP 500: oops"),
    ],
)
def test_a_batch_that_can_not_be_had(tmp_path: Path, refusals: list[Any], incurable: bool, words: str) -> None:
    batches = Batches()
    batches.refusals = refusals
    with serving(batches) as url:
        asked = judge(url, tmp_path, max_retries=0)
        found = asked.judge(items(2), ["bold"])["bold"]
    assert words in str(asked.stopped) and asked.incurable == incurable
    assert all(s.rationale == f"not asked: {asked.stopped}" for s in found)


def test_a_moments_trouble_is_waited_out(tmp_path: Path) -> None:
    batches = Batches()
    batches.refusals = [(500, {"error": "oops"}), (429, {"error": "slow down"})]
    with serving(batches) as url:
        asked = judge(url, tmp_path)

        async def soon(seconds: float) -> None:
            pass

        asked._clock.sleep = soon  # type: ignore[method-assign]
        assert [s.score for s in asked.judge(items(2), ["bold"])["bold"]] == [0.0, 1.0]
    assert asked.stopped is None and batches.created == 1


def test_lines_that_can_not_be_read_cost_their_own_question(tmp_path: Path) -> None:
    class Broken(Batches):
        def results(self) -> tuple[bytes, bytes]:
            good, bad = super().results()
            lines = good.splitlines()
            return b"\n".join([b"{", b"[1]", b'{"custom_id": "unknown"}', *lines[1:]]), bad + b"\xff"

    with serving(Broken()) as url:
        found = judge(url, tmp_path).judge(items(4), ["bold"])["bold"]
    assert [s.status for s in found] == [Status.FAILED, Status.OK, Status.OK, Status.OK]
    assert found[0].rationale == "the batch has no answer to it"
