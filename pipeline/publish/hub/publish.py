"""A data set published on the Hub: its files are sent first, then one commit makes all of them visible.

A try may end anywhere. The next one looks at what is there and goes on from it: content that was uploaded is known by
its hash, a commit that was made leaves nothing to do, and one that lost its answer is found by looking. Each commit
names its parent, so that none is made on top of what nobody has looked at.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.exit_status import ExitStatus
from pipeline.publish.hub.checks import check_endpoint, check_message, check_refs, check_repo_id, whole_data_set
from pipeline.publish.hub.client import HubClient, Made, quiet_about, token_here
from pipeline.publish.hub.compare import Changes, compare
from pipeline.publish.hub.errors import Moved, Passing, PublishError
from pipeline.publish.hub.files import DataSetFiles, collect, is_read_with
from pipeline.publish.hub.licensed import NotLicensed, licensed_card, write_again
from pipeline.publish.hub.patience import Patience
from pipeline.publish.hub.read_back import other_files, other_rows, shown
from pipeline.publish.hub.repository import (
    MAIN,
    check_absent,
    check_settings,
    check_tag,
    head_of,
    main_of,
    on_its_branch,
)
from pipeline.publish.hub.tagged import SAME_TABLES, compared, tagged
from pipeline.publish.hub.wish import Published, Wish
from pipeline.store.copies import origin_of
from pipeline.store.dataset import CARD_FILE, PARTIAL
from pipeline.store.files import is_folder

logger = logging.getLogger(__name__)

_FIRST = ".gitattributes"  # of a new repository, the Hub's own
_BATCH_FILES, _BATCH_BYTES = 50, 2_000_000_000  # sent between two lines of progress
_MOST_SHOWN = 5


def publish_data_set(folder: Path, wish: Wish, *, patience: Patience | None = None) -> Published:
    """Publish a folder's data set, or, in a dry run, say what that would do.

    Args:
        folder: of a data set, on this machine or in a store.
        wish: what is asked for.
        patience: with the Hub; ``None``: the usual one.

    Raises:
        PublishError: one line; nothing was published, or the next try finds what was.
    """
    if wish.repo_id is not None:
        check_endpoint()
        check_repo_id(wish.repo_id)
    elif not wish.dry_run:
        raise PublishError("--repo-id: where to publish is missing; give OWNER/NAME")
    check_refs(wish.revision, wish.tag, create_pr=wish.create_pr)
    check_message(wish.message)
    refused: PublishError | None = None
    with whole_data_set(folder) as copy:
        try:
            card = licensed_card(copy, wish)
        except NotLicensed as problem:
            if not wish.dry_run:
                raise
            card, refused = (copy / CARD_FILE).read_bytes(), problem
        if card is not None:
            return _published(copy, wish, card, patience, refused)
    card = write_again(folder, wish)
    with whole_data_set(folder) as copy:
        return _published(copy, wish, card, patience)


def _published(
    folder: Path, wish: Wish, card: bytes, patience: Patience | None, refused: PublishError | None = None
) -> Published:
    """Publish, or list; ``refused``: why a dry run would already have ended."""
    token = _token(wish)
    with quiet_about(token):
        files = collect(folder, card)
        if files.telling and not wish.local_names and refused is None:
            refused = PublishError(
                f"{folder}: tables name places or hosts of this machine ({shown(list(files.telling))}); look at them, "
                "then publish them all the same with --local-names"
            )
            if not wish.dry_run:
                raise refused
        notes = list(_notes(folder, files))
        if wish.dry_run and card != (folder / CARD_FILE).read_bytes():
            notes.append("the card would be written anew, with its figures and this licence; run.json keeps it")
        if refused is not None or wish.repo_id is None:
            why = "it would not be published" if refused is not None else "no --repo-id is given"
            return Published(files, None, tag=wish.tag, notes=(*notes, f"not compared: {why}"), refused=refused)
        client = HubClient(wish.repo_id, token, patience or Patience(tries=1 if wish.dry_run else Patience.tries))
        if wish.dry_run:
            return _dry_run(client, files, wish, notes)
        return _Publishing(client, folder, files, wish).result()


def _token(wish: Wish) -> str | None:
    token = token_here()
    if token is None and not wish.dry_run:
        raise PublishError("no token of the Hub is here; log in (hf auth login), or give one in HF_TOKEN")
    return token


def _notes(folder: Path, files: DataSetFiles) -> Iterator[str]:
    if files.left_out:
        some = ", ".join(files.left_out[:_MOST_SHOWN])
        more = f" and {len(files.left_out) - _MOST_SHOWN} more" if len(files.left_out) > _MOST_SHOWN else ""
        yield f"left out, as no part of the data set: {some}{more}"
    if is_folder(origin_of(folder) / PARTIAL):
        yield f"left out: {PARTIAL}/, what a later run has so far; the complete data set is published"
    if files.n_places:
        yield f"{files.n_places} places of this machine are published by their names alone"
    if files.n_secrets:
        yield f"{files.n_secrets} texts lose what looks like a key or a password"


def _late(wish: Wish, newer: str | None) -> list[str]:
    """A word on an interval that is published after a newer one."""
    if newer is None:
        return []
    return [f"onto the branch {wish.revision}, as {newer} is published: {MAIN} keeps the newest"]


def _dry_run(client: HubClient, files: DataSetFiles, wish: Wish, notes: list[str]) -> Published:
    changes, refused = None, None
    try:
        info = client.info()
        if info is None:
            check_absent(client, wish)
            changes = compare(files.contents, {}, None)
            notes.append(f"{client.repo_id} would be made")
        else:
            check_settings(client, info, wish)
            refs = client.refs()
            there = tagged(client, refs, files, wish)
            if there is not None:
                notes.append(SAME_TABLES.format(tag=wish.tag))
                return Published(files, there[1], client.url, tag=wish.tag, notes=tuple(notes))
            wish, newer = on_its_branch(client, wish, refs)
            notes += _late(wish, newer)
            branch = wish.revision or MAIN
            if branch not in refs.branches and not branch.startswith("refs/"):
                notes.append(f"branch {branch} would be made from {MAIN}")
            start = head_of(client, refs, branch) or main_of(client, refs)
            changes = compared(client, start, files, wish)
            notes += [*_beside(changes, files), *_mixed(changes, files)]
            _check_others(client, changes)
            check_tag(refs, wish.tag, start if changes.none else None)
    except PublishError as problem:
        if problem.status == ExitStatus.TRY_AGAIN:
            notes.append(f"not compared: {problem}")
        else:
            refused = problem
    return Published(files, changes, client.url, tag=wish.tag, notes=tuple(notes), refused=refused)


@dataclass
class _Publishing:
    """One command's way from looking to a commit, and back to looking."""

    client: HubClient
    folder: Path
    files: DataSetFiles
    wish: Wish
    _unanswered: Changes | None = field(default=None, init=False)  # of a commit that lost its answer

    def result(self) -> Published:
        client = self.client
        self._prepare_repository()
        notes = list(_notes(self.folder, self.files))
        if self.wish.tag is not None:
            refs = client.refs()
            there = tagged(client, refs, self.files, self.wish)
            if there is not None:
                return self._is_there(*there, notes)
            self.wish, newer = on_its_branch(client, self.wish, refs)
            notes += _late(self.wish, newer)
        wish, n = self.wish, 0
        while True:
            n += 1
            try:
                changes, made, committed = self._try()
                break
            except (Moved, Passing) as problem:
                client.patience.pause(problem, n)
        notes += _beside(changes, self.files)
        if wish.tag is not None:
            self._tag(made.commit)
        url = made.pull_request or client.url
        problems = [*self._read_back(made.commit, url), *_mixed(changes, self.files)]
        return Published(self.files, changes, url, made.commit, committed, wish.tag, tuple(notes), tuple(problems))

    def _is_there(self, commit: str, changes: Changes, notes: list[str]) -> Published:
        """The tag is on this data set: no second copy of it is made."""
        url, problems = self.client.url, list(_mixed(changes, self.files))
        notes += _beside(changes, self.files)
        if changes.none:
            problems = [*self._read_back(commit, url), *problems]
        else:
            notes.append(SAME_TABLES.format(tag=self.wish.tag))
        none = replace(changes, new=(), changed=(), removed=(), moved=())
        return Published(self.files, none, url, commit, False, self.wish.tag, tuple(notes), tuple(problems))

    def _read_back(self, commit: str, url: str) -> list[str]:
        """What is there that is not what is here. Raises PublishError: it can't be told now."""
        try:
            problems = other_files(self.client, commit, self.files.contents)
            return problems or other_rows(self.client, commit, self.folder)
        except PublishError as problem:
            raise PublishError(f"{url}: published, and not read back: {problem}", problem.status) from problem

    def _prepare_repository(self) -> None:
        """There is one, as it was asked for. Raises PublishError."""
        client, wish = self.client, self.wish
        info = client.info()
        if info is None:
            check_absent(client, wish)
            client.create(private=wish.private)
            info = client.info()
            if info is None:
                raise PublishError(f"{client.repo_id}: was made and is not shown; check the token's rights")
        if wish.gated and not info.gated and {each.rfilename for each in info.siblings or ()} <= {_FIRST}:
            client.gate()  # nothing is in it yet: it was made for this, now or by an earlier try
            info = client.info()
        check_settings(client, info, wish)

    def _try(self) -> tuple[Changes, Made, bool]:
        """Look, and commit if need be: what was to do, the commit, and whether this command made it.

        Raises:
            Moved, Passing: look again. PublishError.
        """
        client, wish = self.client, self.wish
        branch, refs = wish.revision or MAIN, client.refs()
        head = head_of(client, refs, branch)
        if head is None:
            client.create_branch(branch, main_of(client, refs))
            head = client.head(branch)
        changes = compared(client, head, self.files, wish)
        _check_others(client, changes)
        if changes.none:
            check_tag(refs, wish.tag, head)
            return self._unanswered or changes, Made(head, None), self._unanswered is not None
        check_tag(refs, wish.tag, None)
        if wish.create_pr:
            for commit, url in client.open_requests():
                if not other_files(client, commit, self.files.contents):
                    return changes, Made(commit, url), self._unanswered is not None
        additions = client.additions(self.files.files, (*changes.new, *changes.changed))
        for batch in self._batches(additions):
            client.upload(batch, branch, create_pr=wish.create_pr)
        try:
            made = client.commit(
                [*additions, *_deletions(changes.removed)],
                parent=head,
                revision=branch,
                message=wish.message or self._message(),
                create_pr=wish.create_pr,
            )
        except Passing:
            self._unanswered = changes
            raise
        return changes, made, True

    def _message(self) -> str:
        return f"Publish {self.files.front.get('pretty_name') or self.folder.name}"

    def _batches(self, additions: Sequence[object]) -> Iterator[list[object]]:
        """Some at a time, with a line on each."""
        batch: list[object] = []
        sizes = {id(each): each.upload_info.size for each in additions}  # type: ignore[attr-defined]
        n_sent, sent, in_all = 0, 0, sum(sizes.values())
        for each in additions:
            batch.append(each)
            n_bytes = sum(sizes[id(one)] for one in batch)
            if len(batch) == _BATCH_FILES or n_bytes >= _BATCH_BYTES or each is additions[-1]:
                yield batch
                n_sent, sent, batch = n_sent + len(batch), sent + n_bytes, []
                logger.info("%d of %d files are there, %d of %d bytes", n_sent, len(additions), sent, in_all)

    def _tag(self, commit: str) -> None:
        """Raises PublishError: there is one of this name elsewhere."""
        name = str(self.wish.tag)
        if check_tag(self.client.refs(), name, commit):
            return
        try:
            self.client.create_tag(name, commit)
        except Moved as error:
            if not check_tag(self.client.refs(), name, commit):
                raise PublishError(str(error), ExitStatus.FAILED) from error


