"""What a Hub that takes commits holds: repositories, their commits and refs, uploaded content, and its moods.

Spoken to over HTTP by :mod:`tests.hub_commit_server`; the wire format is that of ``huggingface_hub`` 2.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Of a new repository, as the Hub's own: what is stored as a large file.
GITATTRIBUTES = b"*.parquet filter=lfs diff=lfs merge=lfs -text\n*.png filter=lfs diff=lfs merge=lfs -text\n"
_LARGE = re.compile(r"\.(parquet|png)$")
MOST_REGULAR = 10_000_000  # bytes of a file that the Hub still keeps in git


class Refused(Exception):
    """What the Hub answers instead: a status, its code for the error, and words."""

    def __init__(self, status: int, code: str = "", words: str = "", **headers: str) -> None:
        super().__init__(words or code)
        self.status, self.code, self.words = status, code, words or f"scripted {code or status}"
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    content: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """Of git: of the content, or of the pointer to it."""
        content = self.content
        if self.large:
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(content)}\n"
            content = pointer.encode()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


Files = Mapping[str, Blob]


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    files: Files


@dataclass
class Repository:
    """One repository with its refs; a pull request is a branch ``refs/pr/N``."""

    kind: str
    private: bool = False
    gated: str | bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    requests: dict[int, str] = field(default_factory=dict)  # number of a pull request -> its status
    uploaded: dict[str, bytes] = field(default_factory=dict)  # SHA-256 -> content
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    def add(self, branch: str, title: str, files: Files) -> Commit:
        parent = self.branches.get(branch)
        oid = hashlib.sha1(f"{id(self)}{len(self.commits)}{branch}{title}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, dict(files))
        self.branches[branch] = oid
        return self.commits[oid]

    def find(self, revision: str) -> Commit:
        oid = self.branches.get(revision) or self.tags.get(revision) or revision
        if oid not in self.commits:
            raise Refused(404, "RevisionNotFound")
        return self.commits[oid]

    def history(self, branch: str = "main") -> list[str]:
        """Titles, the newest first, without the Hub's own first commit."""
        titles, oid = [], self.branches.get(branch)
        while oid is not None:
            titles.append(self.commits[oid].title)
            oid = self.commits[oid].parent
        return titles[:-1]

    def push(self, files: Mapping[str, bytes | None], branch: str = "main", title: str = "by hand") -> str:
        """What a person commits on the Hub; ``None``: the file is removed."""
        there = dict(self.find(branch).files)
        for path, content in files.items():
            if content is None:
                del there[path]
            else:
                there[path] = Blob(content, bool(_LARGE.search(path)))
        return self.add(branch, title, there).oid


@dataclass
class Fault:
    """What goes wrong with requests whose ``METHOD path?query`` fits, so many times, after some that go well.

    Attributes:
        how: ``refuse`` with ``status``; ``break``: the connection, in the middle of the request's body;
            ``lose``: it is done, and its answer never comes; ``call``: go on after the call.
        call: what happens there besides, before the connection is gone.
    """

    fits: str
    how: str = "refuse"
    status: int = 500
    words: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    after: int = 0
    call: Callable[[], object] = lambda: None


