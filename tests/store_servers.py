"""Stores to write to: a real S3 server (moto) and a GCS emulator on this machine, each a process that a test starts."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

BUCKET = "bucket"
_SCRIPTS = Path(sys.executable).parent
_LONGEST_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """What the environment says of an S3 server with an empty bucket, while it runs."""
    port = free_port()
    with _process([str(_SCRIPTS / "moto_server"), f"-p{port}"], f"http://127.0.0.1:{port}/moto-api/"):
        address = f"http://127.0.0.1:{port}"
        _ask(urllib.request.Request(f"{address}/{BUCKET}", method="PUT", headers={"Authorization": "AWS x:y"}))
        yield s3_environment(address)


def s3_environment(address: str) -> dict[str, str]:
    """What a user sets for a server of S3's kind."""
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}
    return {"AWS_ENDPOINT_URL": address, **keys}


@contextmanager
def gcs_server() -> Iterator[dict[str, str]]:
    """The same of a GCS emulator."""
    port = free_port()
    command = [str(_SCRIPTS / "gcp-storage-emulator"), "start", f"--port={port}", "--in-memory"]
    with _process([*command, f"--default-bucket={BUCKET}"], f"http://127.0.0.1:{port}/storage/v1/b"):
        # gcsfs reads the second when it is imported, which a test may do before any place is named.
        yield {
            "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }


@contextmanager
def _process(command: list[str], answers_at: str) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        end = time.monotonic() + _LONGEST_S
        while True:
            try:
                _ask(urllib.request.Request(answers_at))
                break
            except OSError:
                assert time.monotonic() < end and process.poll() is None, f"{command[0]} does not answer"
                time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def _ask(request: urllib.request.Request) -> None:
    with suppress(urllib.error.HTTPError):  # an answer all the same
        urllib.request.urlopen(request, timeout=5).close()


class _Unsteady(BaseHTTPRequestHandler):
    """Passes requests on, and refuses some."""

    protocol_version = "HTTP/1.1"
    target = ""
    refuses: ClassVar[Callable[[int], int]]
    counter: ClassVar[dict[str, int]] = {}
    lock = threading.Lock()

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.lock:
            self.counter["asked"] += 1
            code = type(self).refuses(self.counter["asked"])
            self.counter["refused"] += code != 0
        if code:
            self._answer(code, [], _ERRORS[code])
            return
        connection = http.client.HTTPConnection(self.target, timeout=30)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        kept = [
            (k, v)
            for k, v in answer.getheaders()
            if k.lower() not in ("transfer-encoding", "connection", "date", "server")
        ]
        self._answer(answer.status, kept, content)
        connection.close()

    def _answer(self, code: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(code)
        for name, value in headers:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def log_message(self, format: str, *args: Any) -> None:
        pass


_ERRORS = {
    403: b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>",
    503: b"<Error><Code>SlowDown</Code><Message>Slow down.</Message></Error>",
}


@contextmanager
def unsteady(address: str, refuses: Callable[[int], int]) -> Iterator[tuple[str, dict[str, int]]]:
    """The address of a way to a server on which some requests are refused; and how many were asked and refused.

    Args:
        refuses: the number of a request -> 503 (which clients repeat), 403 (which they don't), or 0: it is passed on.
    """
    counter = {"asked": 0, "refused": 0}
    members = {"target": address.removeprefix("http://"), "refuses": staticmethod(refuses), "counter": counter}
    handler = type("Handler", (_Unsteady,), members)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", counter
    finally:
        server.shutdown()
        server.server_close()
