"""What is asked for when a data set is published, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.publish.hub.compare import Changes
from pipeline.publish.hub.errors import PublishError
from pipeline.publish.hub.files import DataSetFiles


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes:
        repo_id: ``OWNER/NAME``; ``None``: only in a dry run, which compares nothing then.
        revision: branch, made if need be; ``None``: the main one.
        private: of a repository that is made; one that is there has to be so. gated: the same.
        licence: for the card, as the Hub names it; ``None``: the data set's own. licence_name, licence_link: of
            ``other``.
        interval: of the data set; ``None``: of none.
        overwrite: patterns of paths that may be taken though somebody else wrote them.
        local_names: whether tables may be published whose messages name places of this machine.
    """

    repo_id: str | None
    revision: str | None = None
    private: bool = False
    gated: bool = False
    create_pr: bool = False
    tag: str | None = None
    interval: str | None = None
    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    message: str | None = None
    overwrite: tuple[str, ...] = ()
    local_names: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Published:
    """What came of it.

    Attributes:
        files: what was, or would be, published.
        changes: what the commit did, or would do; ``None``: nothing was compared.
        url: of the repository, or of the pull request; ``None``: no repository was named.
        commit: that the files are in; ``None``: there is none, as in a dry run.
        made: whether this command made it.
        tag: that it has, or, after a dry run, would have.
        notes: what somebody should know, a line each.
        problems: what is there that is not what is here, a line each.
        refused: in a dry run, why it would not be published; ``None``: it would.
    """

    files: DataSetFiles
    changes: Changes | None
    url: str | None = None
    commit: str | None = None
    made: bool = False
    tag: str | None = None
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    refused: PublishError | None = None

    @property
    def sent_bytes(self) -> int:
        """Of content that the commit brought; what an earlier try had uploaded of it was not sent again."""
        if self._is_found:
            return 0
        return sum(self._size(path) for path in self._sent)

    @property
    def there_bytes(self) -> int:
        """Of content that was there already, be it under another name."""
        if self._is_found:
            return self.files.n_bytes
        return (
            0 if self.changes is None else sum(self._size(path) for path in (*self.changes.same, *self.changes.moved))
        )

    @property
    def _is_found(self) -> bool:
        """Whether all was there before, as in a pull request that waits."""
        return self.commit is not None and not self.made

    @property
    def _sent(self) -> tuple[str, ...]:
        if self.changes is None:
            return ()
        return tuple(path for path in (*self.changes.new, *self.changes.changed) if path not in self.changes.moved)

    def _size(self, path: str) -> int:
        return self.files.files[path].contents.size
