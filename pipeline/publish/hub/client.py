"""The Hub as publishing needs it: each question once, tried again where that may help, errors in one line."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import mpg
from pipeline.publish.hub.compare import Contents
from pipeline.publish.hub.errors import NotThere, PublishError, in_words, problem_of
from pipeline.publish.hub.files import LocalFile
from pipeline.publish.hub.patience import Patience

logger = logging.getLogger(__name__)
T = TypeVar("T")

# Of one answer. The Hub ends commits that take longer than a minute by itself; the client has no limit of its own.
_TIMEOUT_S = 120.0
_KIND = "dataset"
# What is asked through the client's own backoff (six tries of its own) is not tried six times more.
_OF_ITS_OWN = 2
_MOST_REQUESTS = 50  # open pull requests that are looked at


@dataclass(frozen=True)
class Refs:
    """Branches and tags: name -> commit."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Made:
    """A commit that was made; and where it is proposed, if it is."""

    commit: str
    pull_request: str | None


@dataclass
class HubClient:
    """One data set's repository.

    Attributes:
        repo_id: ``OWNER/NAME``.
        token: ``None``: only what anybody may read can be asked.
    """

    repo_id: str
    token: str | None
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        from huggingface_hub import HfApi

        self._api = HfApi(
            token=self.token if self.token is not None else False,
            library_name="mpg-scr",
            library_version=mpg.__version__,
        )

    @property
    def url(self) -> str:
        """Of the repository's page."""
        return f"{in_words(self._api.endpoint.rstrip('/'), self.token)}/datasets/{self.repo_id}"

    def info(self) -> Any | None:
        """What the Hub says of the repository; ``None``: it is not there, or not for this token."""
        try:
            return self.look()
        except NotThere:
            return None

    def look(self) -> Any:
        """What the Hub says of the repository. Raises NotThere, TokenRefused."""
        return self._ask(self.repo_id, lambda: self._api.dataset_info(self.repo_id))

    def owners(self) -> set[str]:
        """Whose repositories the token may see, in lower case: its user's and those of the user's organisations."""
        found = self._ask(self.repo_id, self._api.whoami)
        names = [found.get("name"), *(each.get("name") for each in found.get("orgs") or ())]
        return {str(each).lower() for each in names if each}

    def other_kind(self) -> str | None:
        """What else goes by this id: ``model`` or ``space``."""
        for kind in ("model", "space"):
            try:
                self._ask(self.repo_id, lambda kind=kind: self._api.repo_info(self.repo_id, repo_type=kind))  # type: ignore[misc]
            except NotThere:
                continue
            return kind
        return None

    def create(self, *, private: bool) -> None:
        """Make the repository; one that an earlier try has made is fine. Raises PublishError."""
        self._ask(
            f"{self.repo_id}: can't be made",
            lambda: self._api.create_repo(
                self.repo_id, repo_type=_KIND, private=True if private else None, exist_ok=True
            ),
        )

    def gate(self) -> None:
        """Have people ask for access."""
        self._ask(
            f"{self.repo_id}: can't be gated",
            lambda: self._api.update_repo_settings(self.repo_id, repo_type=_KIND, gated="auto"),
        )

    def refs(self) -> Refs:
        found = self._ask(self.repo_id, lambda: self._api.list_repo_refs(self.repo_id, repo_type=_KIND))
        return Refs(
            {each.name: each.target_commit for each in found.branches},
            {each.name: each.target_commit for each in found.tags},
        )

    def head(self, revision: str) -> str:
        """The commit of a revision that :meth:`refs` does not list (``refs/pr/1``)."""
        found = self._ask(f"{self.repo_id}@{revision}", lambda: self._api.dataset_info(self.repo_id, revision=revision))
        return str(found.sha)

    def create_branch(self, name: str, start: str) -> None:
        self._ask(
            f"{self.repo_id}: branch {name}",
            lambda: self._api.create_branch(self.repo_id, branch=name, revision=start, repo_type=_KIND, exist_ok=True),
        )

    def create_tag(self, name: str, commit: str) -> None:
        """Raises Moved: there is one of this name (that this very command may have made, its answer lost)."""
        self._ask(
            f"{self.repo_id}: tag {name}",
            lambda: self._api.create_tag(self.repo_id, tag=name, revision=commit, repo_type=_KIND),
        )

    def files(self, commit: str) -> dict[str, Contents]:
        """Path -> what is there, of all files of a commit."""
        from huggingface_hub.hf_api import RepoFile

        def listed() -> dict[str, Contents]:
            tree = self._api.list_repo_tree(self.repo_id, recursive=True, revision=commit, repo_type=_KIND)
            return {
                each.path: Contents(each.size, each.blob_id, each.lfs.sha256 if each.lfs else None)
                for each in tree
                if isinstance(each, RepoFile)
            }

        return self._ask(self.repo_id, listed, tries=_OF_ITS_OWN)

    def read(self, path: str, commit: str) -> bytes:
        """A small file's content."""

        def got() -> bytes:
            return Path(self._api.hf_hub_download(self.repo_id, path, repo_type=_KIND, revision=commit)).read_bytes()

        return self._ask(f"{self.repo_id}: {path}", got)

    def open_requests(self) -> Iterator[tuple[str, str]]:
        """The newest open pull requests: the commit that each proposes, and its page."""

        def listed() -> list[int]:
            found = self._api.get_repo_discussions(
                self.repo_id, repo_type=_KIND, discussion_type="pull_request", discussion_status="open"
            )
            return sorted((each.num for each in found), reverse=True)

        for number in self._ask(self.repo_id, listed)[:_MOST_REQUESTS]:
            yield self.head(f"refs/pr/{number}"), f"{self.url}/discussions/{number}"

    def upload(self, additions: Sequence[Any], revision: str, *, create_pr: bool) -> None:
        """Send the large ones' content, as far as the Hub has it not: no commit sees it yet."""
        self._ask(
            f"{self.repo_id}: upload",
            lambda: self._api.preupload_lfs_files(
                self.repo_id,
                additions,
                repo_type=_KIND,
                revision=revision,
                create_pr=create_pr,
                free_memory=False,
                gitignore_content="",  # whatever a .gitignore there says: what is published is decided here
            ),
            tries=_OF_ITS_OWN,
        )

    def commit(self, operations: Sequence[Any], *, parent: str, revision: str, message: str, create_pr: bool) -> Made:
        """One commit of all operations on top of ``parent``, tried once: whether it was made is seen by looking.

        Raises:
            Moved: the branch's newest commit is another. Passing: it may have been made or not. PublishError.
        """
        made = self._once(
            f"{self.repo_id}: commit",
            lambda: self._api.create_commit(
                self.repo_id,
                operations,
                commit_message=message,
                repo_type=_KIND,
                revision=revision,
                create_pr=create_pr,
                parent_commit=parent,
            ),
        )
        return Made(str(made.oid), made.pr_url)

    def additions(self, files: Mapping[str, LocalFile], paths: Iterable[str]) -> list[Any]:
        """Operations of the client that add these."""
        from huggingface_hub import CommitOperationAdd

        operations = []
        for path in paths:
            operation = CommitOperationAdd(path, files[path].source)
            if files[path].contents.sha256 is not None:  # known: it need not be read once more
                operation.upload_info.sha256 = bytes.fromhex(str(files[path].contents.sha256))
            operations.append(operation)
        return operations

    def _ask(self, what: str, question: Callable[[], T], *, tries: int | None = None) -> T:
        patience = self.patience if tries is None else replace(self.patience, tries=min(tries, self.patience.tries))
        return patience.over(lambda: self._once(what, question))

    def _once(self, what: str, question: Callable[[], T]) -> T:
        from huggingface_hub.utils import get_session

        get_session().timeout = _TIMEOUT_S
        try:
            return question()
        except Exception as error:
            raise problem_of(error, what, self.token) from error