@dataclass
class CommitHub:
    """The Hub.

    Attributes:
        token: that may write; ``owner``: whose it is.
        repositories: (kind, id) -> it.
        faults: what goes wrong.
        asked: ``METHOD path?query`` of each request, in their order; tokens and the like that came in any URL would be
            seen here.
        received: bytes of content that were sent, as large files or in commits; received_large: the former.
        part_size: of a multipart upload, in bytes; ``None``: files come in one piece.
        page: entries of a tree in one answer.
    """

    token: str = "hf_testTokenThatNobodyPrints0123456789"
    owner: str = "me"
    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    received: int = 0
    received_large: int = 0
    part_size: int | None = None
    page: int = 1000
    lock: threading.RLock = field(default_factory=threading.RLock)

    def make(self, name: str, kind: str = "dataset", *, private: bool = False) -> Repository:
        repository = Repository(kind, private)
        repository.add("main", "initial commit", {".gitattributes": Blob(GITATTRIBUTES, False)})
        self.repositories[kind, name] = repository
        return repository

    def data_set(self, name: str) -> Repository:
        return self.repositories["dataset", name]

    def find(self, kind: str, name: str) -> Repository:
        if (kind, name) not in self.repositories:
            raise Refused(404, "RepoNotFound", "Repository not found")
        return self.repositories[kind, name]

    def fault_for(self, asked: str) -> Fault | None:
        """The first fault that it meets now; counted."""
        with self.lock:
            self.asked.append(asked)
            for fault in self.faults:
                if not re.search(fault.fits, asked) or not fault.times:
                    continue
                if fault.after:
                    fault.after -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    # What the API does, by name; bodies as the client sends them.

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        owner = body.get("organization") or self.owner
        name, kind = f"{owner}/{body['name']}", body.get("type", "model")
        if owner != self.owner:
            raise Refused(403, words=f"You don't have the rights to create a {kind} under the namespace {owner!r}")
        if (kind, name) in self.repositories:
            raise Refused(409, words=f"You already created this {kind} repo")
        self.make(name, kind, private=body.get("visibility") == "private")
        return {"url": f"https://huggingface.co/{kind}s/{name}", "name": name}

    def info(self, name: str, kind: str, revision: str) -> dict[str, Any]:
        repository = self.find(kind, name)
        commit = repository.find(revision)
        return {
            "_id": "0" * 24,
            "id": name,
            "sha": commit.oid,
            "private": repository.private,
            "gated": repository.gated,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": path} for path in sorted(commit.files)],
        }

    def refs(self, repository: Repository) -> dict[str, Any]:
        def shown(kind: str, refs: Mapping[str, str]) -> list[dict[str, str]]:
            return [{"name": each, "ref": f"refs/{kind}/{each}", "targetCommit": oid} for each, oid in refs.items()]

        branches = {name: oid for name, oid in repository.branches.items() if not name.startswith("refs/")}
        return {"branches": shown("heads", branches), "converts": [], "tags": shown("tags", repository.tags)}

    def discussions(self, repository: Repository, name: str, status: str) -> dict[str, Any]:
        found = [
            {
                "num": number,
                "title": repository.find(f"refs/pr/{number}").title,
                "status": state,
                "isPullRequest": True,
                "author": {"name": self.owner},
                "createdAt": "2026-01-01T00:00:00.000Z",
                "repo": {"name": name, "type": "dataset"},
            }
            for number, state in repository.requests.items()
            if status in ("", "all", state)
        ]
        return {"discussions": found, "count": len(found), "start": 0}

    def upload_modes(
        self, repository: Repository, revision: str, files: list[Mapping[str, Any]], ignored: str | None
    ) -> dict[str, Any]:
        """How each file is to be sent, or that it is not: by patterns, the repository's own where none come."""
        there = repository.find(revision).files
        if ignored is None:
            ignored = there[".gitignore"].content.decode() if ".gitignore" in there else ""
        patterns = ignored.split()
        answer = []
        for each in files:
            mode = "lfs" if _LARGE.search(each["path"]) or each["size"] > MOST_REGULAR else "regular"
            known = there.get(each["path"])
            oid = {} if known is None else {"oid": known.sha256 if known.large else known.oid}
            ignore = any(fnmatch.fnmatchcase(each["path"], pattern) for pattern in patterns)
            answer.append({"path": each["path"], "uploadMode": mode, "shouldIgnore": ignore} | oid)
        return {"files": answer}

    def commit(self, repository: Repository, revision: str, lines: bytes, *, new_request: bool) -> Commit:
        """One commit of ndjson lines; returns it. Raises Refused: a moved parent, content that was never uploaded."""
        header: dict[str, Any] = {}
        files = dict(repository.find(revision).files)
        for line in map(json.loads, lines.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                header = value
                head = repository.find(revision).oid
                if value.get("parentCommit", head) != head:
                    raise Refused(412, words="A commit has happened since. Please refresh and try again.")
            elif key == "file":
                content = base64.b64decode(value["content"])
                self.received += len(content)
                files[value["path"]] = Blob(content, False)
            elif key == "lfsFile":
                if value["oid"] not in repository.uploaded:
                    raise Refused(400, words=f"LFS pointer pointed to a file that does not exist: {value['path']}")
                files[value["path"]] = Blob(repository.uploaded[value["oid"]], True)
            elif key == "deletedFile":
                if value["path"] not in files:
                    raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
                del files[value["path"]]
            else:
                raise Refused(400, words=f"unknown operation {key}")
        branch = revision
        if new_request:
            number = 1 + len(repository.requests)
            branch = f"refs/pr/{number}"
            repository.branches[branch] = repository.find(revision).oid
            repository.requests[number] = "open"
        return repository.add(branch, header["summary"], files)
