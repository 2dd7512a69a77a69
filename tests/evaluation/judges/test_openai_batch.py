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
        self.files: dict[str, bytes] = {}
        self.created = self.looks = 0
        self.answers = JudgeServer()

    def handle(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
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
            if self.lacks in text:
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
