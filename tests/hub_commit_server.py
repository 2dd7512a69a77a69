"""HTTP in front of :class:`tests.hub_commits.CommitHub`, as ``huggingface_hub`` 2 and ``datasets`` 5 speak it."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.hub_commits import Blob, Commit, CommitHub, Refused, Repository
from tests.hub_server import running

_KINDS = {"datasets": "dataset", "models": "model", "spaces": "space"}


class _Lost(Exception):
    """The connection ends here."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for the acknowledgement of its headers
    wbufsize = -1
    hub: CommitHub

    def do_GET(self) -> None:
        self._answered()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _answered(self) -> None:
        fault = self.hub.fault_for(f"{self.command} {self.path}")
        try:
            if fault is not None and fault.how == "break":
                self.rfile.read(int(self.headers.get("content-length", 0)) // 2)
                fault.call()
                raise _Lost
            body = self._body()
            if fault is not None and fault.how == "refuse":
                raise Refused(fault.status, words=fault.words, **dict(fault.headers))
            if fault is not None and fault.how == "call":
                fault.call()
            answer = self._answer(body)
            if fault is not None and fault.how == "lose":
                fault.call()
                raise _Lost
            self._send(*answer)
        except Refused as refused:
            headers = {"x-error-message": refused.words, "x-error-code": refused.code, **refused.headers}
            content = json.dumps({"error": refused.words}).encode()
            self._send(refused.status, content, {name: value for name, value in headers.items() if value})
        except (_Lost, BrokenPipeError, ConnectionResetError):
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, body: bytes) -> tuple[int, bytes, Mapping[str, str]]:
        split = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(split.query).items()}
        parts = [unquote(part) for part in split.path.strip("/").split("/")]
        authorized = self.headers.get("authorization") == f"Bearer {self.hub.token}"
        if self.headers.get("authorization") and not authorized:
            raise Refused(401, words="Invalid credentials in Authorization header")
        if parts[0] == "lfs":  # signed: it needs no token
            return self._large(parts[1:], query, body)
        if self.command in ("POST", "PUT") and not authorized and parts[-2:-1] != ["paths-info"]:
            raise Refused(401, words="Invalid username or password.")
        with self.hub.lock:
            if parts[0] == "api":
                answer = self._api(parts[1:], query, body)
                headers = {"link": answer.pop("_link")} if isinstance(answer, dict) and "_link" in answer else {}
                if headers:
                    answer = answer["entries"]
                return 200, json.dumps(answer).encode(), headers
            if parts[-1] == "batch":
                return 200, json.dumps(self._batch(parts, json.loads(body))).encode(), {}
            return self._file(parts, authorized)

    def _api(self, parts: list[str], query: Mapping[str, str], body: bytes) -> Any:
        hub = self.hub
        if parts == ["whoami-v2"]:
            return {"name": hub.owner, "type": "user"}
        if parts == ["repos", "create"]:
            return hub.create(json.loads(body))
        if parts == ["validate-yaml"]:
            return {"errors": [], "warnings": []}
        kind, name, what = _KINDS[parts[0]], "/".join(parts[1:3]), (parts[3:4] or ["revision"])[0]
        repository, rest = hub.find(kind, name), parts[4:]
        if repository.private and self.headers.get("authorization") is None:
            raise Refused(401, "RepoNotFound")
        match what:
            case "revision":
                return hub.info(name, kind, "/".join(rest) or "main")
            case "settings":
                changes = json.loads(body)
                repository.gated = changes.get("gated", repository.gated)
                repository.private = changes.get("visibility", "") == "private" or repository.private
                return {}
            case "refs":
                return hub.refs(repository)
            case "discussions":
                return hub.discussions(repository, name, query.get("status", ""))
            case "branch":
                if rest[0] in repository.branches:
                    raise Refused(409, words="Reference already exists")
                commit = repository.find(json.loads(body or b"{}").get("startingPoint", "main"))
                repository.branches[rest[0]] = commit.oid
                return {}
            case "tag":
                tag = json.loads(body)["tag"]
                if tag in repository.tags:
                    raise Refused(409, words="Tag reference exists already")
                repository.tags[tag] = repository.find(rest[0]).oid
                return {}
            case "preupload":
                asked_for = json.loads(body)
                return hub.upload_modes(repository, rest[0], asked_for["files"], asked_for.get("gitIgnore"))
            case "paths-info":
                files = repository.find(rest[0]).files
                asked = parse_qs(body.decode())["paths"]
                return [entry for path in asked for entry in _entries(files, path)]
            case "tree":
                return self._tree(repository.find(rest[0]), "/".join(rest[1:]), query)
            case "commit":
                new_request = query.get("create_pr") == "1"
                commit = hub.commit(repository, rest[0], body, new_request=new_request)
                url = f"{self._here()}/datasets/{name}"
                request = f"{url}/discussions/{len(repository.requests)}" if new_request else None
                return {
                    "success": True,
                    "commitOid": commit.oid,
                    "commitUrl": f"{url}/commit/{commit.oid}",
                    "pullRequestUrl": request,
                }
        raise Refused(404, words=f"no such call: {what}")

    def _here(self) -> str:
        return f"http://{self.headers['host']}"

    def _tree(self, commit: Commit, inside: str, query: Mapping[str, str]) -> Any:
        found = _tree_of(commit.files, inside, deep=query.get("recursive", "").lower() == "true")
        if inside and not found:
            raise Refused(404, "EntryNotFound")
        first = int(query.get("cursor", 0))
        page, rest = found[first : first + self.hub.page], found[first + self.hub.page :]
        if not rest:
            return page
        path = self.path.partition("?")[0]
        more = f"recursive={query.get('recursive', '')}&cursor={first + self.hub.page}"
        return {"entries": page, "_link": f'<{self._here()}{path}?{more}>; rel="next"'}

    def _batch(self, parts: list[str], asked: Mapping[str, Any]) -> dict[str, Any]:
        name = "/".join(parts[1:3]).removesuffix(".git")
        repository = self.hub.find("dataset", name)
        objects = []
        for each in asked["objects"]:
            entry = {"oid": each["oid"], "size": each["size"]}
            if each["oid"] not in repository.uploaded:
                href = f"{self._here()}/lfs/{name}/{each['oid']}"
                # Signed, as the Hub's own: whoever sees the URL may write there.
                signed = f"{href}?X-Amz-Signature=signature-that-nobody-prints"
                header: dict[str, Any] = {}
                if self.hub.part_size is not None and each["size"] > self.hub.part_size:
                    n_parts = -(-each["size"] // self.hub.part_size)
                    header = {str(i): f"{signed}&part={i}" for i in range(1, n_parts + 1)}
                    header["chunk_size"] = str(self.hub.part_size)
                entry["actions"] = {
                    "upload": {"href": f"{href}/complete" if header else signed, "header": header},
                    "verify": {"href": f"{href}/verify"},
                }
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    def _large(self, parts: list[str], query: Mapping[str, str], body: bytes) -> tuple[int, bytes, Mapping[str, str]]:
        repository, oid = self.hub.find("dataset", "/".join(parts[:2])), parts[2]
        with self.hub.lock:
            if self.command == "PUT":
                self.hub.received += len(body)
                self.hub.received_large += len(body)
                if "part" in query:
                    repository.parts.setdefault(oid, {})[int(query["part"])] = body
                else:
                    _store(repository, oid, body)
            elif parts[3] == "complete":
                pieces = repository.parts.pop(oid)
                _store(repository, oid, b"".join(pieces[i] for i in sorted(pieces)))
            elif oid not in repository.uploaded:
                raise Refused(404, words="was never uploaded")
        return 200, b"{}", {"etag": '"part"'}

    def _file(self, parts: list[str], authorized: bool) -> tuple[int, bytes, Mapping[str, str]]:
        """``datasets/owner/name/resolve/revision/path``, whole or a range of it."""
        kind, name = "model", "/".join(parts[:2])
        if parts[0] in _KINDS:
            kind, name, parts = _KINDS[parts[0]], "/".join(parts[1:3]), parts[1:]
        repository = self.hub.find(kind, name)
        if repository.private and not authorized:
            raise Refused(401, "RepoNotFound")
        commit, path = repository.find(parts[3]), "/".join(parts[4:])
        if path not in commit.files:
            raise Refused(404, "EntryNotFound", x_repo_commit=commit.oid)
        blob = commit.files[path]
        headers = {
            "x-repo-commit": commit.oid,
            "etag": f'"{blob.sha256 if blob.large else blob.oid}"',
            "accept-ranges": "bytes",
        }
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        if asked is None:
            return 200, blob.content, headers
        first, last = int(asked[1]), min(int(asked[2] or len(blob.content) - 1), len(blob.content) - 1)
        headers["content-range"] = f"bytes {first}-{last}/{len(blob.content)}"
        return 206, blob.content[first : last + 1], headers

    def _send(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def _store(repository: Repository, oid: str, content: bytes) -> None:
    if Blob(content, True).sha256 != oid:
        raise Refused(400, words="the content is not what its SHA-256 says")
    repository.uploaded[oid] = content


def _entries(files: Mapping[str, Blob], path: str) -> list[dict[str, Any]]:
    """What the Hub says of a file or folder; nothing of one that is not there."""
    if path in files:
        blob = files[path]
        entry = {"type": "file", "path": path, "size": len(blob.content), "oid": blob.oid}
        if blob.large:
            entry["lfs"] = {"oid": blob.sha256, "size": len(blob.content), "pointerSize": 134}
        return [entry]
    if any(name.startswith(f"{path}/") for name in files):
        return [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40}]
    return []


def _tree_of(files: Mapping[str, Blob], inside: str, *, deep: bool) -> list[dict[str, Any]]:
    under = f"{inside}/" if inside else ""
    found = {}
    for name in sorted(files):
        if name.startswith(under):
            steps = name.removeprefix(under).split("/")
            for n in range(1, len(steps) + 1) if deep else (1,):
                path = under + "/".join(steps[:n])
                found[path] = _entries(files, path)[0]
    return list(found.values())


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is none."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


def serving_commits(hub: CommitHub) -> AbstractContextManager[str]:
    """Serve on a free port of this machine; gives what ``HF_ENDPOINT`` is to be."""
    return running(_Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})))
