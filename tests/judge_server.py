"""A local OpenAI-compatible server that answers by a script: a real HTTP server with failure knobs."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = dict[str, Any]
# What is done with the nth call (from 0) about a text: `good` or one of the functions below.
Script = Callable[[str, int], Reply]


def good(text: str, n: int) -> Reply:
    """Grades 5 where the text names the attribute in words, else 1."""
    return {}


def status(code: int, **headers: str) -> Reply:
    return {"status": code, "headers": {name.replace("_", "-"): value for name, value in headers.items()}}


def refuses(code: int, body: Any, **headers: str) -> Reply:
    """An error as this server puts it: a JSON body of any form, or text."""
    given = {"raw": body.encode()} if isinstance(body, str) else {"body": body}
    return {**status(code, **headers), **given}


def says(content: str | None, **more: Any) -> Reply:
    return {"content": content, **more}


DROP: Reply = {"drop": True}  # the connection, before an answer
CUT: Reply = {"cut": True}  # the connection, in the middle of the body
EMPTY: Reply = {"body": {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": []}}
WRONG: Reply = {"body": {"grades": "are somewhere else"}}
NOT_JSON: Reply = {"raw": b"<html>gateway</html>"}
TRICKLE: Reply = {"trickle": True}  # a blank every tenth of a second, for ever
IN_A_CHOICE: Reply = {
    "body": {"choices": [{"index": 0, "finish_reason": "error", "message": {"role": "assistant", "content": ""},
                          "error": {"code": 502, "message": "the provider fell over"}}]}
}  # fmt: skip


def hang(seconds: float) -> Reply:
    return {"hang": seconds}


class JudgeServer:
    """Counts and times what it is asked.

    Args:
        script: what to do with each call.
        delay_s: before every answer.
        schema: whether it takes `response_format`; else it answers 400 and does not say why.
        lacks: parameter -> what it says of it with status 400, or the whole reply.
    """

    def __init__(
        self,
        script: Script = good,
        *,
        delay_s: float = 0.0,
        schema: bool = True,
        lacks: Mapping[str, str | Reply] | None = None,
    ) -> None:
        self.script, self.delay_s, self.schema, self.lacks = script, delay_s, schema, lacks or {}
        self.calls: Counter[str] = Counter()  # by text
        self.answered: Counter[str] = Counter()  # by text, good answers only
        self.bodies: list[dict[str, Any]] = []
        self.started: list[float] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()

    def reply(self, body: dict[str, Any]) -> tuple[str, Reply]:
        """The text asked about, and what to do."""
        user = body["messages"][-1]["content"]
        found = re.search(r"<(TEXT-\w+)>\n(.*)\n</\1>", user, re.DOTALL)
        text = found.group(2) if found else user
        with self.lock:
            n = self.calls[text]
            self.calls[text] += 1
            self.bodies.append(body)
            self.started.append(time.monotonic())
        if not self.schema and "response_format" in body:
            return text, {"status": 400, "headers": {}}
        for name, said in self.lacks.items():
            if name in body:
                error = {"message": said, "type": "invalid_request_error"}
                return text, refuses(400, {"error": error}) if isinstance(said, str) else said
        reply = dict(self.script(text, n))
        if not reply:
            names = user.rsplit("exactly these names: ", 1)[-1].split(", ")
            grades = {
                name: {"attribute": 5 if name in text else 1, "opposite": 1 if name in text else 5, "reason": "so"}
                for name in names
                if name
            }
            reply = {"content": json.dumps({"grades": grades, "fluency": 4}), "good": True}
        return text, reply


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    judge: JudgeServer

    def do_POST(self) -> None:
        judge = self.judge
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with judge.lock:
            judge.in_flight += 1
            judge.most_in_flight = max(judge.most_in_flight, judge.in_flight)
        try:
            text, reply = judge.reply(body)
            time.sleep(reply.get("hang", judge.delay_s))
        finally:
            with judge.lock:
                judge.in_flight -= 1
        if reply.get("drop"):
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        code = reply.get("status", 200)
        message = {"role": "assistant", "content": reply.get("content"), "refusal": reply.get("refusal")}
        choice = {"index": 0, "message": message, "finish_reason": reply.get("finish_reason", "stop")}
        answer = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "scripted", "choices": [choice],
            "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110},
        }  # fmt: skip
        if code != 200:
            answer = {"error": {"message": f"scripted {code} for {self.headers['authorization']}", "type": "x"}}
        payload = reply.get("raw") or json.dumps(reply.get("body", answer)).encode()
        with judge.lock:
            judge.answered[text] += bool(reply.get("good"))
        if reply.get("trickle"):
            self._trickle()
            return
        self.send_response(code)
        self.send_header("content-type", "application/json")
        for name, value in reply.get("headers", {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        if reply.get("cut"):
            self.wfile.write(payload[: len(payload) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(payload)

    def _trickle(self) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        except OSError:
            pass  # the client has gone

    def log_message(self, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *args: Any) -> None:
        pass  # a client that went away


@contextmanager
def serving(judge: JudgeServer) -> Iterator[str]:
    """Serve on a free port of this machine; gives the base URL."""
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"judge": judge}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