def token_here() -> str | None:
    """The token that this machine has; ``None``: none. Raises PublishError: one that can't be sent."""
    from huggingface_hub import get_token

    token = get_token() or None
    if token is not None and not re.fullmatch("[!-~]+", token):  # RFC 6750: no blanks, nothing beyond ASCII
        raise PublishError(
            "the token of the Hub that is here has characters that none has; log in again (hf auth login), or give "
            "another in HF_TOKEN"
        )
    return token


@contextmanager
def quiet_about(token: str | None) -> Iterator[None]:
    """No log of the Hub's client, whoever asked for it, holds the token or a signed URL, or says a thing twice."""
    clean = _Clean(token)
    names = (None, "huggingface_hub", "httpx2", "httpx", "httpcore2", "httpcore", "filelock", "datasets", "fsspec")
    handlers = {handler for name in names for handler in logging.getLogger(name).handlers}
    for handler in handlers:
        handler.addFilter(clean)
    of_the_hub = logging.getLogger("huggingface_hub")
    own = of_the_hub.handlers[:] if of_the_hub.propagate and logging.getLogger().handlers else []
    for handler in own:
        of_the_hub.removeHandler(handler)
    try:
        yield
    finally:
        for handler in own:
            of_the_hub.addHandler(handler)
        for handler in handlers:
            handler.removeFilter(clean)


class _Clean(logging.Filter):
    def __init__(self, token: str | None) -> None:
        super().__init__()
        self._token = token

    def filter(self, record: logging.LogRecord) -> bool:
        """Always passes; the words are others."""
        if record.name.split(".")[0] not in ("pipeline", "mpg"):
            record.msg, record.args = in_words(record.getMessage(), self._token), ()
            if record.exc_info:
                record.exc_info = None
        return True