def _check_others(client: HubClient, changes: Changes) -> None:
    """Raises PublishError: the commit would touch what is not ours."""
    if changes.others:
        listed = [f"{path} {why}" for path, why in changes.others.items()]
        takes = " ".join(f"--overwrite {shlex.quote(path)}" for path in changes.takeable[:_MOST_SHOWN])
        say = f", or say {takes}" if takes else ""
        raise PublishError(f"{client.repo_id}: {shown(listed)}; look at it, then bring it over to here or move it{say}")


def _mixed(changes: Changes, files: DataSetFiles) -> list[str]:
    """Others' files that ``load_dataset`` reads together with ours: what it gives is not what is here."""
    return [
        f"{path} is not of this data set, and load_dataset reads it, too; rename or remove it"
        for path in changes.beside
        if is_read_with(path, files.front)
    ]


def _beside(changes: Changes, files: DataSetFiles) -> list[str]:
    """A word on others' files that lie among ours and are read by no configuration."""
    folders = {path.partition("/")[0] for path in (*changes.new, *changes.changed, *changes.same) if "/" in path}
    among = [path for path in changes.beside if path.partition("/")[0] in folders]
    among = [path for path in among if not is_read_with(path, files.front)]
    return [f"not of this data set, and in its folders there: {', '.join(among[:_MOST_SHOWN])}"] if among else []


def _deletions(paths: Sequence[str]) -> list[object]:
    from huggingface_hub import CommitOperationDelete

    return [CommitOperationDelete(path, is_folder=False) for path in paths]
