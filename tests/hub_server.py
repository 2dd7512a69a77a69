"""A local server that speaks what this project asks of the Hub: revisions and files, with the Hub's own refusals."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

Refusal = tuple[int, str]  # status, the Hub's error code
NO_REPO: Refusal = (404, "RepoNotFound")
NO_REVISION: Refusal = (404, "RevisionNotFound")
NO_FILE: Refusal = (404, "EntryNotFound")
GATED: Refusal = (403, "GatedRepo")


@dataclass
class Hub:
    """What the server holds.

    Attributes:
        commits: repository -> commit -> folder with its files.
        names: repository -> branch or tag -> commit.
        refusals: repository -> what every question about it is answered with.
        asked: paths, in their order.
    """

    commits: dict[str, dict[str, Path]] = field(default_factory=dict)
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def push(self, repository: str, folder: Path, *names: str) -> str:
        """Add a commit that branches or tags point to from now on; returns it."""
        known = self.commits.setdefault(repository, {})
        commit = hashlib.sha1(f"{repository}{len(known)}".encode()).hexdigest()
        known[commit] = folder
        for name in ("main", *names):
            self.names.setdefault(repository, {})[name] = commit
        return commit

    def find(self, repository: str, revision: str) -> tuple[str, Path] | Refusal:
        if repository in self.refusals:
            return self.refusals[repository]
        if repository not in self.commits:
            return NO_REPO
        commit = self.names[repository].get(revision, revision)
        if commit not in self.commits[repository]:
            return NO_REVISION
        return commit, self.commits[repository][commit]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(path)
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[0] == "api":
            repository, revision = "/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main"
            found = self.hub.find(repository, revision)
            if isinstance(found[0], int):
                return self._refuse(*found)
            if parts[4:5] == ["tree"]:
                return self._tree(found[1], "/".join(parts[6:]))
            return self._send(json.dumps({"id": repository, "sha": found[0], "siblings": []}).encode(), found[0])
        parts = parts[1:] if parts[0] == "datasets" else parts
        repository, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        found = self.hub.find(repository, revision)
        if isinstance(found[0], int):
            return self._refuse(*found)
        commit, folder = found
        if not (folder / file).is_file():
            return self._refuse(*NO_FILE, commit)
        return self._send((folder / file).read_bytes(), commit)

    def _tree(self, folder: Path, inside: str) -> None:
        if not (folder / inside).is_dir():
            return self._refuse(*NO_FILE)
        files = [path for path in sorted((folder / inside).rglob("*")) if path.is_file()]
        known = [
            {"type": "file", "path": str(path.relative_to(folder)), "size": path.stat().st_size, "oid": "0" * 40}
            for path in files
        ]
        return self._send(json.dumps(known).encode(), "")

    def _send(self, content: bytes, commit: str) -> None:
        self.send_response(200)
        self.send_header("x-repo-commit", str(commit))
        self.send_header("etag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str, commit: str = "") -> None:
        self.send_response(status)
        self.send_header("x-error-code", code)
        self.send_header("x-error-message", f"scripted {code}")
        if commit:
            self.send_header("x-repo-commit", commit)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[str]:
    """Serve for as long as it is needed; gives the address."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def serving_hub(hub: Hub) -> AbstractContextManager[str]:
    """Serve on a free port of this machine; gives what ``HF_ENDPOINT`` is to be."""
    return running(ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})))
