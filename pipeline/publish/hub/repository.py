"""A repository that is there, or is not, against what is asked for: refused in one line, never changed unseen."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

from pipeline.job.interval import before
from pipeline.publish.hub.client import HubClient, Refs
from pipeline.publish.hub.errors import NotThere, PublishError
from pipeline.publish.hub.wish import Wish
from pipeline.store.dataset import JOB_FILE

MAIN = "main"
LATE = "backfill"  # branch of intervals that are published after newer ones


def head_of(client: HubClient, refs: Refs, branch: str) -> str | None:
    """A branch's newest commit; ``None``: there is no such branch yet. Raises PublishError: it is none."""
    if branch in refs.branches:
        return refs.branches[branch]
    if branch in refs.tags:
        raise PublishError(f"--revision {branch}: is a tag of {client.repo_id}, which stays where it is; name a branch")
    if branch == MAIN:
        return main_of(client, refs)
    if branch.startswith("refs/"):
        try:
            return client.head(branch)
        except NotThere as error:
            raise PublishError(f"--revision {branch}: {client.repo_id} has none; name a branch") from error
    return None


def on_its_branch(client: HubClient, wish: Wish, refs: Refs) -> tuple[Wish, str | None]:
    """The wish with the branch that it goes onto where it names none, and the newest interval that is published later.

    The main branch keeps the newest interval: one that is published late does not come in its place.
    """
    if wish.revision is not None or wish.create_pr or wish.interval is None:
        return wish, None
    # Whoever gives tags of another form has the interval in the data set's own record.
    newest = before([*refs.tags, *_interval_of(client, main_of(client, refs))], None)
    if newest in (None, wish.interval) or before([wish.interval], newest) is None:
        return wish, None
    return replace(wish, revision=LATE), newest


def _interval_of(client: HubClient, commit: str) -> list[str]:
    """Of the data set in a commit, where there is one and it is of one."""
    if JOB_FILE not in client.files(commit):
        return []
    with suppress(ValueError, AttributeError):
        found = json.loads(client.read(JOB_FILE, commit)).get("interval")
        return [found] if isinstance(found, str) else []
    return []


def main_of(client: HubClient, refs: Refs) -> str:
    """The main branch's newest commit; of a repository that was made just now, the list may not have it yet."""
    return refs.branches.get(MAIN) or client.head(MAIN)


def check_absent(client: HubClient, wish: Wish) -> None:
    """Raises PublishError: there is no such data set, and none is to be made so."""
    kind = client.other_kind()
    if kind is not None:
        raise PublishError(
            f"--repo-id {client.repo_id}: is a {kind} on the Hub; give another name, or make the data set there first "
            f"(hf repos create {client.repo_id} --repo-type dataset)"
        )
    if wish.create_pr:
        raise PublishError(
            f"--create-pr: {client.repo_id} is not on the Hub, or not for this token; publish without it to make it"
        )


def check_settings(client: HubClient, info: object, wish: Wish) -> None:
    """Raises PublishError: the repository is there and is another one than was asked for."""
    name = str(getattr(info, "id", client.repo_id))
    if name != client.repo_id:
        raise PublishError(f"--repo-id {client.repo_id}: is {name} on the Hub; give that")
    if wish.private and not getattr(info, "private", False):
        raise PublishError(
            f"--private: {client.repo_id} is there and is public; make it private in its settings, or leave this out"
        )
    if wish.gated and not getattr(info, "gated", False) and not wish.dry_run:
        raise PublishError(
            f"--gated: {client.repo_id} is there and is not gated; gate it in its settings, or leave this out"
        )


def check_tag(refs: Refs, tag: str | None, commit: str | None) -> bool:
    """Whether the tag is on that commit already; ``None`` is one that is not made yet.

    Raises:
        PublishError: it is on another.
    """
    if tag is None or tag not in refs.tags:
        return False
    if refs.tags[tag] != commit:
        raise PublishError(
            f"--tag {tag}: is on {refs.tags[tag][:12]} already, which other people may rely on; give another tag"
        )
    return True
