"""A stand-in for Dataflow's service: it takes a job as the service's REST interface does and says that it is done."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class DataflowStub:
    """``with DataflowStub() as stub``: jobs that were created are in ``stub.jobs``.

    Args:
        ends: state that a job is in once it is asked for; may be changed.
        errors: messages of a job that has failed, in their order; may be changed.
    """

    def __init__(self, ends: str = "JOB_STATE_DONE", errors: Sequence[str] = ("no GPU is left",)) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.ends, self.errors = ends, errors
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                stub.asked.append(f"POST {self.path.partition('?')[0]}")
                job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.jobs.append(job)
                self._answer({"id": "job-1", "name": job["name"], "currentState": "JOB_STATE_RUNNING"})

            def do_PUT(self) -> None:
                job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.asked.append(f"PUT {self.path.partition('?')[0]} {job.get('requestedState')}")
                self._answer({"id": "job-1", "currentState": stub.ends})

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                stub.asked.append(f"GET {path}")
                job_id = path.partition("/jobs/")[2]
                if job_id and "/" not in job_id:
                    self._answer({"id": job_id, "currentState": stub.ends})
                elif stub.ends != "JOB_STATE_FAILED":
                    self._answer({})
                else:
                    about = {"messageImportance": "JOB_MESSAGE_ERROR", "time": "2026-01-01T00:00:00Z"}
                    messages = [about | {"id": f"m{i}", "messageText": text} for i, text in enumerate(stub.errors)]
                    self._answer({"jobMessages": messages})

            def _answer(self, body: dict[str, Any]) -> None:
                text = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("localhost", 0), Handler)

    @property
    def address(self) -> str:
        return f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> DataflowStub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
